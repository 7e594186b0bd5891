import Foundation
import Testing

/// What adding a driver to the tree touches: its folder, its line in `Package.swift`, and its place in the composition
/// root. Nothing else in the product names a built-in plugin.
@Suite("The composition root")
struct CompositionTests {
  static func text(_ path: String) throws -> String {
    try String(contentsOf: TestDrivers.checkout.appendingPathComponent(path), encoding: .utf8)
  }

  /// The modules of `Package.swift` that are plugins, with their folders.
  static func plugins() throws -> [(name: String, folder: String)] {
    let pattern = #/plugin\(\s*"(?<name>\w+)",\s*"(?<folder>[\w/]+)"/#
    return try text("Package.swift").matches(of: pattern).map { (String($0.name), String($0.folder)) }
  }

  @Test func namesEachPluginAndNobodyElseDoes() throws {
    let plugins = try Self.plugins()
    #expect(plugins.count >= 19)
    let composition = "\n" + (try Self.text("Sources/engined/Composition.swift"))
    var files: [String: String] = [:]
    for directory in ["Sources", "Plugins"] {
      let root = TestDrivers.checkout.appendingPathComponent(directory)
      let all = try #require(FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil))
      for case let file as URL in all where file.pathExtension == "swift" {
        let path = String(file.path.dropFirst(TestDrivers.checkout.path.count + 1))
        files[path] = try String(contentsOf: file, encoding: .utf8)
      }
    }
    for (name, folder) in plugins {
      #expect(files["Plugins/\(folder)/\(name).swift"] != nil, "\(name) has no file of handlers of its name")
      #expect(composition.contains("\nimport \(name)\n"), "\(name)")
      #expect(composition.components(separatedBy: "manager.add(\(name).self)\n").count == 2, "\(name)")
      for (path, text) in files where !path.hasPrefix("Plugins/\(folder)/") {
        // The one composes them, the other measures single steps of some of them.
        if path == "Sources/engined/Composition.swift" || path.hasPrefix("Sources/EngineBench/") { continue }
        #expect(!text.contains("import \(name)\n") && !text.contains("\(name)."), "\(path) names \(name)")
      }
    }
  }
}
