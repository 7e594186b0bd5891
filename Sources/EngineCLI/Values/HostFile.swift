import Contracts
import LinuxSystem

/// Files that the user names on the command line.
enum HostFile {
  /// - Throws: `invalidArgument` in the words of Docker: `open /x: no such file or directory`.
  static func read(_ path: String) throws(EngineError) -> [UInt8] {
    do {
      return try Files.read(path)
    } catch {
      throw EngineError(.invalidArgument, "open \(path): \(error.reason.lowercasedFirst)")
    }
  }
}
