import CNetlink
import Glibc
import LinuxSystem

/// The rtnetlink(7) messages about addresses and routes of IPv4.
extension NetlinkBatch {
  /// An address with the broadcast address of its subnet; one that is there already is as good.
  mutating func addAddress(
    _ address: IPv4Address, _ subnet: IPv4Subnet, link: Int32, subject: String
  ) throws(SystemCallError) {
    var header = ifaddrmsg()
    header.ifa_family = UInt8(AF_INET)
    header.ifa_prefixlen = UInt8(subnet.prefixLength)
    header.ifa_scope = UInt8(RT_SCOPE_UNIVERSE.rawValue)
    header.ifa_index = UInt32(bitPattern: link)
    try append(
      "add the address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, subject: "\(address) of \(subject)",
      tolerating: [EEXIST], header
    ) {
      $0.put(IFA_LOCAL, address)
      $0.put(IFA_ADDRESS, address)
      if subnet.prefixLength < 31 { $0.put(IFA_BROADCAST, subnet.last) }
    }
  }

  mutating func addDefaultRoute(gateway: IPv4Address, link: Int32) throws(SystemCallError) {
    var header = rtmsg()
    header.rtm_family = UInt8(AF_INET)
    header.rtm_table = UInt8(RT_TABLE_MAIN.rawValue)
    header.rtm_protocol = UInt8(RTPROT_BOOT)
    header.rtm_scope = UInt8(RT_SCOPE_UNIVERSE.rawValue)
    header.rtm_type = UInt8(RTN_UNICAST)
    try append(
      "add the default route", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, subject: "via \(gateway)", header
    ) {
      $0.put(RTA_GATEWAY.rawValue, gateway)
      $0.put(RTA_OIF.rawValue, UInt32(bitPattern: link))
    }
  }
}

/// A subnet that the host uses: by an address of a link, or by a route.
struct HostSubnet: Sendable, Equatable {
  var subnet: IPv4Subnet
  /// The link's index, 0 where there is none.
  var link: Int32
}

extension NetlinkSocket {
  /// The subnets of the host's addresses and unicast routes, the default route left out.
  borrowing func subnets() throws(SystemCallError) -> [HostSubnet] {
    var subnets: [HostSubnet] = []
    var addresses = NetlinkBatch()
    var addressHeader = ifaddrmsg()
    addressHeader.ifa_family = UInt8(AF_INET)
    try addresses.append("list the addresses", RTM_GETADDR, NLM_F_DUMP, subject: "", addressHeader)
    try dump(&addresses) { header in
      let information = nlmsg_data(header).load(as: ifaddrmsg.self)
      let size = Int32(MemoryLayout<ifaddrmsg>.size)
      guard let attribute = nlmsg_find_attr(header, size, Int32(IFA_ADDRESS)) else { return }
      let address = IPv4Address(UInt32(bigEndian: nla_get_u32(attribute)))
      subnets.append(
        HostSubnet(
          subnet: IPv4Subnet(address, prefixLength: Int(information.ifa_prefixlen)),
          link: Int32(bitPattern: information.ifa_index)))
    }
    var routes = NetlinkBatch()
    var routeHeader = rtmsg()
    routeHeader.rtm_family = UInt8(AF_INET)
    try routes.append("list the routes", RTM_GETROUTE, NLM_F_DUMP, subject: "", routeHeader)
    try dump(&routes) { header in
      let information = nlmsg_data(header).load(as: rtmsg.self)
      let size = Int32(MemoryLayout<rtmsg>.size)
      guard Int(information.rtm_type) == RTN_UNICAST, information.rtm_dst_len > 0,
        let destination = nlmsg_find_attr(header, size, Int32(RTA_DST.rawValue))
      else { return }
      let link = nlmsg_find_attr(header, size, Int32(RTA_OIF.rawValue)).map { Int32(bitPattern: nla_get_u32($0)) }
      let address = IPv4Address(UInt32(bigEndian: nla_get_u32(destination)))
      subnets.append(
        HostSubnet(subnet: IPv4Subnet(address, prefixLength: Int(information.rtm_dst_len)), link: link ?? 0))
    }
    return subnets
  }
}
