import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Ends blocking reads from another thread: a client that went away, or a partner that failed, must not leave a thread
/// waiting for bytes that never come.
public final class Interruption: Sendable {
  /// Readable for ever once `interrupt` was called (eventfd(2)).
  private let event: OwnedDescriptor

  public init() throws(EngineError) {
    do {
      event = OwnedDescriptor(
        adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) })
    } catch {
      throw EngineError(.resourceExhausted, "no descriptor left: \(error)")
    }
  }

  public func interrupt() {
    var one: UInt64 = 1
    write(event.number, &one, 8)
  }

  public var isInterrupted: Bool {
    var descriptor = pollfd(fd: event.number, events: Int16(POLLIN), revents: 0)
    return poll(&descriptor, 1, 0) > 0
  }

  /// Reads what is there, waiting for the first byte unless interrupted.
  ///
  /// - Returns: 0 at the end of the stream.
  /// - Throws: `cancelled` when interrupted, `internalFailure` with the reason when the read fails.
  public func read(
    _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) -> Int {
    try wait(descriptor, for: POLLIN)
    while true {
      let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      if count >= 0 { return count }
      let number = errno
      if number == EAGAIN {
        try wait(descriptor, for: POLLIN)
      } else if number != EINTR {
        throw EngineError(.internalFailure, "the archive cannot be read: \(SystemCallError.text(number))")
      }
    }
  }

  /// Waits until `descriptor` is ready (regular files always are), or throws `cancelled`.
  public func wait(_ descriptor: Int32, for events: Int32) throws(EngineError) {
    var descriptors = [
      pollfd(fd: descriptor, events: Int16(events), revents: 0),
      pollfd(fd: event.number, events: Int16(POLLIN), revents: 0),
    ]
    while poll(&descriptors, 2, -1) < 0 && errno == EINTR {}
    if descriptors[1].revents != 0 { throw EngineError(.cancelled, "interrupted") }
  }
}
