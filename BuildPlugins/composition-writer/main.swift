import Glibc

// composition-writer FILE MODULE...: writes the Swift source that lists the plugins of these modules.

let modules = CommandLine.arguments.dropFirst(2)
let imports = (modules + ["Kernel"]).sorted().map { "import \($0)\n" }.joined()
let source = """
  // Written by the build from the plugins of Package.swift.
  \(imports)
  /// The built-in plugins.
  enum Composition {
    /// Each module has a public class of its own name that is a `Plugin`.
    static let plugins: [any Plugin.Type] = [
  \(modules.map { "    \($0).self,\n" }.joined())  ]
  }

  """

guard let path = CommandLine.arguments.dropFirst().first, let file = fopen(path, "we") else {
  perror("composition-writer")
  exit(1)
}
guard fputs(source, file) >= 0, fclose(file) == 0 else {
  perror(path)
  exit(1)
}
