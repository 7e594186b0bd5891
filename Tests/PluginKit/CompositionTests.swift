import Composition
import Foundation
import Kernel
import Testing

/// The list of plugins in `Package.swift` is the composition root: a folder and its line there are all that a plugin needs.
@Suite("The composition root")
struct CompositionTests {
  /// The texts of all sources below a directory of the checkout, by their paths within the checkout.
  static func sources(_ directory: String) throws -> [String: String] {
    let root = TestDrivers.checkout.appendingPathComponent(directory)
    let all = try #require(FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil))
    var sources: [String: String] = [:]
    for case let file as URL in all where file.pathExtension == "swift" {
      let path = String(file.path.dropFirst(TestDrivers.checkout.path.count + 1))
      sources[path] = try String(contentsOf: file, encoding: .utf8)
    }
    return sources
  }

  /// The folders below `Plugins` that have a plugin, with the name of it.
  static func folders() throws -> [(path: String, name: String)] {
    try sources("Plugins").flatMap { path, text in
      let folder = String(path.prefix(upTo: path.lastIndex(of: "/") ?? path.endIndex))
      return text.matches(of: #/class\s+(?<name>\w+)\s*:\s*Plugin\b/#).map { (folder, String($0.name)) }
    }
  }

  @Test func eachFolderIsBuiltIn() throws {
    let folders = try Self.folders()
    let names = try Composition.plugins().map { String(describing: $0) }
    for (path, name) in folders {
      #expect(
        names.contains(name),
        """
        \(path) is not built in: Package.swift needs the line plugin("\(name)", "\(path.dropFirst("Plugins/".count))") \
        in its list of plugins
        """)
    }
    #expect(Set(names) == Set(folders.map(\.name)) && names.count == folders.count)
    #expect(folders.count >= 19)
  }

  @Test func nobodyElseNamesAPlugin() throws {
    let folders = try Self.folders()
    let sources = try Self.sources("Sources").merging(try Self.sources("Plugins")) { $1 }
    for (folder, name) in folders {
      #expect(sources["\(folder)/\(name).swift"] != nil, "\(name) has no file of handlers of its name")
      // What `engine bench` becomes measures single steps of some of them.
      for (path, text) in sources where !path.hasPrefix(folder + "/") && !path.hasPrefix("Sources/EngineBench/") {
        #expect(!text.contains("import \(name)\n") && !text.contains("\(name)."), "\(path) names \(name)")
      }
    }
  }
}
