import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Something that happens once, and that threads and poll(2) can wait for (eventfd(2)).
public final class OneTimeEvent: Sendable {
  private let event: Descriptor

  public init() throws(SystemCallError) {
    event = Descriptor(
      adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
  }

  /// Readable for good once it has happened.
  public var descriptor: Int32 { event.number }

  public func raise() {
    var one: UInt64 = 1
    _ = write(event.number, &one, 8)
  }

  public var isRaised: Bool { wait(milliseconds: 0) }

  /// - Parameter milliseconds: -1 for as long as it takes.
  /// - Returns: whether it has happened.
  @discardableResult
  public func wait(milliseconds: Int32) -> Bool {
    var events = [pollfd(fd: event.number, events: Int16(POLLIN), revents: 0)]
    while true {
      let count = poll(&events, 1, milliseconds)
      if count >= 0 || errno != EINTR { return count == 1 }
    }
  }
}
