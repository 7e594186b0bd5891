import Contracts
import Glibc

/// This machine in the words of OCI: `linux/amd64`.
enum Platform {
  static var architecture: String {
    #if arch(x86_64)
      "amd64"
    #elseif arch(arm64)
      "arm64"
    #else
      "unknown"
    #endif
  }

  /// - Throws: `unsupported` for any other than this machine's.
  static func check(_ text: String) throws(EngineError) {
    let accepted = ["linux", architecture, "linux/\(architecture)", "linux/\(architecture)/v8"]
    guard accepted.contains(text.lowercased()) else {
      throw EngineError(
        .unsupported, "platform \"\(text)\" is not available: this engine runs linux/\(architecture) only")
    }
  }
}

enum WorkingDirectory {
  /// The client's own; `/` where it cannot be told.
  static var current: String {
    guard let path = getcwd(nil, 0) else { return "/" }
    defer { free(path) }
    return String(cString: path)
  }
}

extension String {
  /// With a small first letter, as Go writes the words of errno.
  var lowercasedFirst: String { prefix(1).lowercased() + dropFirst() }
}
