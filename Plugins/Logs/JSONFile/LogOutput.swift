import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The client's two descriptors. Text is gathered and written in the order of the lines: what is gathered for one
/// descriptor is written before anything is gathered for the other.
struct LogOutput: ~Copyable {
  private static let capacity = 64 << 10

  private let output: Descriptor
  private let error: Descriptor
  private let cancelled: Descriptor
  private var buffer: [UInt8] = []
  private var isError = false
  /// The client reads no more, or the request was cancelled.
  private(set) var isClosed = false

  init(_ output: Descriptor, _ error: Descriptor, cancelled: Descriptor) {
    self.output = Self.nonBlocking(output)
    self.error = Self.nonBlocking(error)
    self.cancelled = cancelled
  }

  /// Another open file description of a pipe or terminal, so that a client that stops reading does not hold this thread
  /// beyond cancellation and its own descriptors stay as they are.
  private static func nonBlocking(_ descriptor: Descriptor) -> Descriptor {
    var status = stat()
    guard fstat(descriptor.number, &status) == 0,
      status.st_mode & S_IFMT == S_IFIFO || status.st_mode & S_IFMT == S_IFCHR,
      let opened = try? Files.open("/proc/self/fd/\(descriptor.number)", O_WRONLY | O_NONBLOCK | O_NOCTTY)
    else { return descriptor }
    return Descriptor(adopting: opened.release())
  }

  mutating func append(isError: Bool, _ body: (inout [UInt8]) -> Void) throws(SystemCallError) {
    if isError != self.isError {
      try flush()
      self.isError = isError
    }
    body(&buffer)
    if buffer.count >= Self.capacity { try flush() }
  }

  mutating func flush() throws(SystemCallError) {
    let target = isError ? error : output
    var offset = 0
    while offset < buffer.count && !isClosed {
      let written = buffer.withUnsafeBytes {
        write(target.number, $0.baseAddress?.advanced(by: offset), buffer.count - offset)
      }
      if written >= 0 {
        offset += written
        continue
      }
      switch errno {
      case EINTR: continue
      case EAGAIN: try waitUntilWritable(target.number)
      case EPIPE, ECONNRESET: isClosed = true
      default: throw SystemCallError(call: "write", subject: "the client's output", number: errno)
      }
    }
    buffer.removeAll(keepingCapacity: true)
  }

  private mutating func waitUntilWritable(_ descriptor: Int32) throws(SystemCallError) {
    var polled = [
      pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0),
      pollfd(fd: cancelled.number, events: Int16(POLLIN), revents: 0),
    ]
    try SystemCallError.check("poll") { poll(&polled, nfds_t(polled.count), -1) }
    if polled[1].revents != 0 { isClosed = true }
  }
}
