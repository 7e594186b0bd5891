import CLinux
import CNetlink
import Glibc
import LinuxSystem

/// The rtnetlink(7) messages about links.
extension NetlinkBatch {
  private static func information(index: Int32 = 0, up: Bool? = nil) -> ifinfomsg {
    var header = ifinfomsg()
    header.ifi_index = index
    if let up {
      header.ifi_change = UInt32(IFF_UP)
      header.ifi_flags = up ? UInt32(IFF_UP) : 0
    }
    return header
  }

  /// The queues of a veth, each way: the kernel would make one for each processor there could be, and two objects in sysfs
  /// for each of them. With one alone, a stream between two containers had 3 % less on two processors.
  private static let queues = UInt32(min(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))), 4))

  private static func putQueues(_ attributes: borrowing NetlinkAttributes) {
    attributes.put(IFLA_NUM_TX_QUEUES, queues)
    attributes.put(IFLA_NUM_RX_QUEUES, queues)
  }

  /// A bridge, up. EEXIST when there is a link of that name.
  mutating func addBridge(_ name: String, address: HardwareAddress, mtu: UInt32?) throws(SystemCallError) {
    try append(
      "create the bridge", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, subject: name, Self.information(up: true)
    ) { attributes in
      attributes.put(IFLA_IFNAME, name)
      attributes.put(IFLA_ADDRESS, bytes: address.bytes)
      if let mtu { attributes.put(IFLA_MTU, mtu) }
      attributes.nest(IFLA_LINKINFO) { attributes.put(IFLA_INFO_KIND, "bridge") }
    }
  }

  /// A veth pair: one end up and on the bridge here, the other, still down, inside `namespace`. The end here has no IPv6
  /// link-local address, which nobody would use, and so none of the traffic and of the kernel's work that goes with one.
  ///
  /// - Parameter peerAddress: nil for one of the kernel's choice.
  mutating func addVeth(
    _ name: String, bridge: Int32, peer: String, peerAddress: HardwareAddress?, namespace: Int32, mtu: UInt32?
  ) throws(SystemCallError) {
    try append(
      "create the link", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, subject: name, Self.information()
    ) { attributes in
      attributes.put(IFLA_IFNAME, name)
      Self.putQueues(attributes)
      attributes.put(IFLA_MASTER, UInt32(bitPattern: bridge))
      if let mtu { attributes.put(IFLA_MTU, mtu) }
      attributes.nest(IFLA_LINKINFO) {
        attributes.put(IFLA_INFO_KIND, "veth")
        attributes.nest(IFLA_INFO_DATA) {
          attributes.nest(VETH_INFO_PEER) {
            attributes.append(Self.information())
            attributes.put(IFLA_IFNAME, peer)
            Self.putQueues(attributes)
            if let peerAddress { attributes.put(IFLA_ADDRESS, bytes: peerAddress.bytes) }
            if let mtu { attributes.put(IFLA_MTU, mtu) }
            attributes.put(IFLA_NET_NS_FD, UInt32(bitPattern: namespace))
          }
        }
      }
    }
    try disableLinkLocal(subject: name)
    try append("set the link up", RTM_NEWLINK, 0, subject: name, Self.information(up: true)) {
      $0.put(IFLA_IFNAME, name)
    }
  }

  /// Puts a link on a bridge; nothing where it is on it already. EINVAL when there is no such bridge.
  mutating func setMaster(_ name: String, bridge: Int32) throws(SystemCallError) {
    try append("put the link on the bridge", RTM_NEWLINK, 0, subject: name, Self.information()) { attributes in
      attributes.put(IFLA_IFNAME, name)
      attributes.put(IFLA_MASTER, UInt32(bitPattern: bridge))
    }
  }

  /// Gives a link that is down its MAC address.
  mutating func setAddress(
    _ index: Int32, _ address: HardwareAddress, subject: String
  ) throws(SystemCallError) {
    try append("set the MAC address", RTM_NEWLINK, 0, subject: subject, Self.information(index: index)) {
      $0.put(IFLA_ADDRESS, bytes: address.bytes)
    }
  }

  /// What a port of a bridge lets through: frames back to where they came from, and frames to its like.
  mutating func setBridgePort(_ name: String, hairpin: Bool, isolated: Bool) throws(SystemCallError) {
    try append("configure the bridge port", RTM_NEWLINK, 0, subject: name, Self.information()) { attributes in
      attributes.put(IFLA_IFNAME, name)
      attributes.nest(IFLA_LINKINFO) {
        attributes.put(IFLA_INFO_SLAVE_KIND, "bridge")
        attributes.nest(IFLA_INFO_SLAVE_DATA) {
          attributes.put(IFLA_BRPORT_MODE, byte: hairpin ? 1 : 0)
          attributes.put(IFLA_BRPORT_ISOLATED, byte: isolated ? 1 : 0)
        }
      }
    }
  }

  mutating func setLinkUp(_ index: Int32, subject: String) throws(SystemCallError) {
    try append("set the link up", RTM_NEWLINK, 0, subject: subject, Self.information(index: index, up: true))
  }

  /// Keeps the kernel from giving a link an IPv6 link-local address, and from the traffic that goes with one.
  mutating func disableLinkLocal(subject name: String) throws(SystemCallError) {
    try append(
      "leave out IPv6", RTM_NEWLINK, 0, subject: name, tolerating: [EAFNOSUPPORT], Self.information()
    ) { attributes in
      attributes.put(IFLA_IFNAME, name)
      attributes.nest(IFLA_AF_SPEC) {
        attributes.nest(AF_INET6) {
          attributes.put(IFLA_INET6_ADDR_GEN_MODE, byte: UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue))
        }
      }
    }
  }

  /// Has the bridge take nothing more from a link, and puts it into the group that the reaper deletes.
  ///
  /// The port is locked and what the bridge has learned of it forgotten, so that nothing from there is let in (`locked` in
  /// bridge(8)). To set the link down, or its port's state, would do as well, but for the first the kernel looks through all
  /// tracked connections, and for both it goes over all ports of the bridge.
  mutating func cutOff(_ name: String, group: UInt32) throws(SystemCallError) {
    try append(
      "cut the link off", RTM_NEWLINK, 0, subject: name, tolerating: [ENODEV, EOPNOTSUPP], Self.information()
    ) { attributes in
      attributes.put(IFLA_IFNAME, name)
      attributes.put(IFLA_GROUP, group)
      attributes.nest(IFLA_LINKINFO) {
        attributes.put(IFLA_INFO_SLAVE_KIND, "bridge")
        attributes.nest(IFLA_INFO_SLAVE_DATA) {
          attributes.put(IFLA_BRPORT_LOCKED, byte: 1)
          attributes.put(IFLA_BRPORT_FLUSH, bytes: [])
        }
      }
    }
  }

  mutating func deleteLink(_ name: String) throws(SystemCallError) {
    try append("delete the link", RTM_DELLINK, 0, subject: name, tolerating: [ENODEV], Self.information()) {
      $0.put(IFLA_IFNAME, name)
    }
  }

  /// Deletes every link of a group at once: one wait for the kernel's readers instead of one a link.
  mutating func deleteLinks(group: UInt32) throws(SystemCallError) {
    try append("delete the links", RTM_DELLINK, 0, subject: "of a group", tolerating: [ENODEV], Self.information()) {
      $0.put(IFLA_GROUP, group)
    }
  }
}

/// A link as the kernel lists it.
struct Link: Sendable, Equatable {
  var index: Int32
  var name: String
  var kind = ""
  var group: UInt32 = 0
  /// The index of the bridge it is on, or 0.
  var master: UInt32 = 0
  var isUp: Bool
}

extension NetlinkSocket {
  borrowing func links() throws(SystemCallError) -> [Link] {
    var batch = NetlinkBatch()
    try batch.append("list the links", RTM_GETLINK, NLM_F_DUMP, subject: "", ifinfomsg()) {
      $0.put(IFLA_EXT_MASK, UInt32(RTEXT_FILTER_SKIP_STATS))
    }
    var links: [Link] = []
    try dump(&batch) { header in
      let size = Int32(MemoryLayout<ifinfomsg>.size)
      let information = nlmsg_data(header).load(as: ifinfomsg.self)
      var link = Link(
        index: information.ifi_index, name: "", isUp: information.ifi_flags & UInt32(IFF_UP) != 0)
      if let name = nlmsg_find_attr(header, size, Int32(IFLA_IFNAME)) {
        link.name = String(cString: nla_get_string(name))
      }
      if let group = nlmsg_find_attr(header, size, Int32(IFLA_GROUP)) { link.group = nla_get_u32(group) }
      if let master = nlmsg_find_attr(header, size, Int32(IFLA_MASTER)) { link.master = nla_get_u32(master) }
      if let nested = nlmsg_find_attr(header, size, Int32(IFLA_LINKINFO)),
        let kind = nla_find(
          nla_data(nested)?.assumingMemoryBound(to: nlattr.self), nla_len(nested), Int32(IFLA_INFO_KIND))
      {
        link.kind = String(cString: nla_get_string(kind))
      }
      links.append(link)
    }
    return links
  }

  /// The index of a link in the socket's namespace (SIOCGIFINDEX, netdevice(7)), or nil when there is none.
  borrowing func index(of name: String) throws(SystemCallError) -> Int32? {
    var request = ifreq()
    withUnsafeMutableBytes(of: &request.ifr_ifrn) { $0.copyBytes(from: Array(name.utf8.prefix(15))) }
    do {
      try SystemCallError.check("ioctl(SIOCGIFINDEX)", name) {
        withUnsafeMutablePointer(to: &request) { linux_ioctl_pointer(descriptor.number, UInt(SIOCGIFINDEX), $0) }
      }
    } catch  where error.number == ENODEV {
      return nil
    }
    return request.ifr_ifru.ifru_ivalue
  }
}
