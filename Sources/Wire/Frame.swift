import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The frame around each message on a stream socket: eight bytes, then the payload.
///
/// | bytes | meaning |
/// | --- | --- |
/// | 0 to 3 | length of the payload in bytes, big-endian |
/// | 4 | version of the framing: 1 |
/// | 5 | how many descriptors belong to the frame; they arrive with its first byte (SCM_RIGHTS, unix(7)) |
/// | 6 to 7 | zero |
public struct FrameHeader: Equatable, Sendable {
  public static let size = 8
  public static let version: UInt8 = 1
  /// Bytes of payload; more is refused before anything is allocated.
  public static let maximumLength = 64 << 20
  /// Linux passes at most 253 descriptors in one message (SCM_MAX_FD).
  public static let maximumDescriptors = 253

  public var length: Int
  public var descriptors: Int

  public init(length: Int, descriptors: Int) {
    self.length = length
    self.descriptors = descriptors
  }

  public var bytes: [UInt8] {
    let length = UInt32(self.length)
    return [
      UInt8(length >> 24), UInt8(length >> 16 & 255), UInt8(length >> 8 & 255), UInt8(length & 255), Self.version,
      UInt8(descriptors), 0, 0,
    ]
  }

  /// - Throws: `versionMismatch` or `protocolViolation` for bytes that are no header of ours.
  public init(parsing bytes: some Collection<UInt8>) throws(EngineError) {
    let header = Array(bytes)
    guard header.count == Self.size else { throw EngineError(.protocolViolation, "a frame's header was cut short") }
    // Another version of the framing says so in one small number; anything else was never meant to be a frame.
    guard header[4] < 16, header[6] == 0, header[7] == 0 else {
      throw EngineError(
        .protocolViolation,
        "the bytes \"\(Self.printable(header))\" are no frame: each message begins with its length in four bytes, "
          + "then 1, the number of descriptors, 0 and 0")
    }
    guard header[4] == Self.version else {
      throw EngineError(
        .versionMismatch, "the other side frames messages in version \(header[4]), this side in \(Self.version)")
    }
    length = header[..<4].reduce(0) { $0 << 8 | Int($1) }
    descriptors = Int(header[5])
    guard length <= Self.maximumLength else {
      throw EngineError(
        .protocolViolation, "a frame of \(length) bytes is longer than the \(Self.maximumLength) that are allowed")
    }
    guard descriptors <= Self.maximumDescriptors else {
      throw EngineError(.protocolViolation, "a frame carries \(descriptors) descriptors")
    }
  }
}

extension FrameHeader {
  /// Bytes in a message for people: ASCII as it is, the others as `\xNN`.
  private static func printable(_ bytes: [UInt8]) -> String {
    bytes.map { byte in
      if (32..<127).contains(byte) { return String(UnicodeScalar(byte)) }
      let digits = String(byte, radix: 16)
      return "\\x" + (digits.utf8.count < 2 ? "0" : "") + digits
    }.joined()
  }
}

/// Cuts the bytes of a stream socket into frames. Descriptors that were not handed out are closed with it.
public struct FrameReader: ~Copyable {
  /// One frame as it arrived.
  public struct Frame: Sendable {
    public let payload: ArraySlice<UInt8>
    public let descriptors: DescriptorTable
  }

  private var buffer: [UInt8] = []
  private var start = 0
  private var pending: [Int32] = []
  /// Bytes of payload that are taken from this side; more is refused before it is read.
  private let maximumLength: Int

  public init(maximumLength: Int = FrameHeader.maximumLength) {
    self.maximumLength = maximumLength
  }

  private func header(_ bytes: ArraySlice<UInt8>) throws(EngineError) -> FrameHeader {
    let header = try FrameHeader(parsing: bytes)
    guard header.length <= maximumLength else {
      throw EngineError(
        .protocolViolation, "a frame of \(header.length) bytes is longer than the \(maximumLength) that are allowed")
    }
    return header
  }

  deinit {
    for number in pending { close(number) }
  }

  /// The next whole frame of what has been received, or nil when more is needed.
  public mutating func next() throws(EngineError) -> Frame? {
    guard buffer.count - start >= FrameHeader.size else { return nil }
    let header = try header(buffer[start..<start + FrameHeader.size])
    let end = start + FrameHeader.size + header.length
    guard buffer.count >= end else { return nil }
    guard pending.count >= header.descriptors else {
      throw EngineError(.protocolViolation, "a frame came without its descriptors")
    }
    let table = DescriptorTable(incoming: Array(pending[..<header.descriptors]))
    pending.removeFirst(header.descriptors)
    let payload = buffer[start + FrameHeader.size..<end]
    start = end
    if start == buffer.count {
      buffer = []
      start = 0
    }
    return Frame(payload: payload, descriptors: table)
  }

  /// What one receive brought.
  public enum Received: Sendable {
    case bytes
    case endOfStream
    /// Nothing is there now; only with `MSG_DONTWAIT`.
    case wouldBlock
  }

  /// Receives once from a socket.
  ///
  /// - Parameter flags: of recvmsg(2).
  /// - Throws: `protocolViolation` when the stream ends inside a frame or descriptors were lost; `unavailable` when the
  ///   connection broke.
  public mutating func receive(from socket: Int32, flags: Int32 = 0) throws(EngineError) -> Received {
    if start > 0 {
      buffer.removeFirst(start)
      start = 0
    }
    var wanted = 16 << 10
    if buffer.count >= FrameHeader.size {
      let header = try header(buffer[..<FrameHeader.size])
      wanted = max(wanted, min(1 << 20, FrameHeader.size + header.length - buffer.count))
    }
    let before = buffer.count
    var count: Int32 = 253
    var truncated: Int32 = 0
    var arrived = [Int32](repeating: -1, count: 253)
    var received = 0
    var failure: Int32 = 0
    buffer.append(contentsOf: repeatElement(0, count: wanted))
    buffer.withUnsafeMutableBytes { bytes in
      repeat {
        received = linux_receive_with_descriptors(
          socket, bytes.baseAddress?.advanced(by: before), wanted, &arrived, &count, &truncated, flags)
        failure = received < 0 ? errno : 0
      } while failure == EINTR
    }
    buffer.removeLast(wanted - max(0, received))
    if received >= 0 { pending.append(contentsOf: arrived[..<Int(count)]) }
    if failure == EAGAIN { return .wouldBlock }
    if failure != 0 {
      throw EngineError(.unavailable, "the connection broke: \(SystemCallError.text(failure))")
    }
    if truncated != 0 { throw EngineError(.protocolViolation, "descriptors were lost on the way") }
    if received == 0 {
      guard buffer.isEmpty else { throw EngineError(.protocolViolation, "the connection ended inside a frame") }
      return .endOfStream
    }
    guard pending.count <= FrameHeader.maximumDescriptors * 4 else {
      throw EngineError(.protocolViolation, "more descriptors arrived than frames claim")
    }
    return .bytes
  }
}

/// Puts a payload and its descriptors into one frame.
public struct OutgoingFrame: Sendable {
  public let bytes: [UInt8]
  public let descriptors: [Descriptor]

  public init(payload: [UInt8], descriptors: [Descriptor]) throws(EngineError) {
    guard payload.count <= FrameHeader.maximumLength, descriptors.count <= FrameHeader.maximumDescriptors else {
      throw EngineError(
        .protocolViolation,
        "a message of \(payload.count) bytes with \(descriptors.count) descriptors does not fit a frame")
    }
    bytes = FrameHeader(length: payload.count, descriptors: descriptors.count).bytes + payload
    self.descriptors = descriptors
  }

  /// Sends from `offset` on; descriptors go with the first byte.
  ///
  /// - Returns: how many bytes went, or nil when the socket is full (only with `MSG_DONTWAIT`).
  /// - Throws: `unavailable` when the connection broke.
  public func send(to socket: Int32, from offset: Int, flags: Int32 = 0) throws(EngineError) -> Int? {
    let numbers = offset == 0 ? descriptors.map(\.number) : []
    while true {
      let sent = bytes.withUnsafeBytes { bytes in
        linux_send_with_descriptors(
          socket, bytes.baseAddress?.advanced(by: offset), bytes.count - offset, numbers, Int32(numbers.count), flags)
      }
      if sent >= 0 { return sent }
      switch errno {
      case EINTR: continue
      case EAGAIN: return nil
      default: throw EngineError(.unavailable, "the connection broke: \(SystemCallError.text(errno))")
      }
    }
  }

  /// Sends all of it on a blocking socket.
  public func sendAll(to socket: Int32) throws(EngineError) {
    var offset = 0
    while offset < bytes.count { offset += try send(to: socket, from: offset) ?? 0 }
  }
}
