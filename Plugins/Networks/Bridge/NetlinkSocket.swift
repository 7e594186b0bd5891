import CLinux
import CNetlink
import Glibc
import LinuxSystem
import Synchronization

/// A netlink(7) socket. The kernel works on a request while it is sent, so the answers wait when the send returns.
struct NetlinkSocket: ~Copyable, Sendable {
  let descriptor: OwnedDescriptor

  /// - Parameter family: `NETLINK_ROUTE` or `NETLINK_NETFILTER`. The socket is in the calling thread's namespace.
  init(_ family: Int32) throws(SystemCallError) {
    descriptor = OwnedDescriptor(
      adopting: try SystemCallError.check("socket", "netlink") {
        socket(AF_NETLINK, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), family)
      })
  }

  /// Sends all messages with one call and reads what the kernel says to them.
  ///
  /// - Throws: the first failure. The kernel has tried the messages after it all the same.
  func send(_ batch: inout NetlinkBatch) throws(SystemCallError) {
    if batch.isEmpty { return }
    batch.number()
    var vectors = batch.messages.map { message -> iovec in
      let header = nlmsg_hdr(message)
      return iovec(iov_base: header, iov_len: Int(header?.pointee.nlmsg_len ?? 0))
    }
    try vectors.withUnsafeMutableBufferPointer { (vectors) throws(SystemCallError) in
      var message = msghdr()
      message.msg_iov = vectors.baseAddress
      message.msg_iovlen = vectors.count
      try SystemCallError.check("sendmsg", "netlink") { sendmsg(descriptor.number, &message, 0) }
    }
    var failure: SystemCallError?
    var isDone = false
    try receive(while: { !isDone }) { header in
      guard header.pointee.nlmsg_type == UInt16(NLMSG_ERROR) else { return }
      let index = Int(header.pointee.nlmsg_seq &- batch.firstSequence)
      guard batch.labels.indices.contains(index) else { return }
      if index == batch.count - 1 { isDone = true }
      let number = -nlmsg_data(header).load(as: Int32.self)
      let label = batch.labels[index]
      if number != 0, !label.tolerated.contains(number), failure == nil {
        failure = SystemCallError(call: "\(label.call)", subject: label.subject, number: number)
      }
    }
    if let failure { throw failure }
  }

  /// Sends one dump request and hands each message of the answer to `body`.
  func dump(
    _ batch: inout NetlinkBatch, _ body: (UnsafeMutablePointer<nlmsghdr>) -> Void
  ) throws(SystemCallError) {
    batch.number()
    guard let message = batch.messages.first, let header = nlmsg_hdr(message), let label = batch.labels.first else {
      return
    }
    try SystemCallError.check("send", "netlink") {
      Glibc.send(descriptor.number, header, Int(header.pointee.nlmsg_len), 0)
    }
    try readDump(sequence: header.pointee.nlmsg_seq, label.call, body)
  }

  /// Reads the parts of a dump up to its end. A dump that the kernel says was interrupted by a change fails with EINTR.
  func readDump(
    sequence: UInt32, _ call: StaticString, _ body: (UnsafeMutablePointer<nlmsghdr>) -> Void
  ) throws(SystemCallError) {
    var done = false
    var number: Int32 = 0
    try receive(while: { !done }) { header in
      guard header.pointee.nlmsg_seq == sequence else { return }
      switch Int32(header.pointee.nlmsg_type) {
      case NLMSG_DONE:
        done = true
      case NLMSG_ERROR:
        number = -nlmsg_data(header).load(as: Int32.self)
        done = true
      default:
        body(header)
      }
    }
    if number != 0 { throw SystemCallError(call: "\(call)", subject: "dump", number: number) }
  }

  /// Reads messages until `wanted` says that it has them all, or until none is left.
  func receiveAvailable(
    while wanted: () -> Bool, _ body: (UnsafeMutablePointer<nlmsghdr>) -> Void
  ) throws(SystemCallError) {
    do {
      try receive(while: wanted, flags: Int32(MSG_DONTWAIT), body)
    } catch  where error.number == EAGAIN {}
  }

  /// Reads messages until `wanted` says that it has them all.
  func receive(
    while wanted: () -> Bool, flags: Int32 = 0, _ body: (UnsafeMutablePointer<nlmsghdr>) -> Void
  ) throws(SystemCallError) {
    try withUnsafeTemporaryAllocation(byteCount: 32768, alignment: 16) { (buffer) throws(SystemCallError) in
      while wanted() {
        var remaining = Int32(
          try SystemCallError.check("recv", "netlink") {
            recv(descriptor.number, buffer.baseAddress, buffer.count, flags)
          })
        var header = buffer.baseAddress?.assumingMemoryBound(to: nlmsghdr.self)
        while let current = header, nlmsg_ok(current, remaining) != 0 {
          body(current)
          header = nlmsg_next(current, &remaining)
        }
      }
    }
  }
}

/// Sockets of one family in the home namespace, kept open between uses: each user has one for itself, so that nobody
/// waits for another's kernel call.
final class NetlinkPool: Sendable {
  private let family: Int32
  private let namespaces: Namespaces
  private let idle = Mutex<[Int32]>([])

  init(_ family: Int32, _ namespaces: Namespaces) {
    self.family = family
    self.namespaces = namespaces
  }

  deinit { for number in idle.withLock({ $0 }) { close(number) } }

  /// A socket whose use failed is closed, since answers may still be in it.
  func with<Value>(
    _ body: (borrowing NetlinkSocket) throws(SystemCallError) -> Value
  ) throws(SystemCallError) -> Value {
    let socket: NetlinkSocket
    if let number = idle.withLock({ $0.popLast() }) {
      socket = NetlinkSocket(adopting: number)
    } else {
      let family = family
      socket = try namespaces.atHome { () throws(SystemCallError) in try NetlinkSocket(family) }
    }
    let value = try body(socket)
    let number = socket.release()
    idle.withLock { $0.append(number) }
    return value
  }

  func send(_ batch: inout NetlinkBatch) throws(SystemCallError) {
    if batch.isEmpty { return }
    try with { (socket) throws(SystemCallError) in try socket.send(&batch) }
  }
}

extension NetlinkSocket {
  init(adopting number: Int32) { descriptor = OwnedDescriptor(adopting: number) }
  consuming func release() -> Int32 { descriptor.release() }
}
