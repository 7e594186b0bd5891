import CLinux
import CNetlink
import Glibc

/// The few messages of rtnetlink(7) that the raw floor needs, written out.
package enum Netlink {
  private static let bridgeName = "flbr"

  struct Message {
    private(set) var bytes: [UInt8] = []

    init(_ type: UInt16, _ flags: Int32, isAcknowledged: Bool = true) {
      append(UInt32(0))
      append(type)
      append(UInt16(flags | NLM_F_REQUEST | (isAcknowledged ? NLM_F_ACK : 0)))
      append(UInt32(1))
      append(UInt32(0))
    }

    mutating func append<Value>(_ value: Value) { withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) } }

    mutating func link(index: Int32 = 0, up: Bool) {
      append(
        ifinfomsg(
          ifi_family: 0, __ifi_pad: 0, ifi_type: 0, ifi_index: index, ifi_flags: up ? UInt32(IFF_UP) : 0,
          ifi_change: UInt32(IFF_UP)))
    }

    mutating func attribute(_ type: Int, _ value: [UInt8]) {
      append(UInt16(value.count + 4))
      append(UInt16(type))
      bytes += value
      while bytes.count % 4 != 0 { bytes.append(0) }
    }

    mutating func attribute(_ type: Int, _ value: UInt32) { attribute(type, withUnsafeBytes(of: value, Array.init)) }
    mutating func attribute(_ type: Int, _ value: String) { attribute(type, Array(value.utf8) + [0]) }

    mutating func nest(_ type: Int, _ body: (inout Message) -> Void) {
      let start = bytes.count
      append(UInt16(0))
      append(UInt16(type))
      body(&self)
      patch(UInt16(bytes.count - start), at: start)
    }

    mutating func finish() { patch(UInt32(bytes.count), at: 0) }

    private mutating func patch<Value>(_ value: Value, at offset: Int) {
      bytes.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: offset, as: Value.self) }
    }
  }

  /// A socket in the network namespace of the calling thread; negative for a failure.
  package static func openSocket() -> Int32 {
    socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
  }

  /// Sends the messages at once, through an open socket or one of their own, and reads an acknowledgement for each.
  ///
  /// - Returns: whether all succeeded.
  private static func send(_ messages: [Message], through opened: Int32 = -1) -> Bool {
    let number = opened >= 0 ? opened : openSocket()
    guard number >= 0 else { return false }
    defer { if number != opened { close(number) } }
    var bytes: [UInt8] = []
    for var message in messages {
      message.finish()
      bytes += message.bytes
    }
    guard Glibc.send(number, bytes, bytes.count, 0) == bytes.count else { return false }
    var buffer = [UInt8](repeating: 0, count: 8192)
    var answers = 0
    var isGood = true
    while answers < messages.count {
      let count = recv(number, &buffer, buffer.count, 0)
      if count <= 0 { return false }
      var offset = 0
      while offset + 20 <= count {
        let (length, error) = buffer.withUnsafeBytes {
          (
            $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self),
            $0.loadUnaligned(fromByteOffset: offset + 16, as: Int32.self)
          )
        }
        if error != 0 { isGood = false }
        answers += 1
        offset += (Int(length) + 3) & ~3
        if length == 0 { return false }
      }
    }
    return isGood
  }

  /// - Returns: the index of a new bridge with the address 10.99.0.1/24, up; nil when it cannot be made.
  static func makeBridge() -> Int32? {
    var bridge = Message(UInt16(RTM_NEWLINK), NLM_F_CREATE | NLM_F_EXCL)
    bridge.link(up: true)
    bridge.attribute(Int(IFLA_IFNAME), bridgeName)
    bridge.nest(Int(IFLA_LINKINFO)) { $0.attribute(Int(IFLA_INFO_KIND), "bridge") }
    guard send([bridge]) else { return nil }
    let index = Int32(if_nametoindex(bridgeName))
    return send([address(index, 1)]) ? index : nil
  }

  /// Whose network namespace a link goes to.
  package enum Owner {
    case process(pid_t)
    /// An open one.
    case namespace(Int32)
  }

  /// As many queues each way as the engine's links have.
  private static let queues = UInt32(min(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))), 4))

  /// A veth pair: `name` on the bridge and up, `peer` in the owner's network namespace.
  package static func addVeth(
    _ name: String = "fl0", to bridge: Int32, peer peerName: String = "eth0", of owner: Owner,
    through socket: Int32 = -1
  ) -> Bool {
    var veth = Message(UInt16(RTM_NEWLINK), NLM_F_CREATE | NLM_F_EXCL)
    veth.link(up: true)
    veth.attribute(Int(IFLA_IFNAME), name)
    veth.attribute(Int(IFLA_NUM_TX_QUEUES), Self.queues)
    veth.attribute(Int(IFLA_NUM_RX_QUEUES), Self.queues)
    veth.attribute(Int(IFLA_MASTER), UInt32(bridge))
    veth.nest(Int(IFLA_LINKINFO)) { information in
      information.attribute(Int(IFLA_INFO_KIND), "veth")
      information.nest(Int(IFLA_INFO_DATA)) { data in
        data.nest(1) { peer in  // VETH_INFO_PEER
          peer.append(ifinfomsg())
          peer.attribute(Int(IFLA_IFNAME), peerName)
          peer.attribute(Int(IFLA_NUM_TX_QUEUES), Self.queues)
          peer.attribute(Int(IFLA_NUM_RX_QUEUES), Self.queues)
          switch owner {
          case .process(let process): peer.attribute(Int(IFLA_NET_NS_PID), UInt32(process))
          case .namespace(let number): peer.attribute(Int(IFLA_NET_NS_FD), UInt32(number))
          }
        }
      }
    }
    return send([veth], through: socket)
  }

  /// In the container: lo and eth0 up, 10.99.0.2/24, and the way out.
  static func configureContainer() -> Bool { configure(["lo", "eth0"]) }

  /// In a namespace where lo is up: eth0 up, without a link-local address, 10.99.0.2/24, and the way out.
  package static func configureLink() -> Bool { configure(["eth0"], hasLinkLocal: false) }

  private static func configure(_ links: [String], hasLinkLocal: Bool = true) -> Bool {
    let index = Int32(if_nametoindex("eth0"))
    var messages: [Message] = []
    if !hasLinkLocal {
      var plain = Message(UInt16(RTM_NEWLINK), 0)
      plain.append(ifinfomsg(ifi_family: 0, __ifi_pad: 0, ifi_type: 0, ifi_index: index, ifi_flags: 0, ifi_change: 0))
      plain.nest(Int(IFLA_AF_SPEC)) { families in
        families.nest(Int(AF_INET6)) { $0.attribute(8, [1]) }  // IFLA_INET6_ADDR_GEN_MODE: IN6_ADDR_GEN_MODE_NONE
      }
      messages.append(plain)
    }
    for link in links.map({ $0 == "lo" ? 1 : index }) {
      var up = Message(UInt16(RTM_NEWLINK), 0)
      up.link(index: link, up: true)
      messages.append(up)
    }
    messages.append(address(index, 2))
    var route = Message(UInt16(RTM_NEWROUTE), NLM_F_CREATE)
    route.append(
      rtmsg(
        rtm_family: UInt8(AF_INET), rtm_dst_len: 0, rtm_src_len: 0, rtm_tos: 0,
        rtm_table: UInt8(RT_TABLE_MAIN.rawValue),
        rtm_protocol: UInt8(RTPROT_STATIC), rtm_scope: UInt8(RT_SCOPE_UNIVERSE.rawValue),
        rtm_type: UInt8(RTN_UNICAST), rtm_flags: 0))
    route.attribute(Int(RTA_GATEWAY.rawValue), [10, 99, 0, 1])
    messages.append(route)
    return send(messages)
  }

  static func deleteLink(_ name: String) {
    var message = Message(UInt16(RTM_DELLINK), 0)
    message.link(up: false)
    message.attribute(Int(IFLA_IFNAME), name)
    _ = send([message])
  }

  private static func address(_ index: Int32, _ last: UInt8) -> Message {
    var message = Message(UInt16(RTM_NEWADDR), NLM_F_CREATE | NLM_F_EXCL)
    message.append(
      ifaddrmsg(
        ifa_family: UInt8(AF_INET), ifa_prefixlen: 24, ifa_flags: 0, ifa_scope: 0, ifa_index: UInt32(index)))
    message.attribute(Int(IFA_LOCAL), [10, 99, 0, last])
    message.attribute(Int(IFA_ADDRESS), [10, 99, 0, last])
    return message
  }
}
