import Contracts
import Glibc
import LinuxSystem
import Wire

/// Reports as files.
package enum ReportFile {
  package static func text(_ report: Report) throws(EngineError) -> String {
    String(decoding: try JSON.encode(report, pretty: true), as: UTF8.self) + "\n"
  }

  package static func parse(_ text: String) throws(EngineError) -> Report {
    let report = try JSON.decode(Report.self, Array(text.utf8))
    guard report.format == Report.currentFormat else {
      throw EngineError(
        .versionMismatch, "it has the format \(report.format), and this engine writes \(Report.currentFormat)")
    }
    return report
  }

  /// - Throws: `invalidArgument` that names the file.
  package static func read(_ path: String) throws(EngineError) -> Report {
    let text: String
    do {
      text = try Files.readText(path)
    } catch {
      throw EngineError(.invalidArgument, "the results to compare with cannot be read: \(error)")
    }
    do {
      return try parse(text)
    } catch {
      throw EngineError(.invalidArgument, "\(path) is no file that 'engine bench --json' wrote: \(error)")
    }
  }

  /// Finds out before a minute of measuring whether a file can be written.
  ///
  /// - Throws: `invalidArgument` that names the file.
  static func expectWritable(_ path: String) throws(EngineError) {
    if path == "-" { return }
    if access(path, W_OK) == 0, !Files.isDirectory(path) { return }
    let number = Files.isDirectory(path) ? EISDIR : errno
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    if number == ENOENT, access(directory, W_OK) == 0 { return }
    throw EngineError(.invalidArgument, "the results cannot be written to \(path): \(SystemCallError.text(number))")
  }

  /// - Parameter path: `-` for the standard output.
  static func write(_ text: String, to path: String) throws(EngineError) {
    do {
      if path == "-" { return try Files.writeAll(1, Array(text.utf8)) }
      let file = try Files.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
      try Files.writeAll(file.number, Array(text.utf8), subject: path)
    } catch {
      throw EngineError(.internalFailure, "the results cannot be written: \(error)")
    }
  }
}
