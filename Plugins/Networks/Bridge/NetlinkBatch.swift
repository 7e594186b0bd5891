import CNetlink
import Glibc
import LinuxSystem
import Synchronization

/// Messages of one netlink family that are sent to the kernel with one call, built with libnl.
struct NetlinkBatch: ~Copyable {
  /// What a message is about, for errors.
  struct Label {
    let call: StaticString
    let subject: String
    /// Errors that are as good as success: what was to be removed is gone, what was to be made is there.
    let tolerated: [Int32]
  }

  private static let sequences = Atomic<UInt32>(1)

  private(set) var messages: [OpaquePointer] = []
  private(set) var labels: [Label] = []
  private(set) var firstSequence: UInt32 = 0

  deinit { for message in messages { nlmsg_free(message) } }

  var count: Int { messages.count }
  var isEmpty: Bool { messages.isEmpty }

  /// Adds a message that starts with the fixed structure `header`; `attributes` adds what follows.
  mutating func append<Header: BitwiseCopyable>(
    _ call: StaticString, _ type: Int, _ flags: Int32, subject: String, tolerating: [Int32] = [], _ header: Header,
    _ attributes: (borrowing NetlinkAttributes) -> Void = { _ in }
  ) throws(SystemCallError) {
    guard let message = nlmsg_alloc_simple(Int32(type), NLM_F_REQUEST | flags) else {
      throw SystemCallError(call: "\(call)", subject: subject, number: ENOMEM)
    }
    messages.append(message)
    labels.append(Label(call: call, subject: subject, tolerated: tolerating))
    var header = header
    nlmsg_append(message, &header, MemoryLayout<Header>.size, 4)
    attributes(NetlinkAttributes(message: message))
  }

  /// Numbers the messages so that their errors can be told from one another. The kernel works them off in order and
  /// reports every failure, so the acknowledgement of the last one is enough.
  mutating func number() {
    firstSequence = Self.sequences.add(UInt32(count), ordering: .relaxed).oldValue
    for (index, message) in messages.enumerated() {
      guard let header = nlmsg_hdr(message) else { continue }
      header.pointee.nlmsg_seq = firstSequence &+ UInt32(index)
      if index == count - 1 { header.pointee.nlmsg_flags |= UInt16(NLM_F_ACK) }
    }
  }
}

/// Appends attributes to one message. A message has the room of a page, which no message of ours comes near.
struct NetlinkAttributes: ~Copyable {
  let message: OpaquePointer

  func put(_ type: some BinaryInteger, _ value: UInt32) {
    var value = value
    nla_put(message, Int32(type), 4, &value)
  }

  func put(_ type: some BinaryInteger, byte: UInt8) {
    var value = byte
    nla_put(message, Int32(type), 1, &value)
  }

  func put(_ type: some BinaryInteger, bytes: [UInt8]) { nla_put(message, Int32(type), Int32(bytes.count), bytes) }

  /// A text with its final zero.
  func put(_ type: some BinaryInteger, _ text: String) { nla_put_string(message, Int32(type), text) }

  func put(_ type: some BinaryInteger, _ address: IPv4Address) { put(type, address.networkOrder) }

  /// Any fixed structure that stands between attributes (the peer's `ifinfomsg` of a veth).
  func append<Structure: BitwiseCopyable>(_ structure: Structure) {
    var structure = structure
    nlmsg_append(message, &structure, MemoryLayout<Structure>.size, 4)
  }

  func nest(_ type: some BinaryInteger, _ body: () -> Void) {
    guard let start = nla_nest_start(message, Int32(type)) else { return }
    body()
    nla_nest_end(message, start)
  }
}
