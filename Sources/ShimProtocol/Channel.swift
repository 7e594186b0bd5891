import CLinux
import Glibc
import LinuxSystem

/// Frames over a Unix socket of type SOCK_SEQPACKET (unix(7)): the kernel keeps the frames apart, and descriptors stay
/// with the frame they belong to. A frame too long for the socket's buffer travels in a memfd beside an empty one.
public enum Channel {
  /// Bytes that are sent inline; `net.core.wmem_default` is 212 992 and the kernel wants some of that for itself.
  static let inlineLimit = 96 << 10
  /// The longest frame that is believed: the kernel's own limit for arguments and environment is 6 MiB (execve(2)).
  static let lengthLimit = 8 << 20
  /// The first byte of a packet: the frame follows, or is in the first descriptor.
  private static let inline: UInt8 = 0
  private static let inMemory: UInt8 = 1

  public struct Received: Sendable {
    public var bytes: [UInt8]
    /// Owned by the receiver, who closes them.
    public var descriptors: [Int32]
  }

  /// Sends a frame; blocks while the other side does not read, unless `flags` has MSG_DONTWAIT.
  public static func send<Body>(
    _ frame: Frame<Body>, descriptors: [Int32] = [], to socket: Int32, flags: Int32 = 0
  ) throws(SystemCallError) {
    let bytes: [UInt8]
    do { bytes = try frame.encoded() } catch { throw SystemCallError(call: "encode", number: EINVAL) }
    if bytes.count < inlineLimit {
      try transmit([inline] + bytes, descriptors, socket, flags)
      return
    }
    let memory = OwnedDescriptor(
      adopting: try SystemCallError.check("memfd_create") { linux_memfd_create("plan", UInt32(MFD_CLOEXEC)) })
    try Files.writeAll(memory.number, bytes)
    try SystemCallError.check("lseek") { lseek(memory.number, 0, SEEK_SET) }
    try transmit([inMemory], [memory.number] + descriptors, socket, flags)
  }

  private static func transmit(
    _ bytes: [UInt8], _ descriptors: [Int32], _ socket: Int32, _ flags: Int32
  ) throws(SystemCallError) {
    try SystemCallError.check("sendmsg") {
      linux_send_with_descriptors(socket, bytes, bytes.count, descriptors, Int32(descriptors.count), flags)
    }
  }

  /// Receives one frame, or nil when the other side is gone.
  ///
  /// - Parameter flags: MSG_DONTWAIT to throw EAGAIN instead of waiting.
  public static func receive(from socket: Int32, flags: Int32 = 0) throws(SystemCallError) -> Received? {
    var probe: UInt8 = 0
    let length = try SystemCallError.check("recv") {
      recv(socket, &probe, 1, Int32(MSG_PEEK) | Int32(MSG_TRUNC) | flags)
    }
    if length == 0 { return nil }
    var buffer = [UInt8](repeating: 0, count: length)
    var numbers = [Int32](repeating: -1, count: 253)
    var count: Int32 = 253
    var truncated: Int32 = 0
    let received = try SystemCallError.check("recvmsg") {
      count = 253
      return linux_receive_with_descriptors(socket, &buffer, length, &numbers, &count, &truncated, flags)
    }
    if received == 0 { return nil }
    var descriptors = Array(numbers[..<Int(count)])
    if truncated != 0 {
      for number in descriptors { close(number) }
      throw SystemCallError(call: "recvmsg", number: EMFILE)
    }
    guard buffer[0] == inMemory else { return Received(bytes: Array(buffer[1...]), descriptors: descriptors) }
    guard let first = descriptors.first else { throw SystemCallError(call: "recvmsg", number: EBADMSG) }
    descriptors.removeFirst()
    let memory = OwnedDescriptor(adopting: first)
    do {
      return Received(bytes: try Files.readAll(memory.number, limit: lengthLimit), descriptors: descriptors)
    } catch {
      for number in descriptors { close(number) }
      throw error
    }
  }
}
