import CNftables
import Glibc
import LinuxSystem

/// One nf_tables transaction, built with libnftnl: the kernel does all of it or nothing.
struct NftBatch: ~Copyable {
  /// The most elements in one message: the attribute around them counts its bytes in 16 bits.
  static let elementsPerMessage = 256

  private var buffer: UnsafeMutableRawPointer
  private var capacity = 16384
  private var length = 0
  private var sequence: UInt32 = 1
  /// Where the last message begins, which is the one that is acknowledged.
  private var last = 0

  init() {
    buffer = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
    length = header(nftnl_batch_begin(text(room: 64), sequence))
  }

  deinit { buffer.deallocate() }

  var isEmpty: Bool { sequence == 1 }

  private mutating func text(room: Int) -> UnsafeMutablePointer<CChar> {
    if capacity - length < room {
      let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity * 2 + room, alignment: 16)
      larger.copyMemory(from: buffer, byteCount: length)
      buffer.deallocate()
      buffer = larger
      capacity = capacity * 2 + room
    }
    return (buffer + length).assumingMemoryBound(to: CChar.self)
  }

  private func header(_ header: UnsafeMutablePointer<nlmsghdr>?) -> Int {
    length + Int(mnl_align(header?.pointee.nlmsg_len ?? 0))
  }

  private func mnl_align(_ length: UInt32) -> UInt32 { (length + 3) & ~3 }

  /// Adds a message of `type` (`NFT_MSG_*`); `body` builds what follows its header.
  mutating func append(
    _ type: some BinaryInteger, family: Int32 = Int32(NFPROTO_INET), flags: Int32 = 0, room: Int = 2048,
    _ body: (UnsafeMutablePointer<nlmsghdr>) -> Void
  ) {
    sequence += 1
    let start = text(room: room)
    guard let message = nftnl_nlmsg_build_hdr(start, UInt16(type), UInt16(family), UInt16(flags), sequence) else {
      return
    }
    body(message)
    last = length
    length = header(message)
  }

  /// Sends the transaction in the socket's namespace.
  ///
  /// - Throws: the first error the kernel reports; nothing was changed then.
  mutating func commit(_ socket: borrowing NetlinkSocket, subject: String) throws(SystemCallError) {
    if isEmpty { return }
    let acknowledged = (buffer + last).assumingMemoryBound(to: nlmsghdr.self)
    acknowledged.pointee.nlmsg_flags |= UInt16(NLM_F_ACK)
    let final = acknowledged.pointee.nlmsg_seq
    length = header(nftnl_batch_end(text(room: 64), sequence + 1))
    if length > 100_000 {
      // netlink(7) refuses what is larger than the socket's buffer.
      var size = Int32(length * 2)
      setsockopt(
        socket.descriptor.number, SOL_SOCKET, SO_SNDBUFFORCE, &size, socklen_t(MemoryLayout<Int32>.size))
    }
    try SystemCallError.check("send", "nftables") { send(socket.descriptor.number, buffer, length, 0) }
    var failure: Int32 = 0
    var isDone = false
    // A transaction that fails early is answered without the last message's acknowledgement, so an empty queue ends it.
    try socket.receiveAvailable(while: { !isDone }) { header in
      guard header.pointee.nlmsg_type == UInt16(NLMSG_ERROR) else { return }
      let number = -UnsafeRawPointer(header).load(fromByteOffset: MemoryLayout<nlmsghdr>.size, as: Int32.self)
      if number != 0, failure == 0 { failure = number }
      if header.pointee.nlmsg_seq == final { isDone = true }
    }
    if failure != 0 { throw SystemCallError(call: "nftables", subject: subject, number: failure) }
    if !isDone { throw SystemCallError(call: "nftables", subject: subject, number: EPROTO) }
  }
}
