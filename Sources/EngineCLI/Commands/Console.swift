import CLinux
import Glibc
import LinuxSystem

/// The client's standard output and error, without buffers: each call is one write(2).
enum Console {
  /// What went wrong with the output, if anything: for the exit status.
  static func out(_ text: String) { write(1, text) }
  static func line(_ text: String) { write(1, text + "\n") }
  static func error(_ text: String) { write(2, text + "\n") }

  private static func write(_ descriptor: Int32, _ text: String) {
    if text.isEmpty { return }
    // A reader that went away (`engine ps | head -1`) ends the process with SIGPIPE, as it should.
    try? Files.writeAll(descriptor, Array(text.utf8))
  }

  /// The terminal's width, or 80.
  static var width: Int {
    var size = winsize()
    guard linux_ioctl_pointer(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
    return Int(size.ws_col)
  }
}

extension Console {
  /// Replaces the current line of the terminal on standard error.
  static func progress(_ text: String) { try? Files.writeAll(2, Array("\r\u{1B}[K\(text)".utf8)) }
}
