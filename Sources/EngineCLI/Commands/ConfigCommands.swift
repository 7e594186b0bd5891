import Contracts
import Glibc
import LinuxSystem

/// `config default` and `config check`: the daemon knows the keys, so this program becomes the daemon's for these.
enum ConfigCommands {
  static let all: [Command] = [
    Command(
      "config default", usage: "", summary: "Print every key of the configuration with its default and what it means",
      arguments: .exactly(0), run: { _ in try become(["--default-config"]) }),
    Command(
      "config check", usage: "FILE", summary: "Say what is wrong with a configuration file", arguments: .exactly(1),
      run: { invocation in try become(["--check-config", invocation.arguments[0]]) }),
  ]

  /// execve(2) of `engined` with other arguments; it writes to this program's output.
  static func become(_ words: [String]) throws -> Int32 { try become(try DaemonStarter.executable(), words) }

  /// execve(2) of another program.
  static func become(_ executable: String, _ words: [String]) throws -> Int32 {
    var arguments: [UnsafeMutablePointer<CChar>?] = ([executable] + words).map { strdup($0) } + [nil]
    defer { arguments.forEach { free($0) } }
    execv(executable, &arguments)
    throw SystemCallError(call: "execv", subject: executable, number: errno)
  }

  /// Chooses the configuration of an engine that this command may start, in the variable `ENGINE_CONFIG`.
  ///
  /// - Throws: `Failure` when the engine of this instance runs with another configuration.
  static func select(_ file: String, _ global: GlobalOptions) throws {
    let path = file.isEmpty || file.hasPrefix("/") ? file : "\(WorkingDirectory.current)/\(file)"
    setenv("ENGINE_CONFIG", path, 1)
    let paths = Engine.paths(global)
    guard global.socket == nil, let present = try? Files.readText(paths.configurationNote), present != path,
      let _ = try Engine.attempt(paths)
    else { return }
    throw Failure(
      "engine: the engine of \(paths.root) runs with "
        + (present.isEmpty ? "the default configuration" : "the configuration \(present)")
        + ", not with \(path.isEmpty ? "the default one" : path); end it first with 'engine system shutdown'",
      status: 125)
  }
}
