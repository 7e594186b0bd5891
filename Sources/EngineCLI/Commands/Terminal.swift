import CLinux
import Glibc
import LinuxSystem

/// The user's terminal in raw mode, so that every key goes to the container; as it was before when this value ends.
struct RawTerminal: ~Copyable {
  private let descriptor: Int32
  private var saved = termios()

  /// - Returns: nil when `descriptor` is no terminal.
  init?(_ descriptor: Int32) {
    self.descriptor = descriptor
    guard tcgetattr(descriptor, &saved) == 0 else { return nil }
    var raw = saved
    cfmakeraw(&raw)
    tcsetattr(descriptor, TCSANOW, &raw)
  }

  deinit {
    var saved = saved
    tcsetattr(descriptor, TCSANOW, &saved)
  }

  /// Rows and columns of the first of the standard descriptors that is a terminal.
  static var size: (rows: UInt16, columns: UInt16)? {
    for descriptor: Int32 in [0, 1, 2] {
      var size = winsize()
      if linux_ioctl_pointer(descriptor, UInt(TIOCGWINSZ), &size) == 0 { return (size.ws_row, size.ws_col) }
    }
    return nil
  }
}
