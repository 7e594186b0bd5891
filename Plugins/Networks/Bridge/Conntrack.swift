import CNetlink
import CNftables
import Contracts
import Glibc
import LinuxSystem

extension NetlinkSocket {
  /// Deletes the tracked UDP connections to the host ports of `ports`, whether or not they were translated
  /// (`nfnetlink_conntrack.h`).
  borrowing func deleteConnections(_ ports: [PublishedPort]) throws(SystemCallError) {
    let byPort = Dictionary(grouping: ports, by: \.hostPort)
    var found: [[UInt8]] = []
    let sequence: UInt32 = 0x6374
    let type = Int32(NFNL_SUBSYS_CTNETLINK) << 8
    let get = type | Int32(IPCTNL_MSG_CT_GET.rawValue)
    try conntrackRequest(get, NLM_F_DUMP, sequence, tuple: nil)
    try readDump(sequence: sequence, "list the connections") { header in
      guard let tuple = nlmsg_find_attr(header, 4, Int32(CTA_TUPLE_ORIG.rawValue)),
        let ip = Self.nested(tuple, CTA_TUPLE_IP.rawValue),
        let transport = Self.nested(tuple, CTA_TUPLE_PROTO.rawValue),
        let number = Self.nested(transport, CTA_PROTO_NUM.rawValue), nla_get_u8(number) == TransportProtocol.udp.number,
        let destination = Self.nested(ip, CTA_IP_V4_DST.rawValue),
        let port = Self.nested(transport, CTA_PROTO_DST_PORT.rawValue),
        let published = byPort[UInt16(bigEndian: nla_get_u16(port))]
      else { return }
      let address = IPv4Address(UInt32(bigEndian: nla_get_u32(destination)))
      if published.contains(where: { $0.hostAddress == nil || $0.hostAddress == address }),
        let data = nla_data(tuple)
      {
        found.append(Array(UnsafeRawBufferPointer(start: data, count: Int(nla_len(tuple)))))
      }
    }
    for tuple in found {
      try conntrackRequest(type | Int32(IPCTNL_MSG_CT_DELETE.rawValue), NLM_F_ACK, sequence + 1, tuple: tuple)
      var isAnswered = false
      var number: Int32 = 0
      try receive(while: { !isAnswered }) { header in
        guard header.pointee.nlmsg_seq == sequence + 1, header.pointee.nlmsg_type == UInt16(NLMSG_ERROR) else { return }
        number = -nlmsg_data(header).load(as: Int32.self)
        isAnswered = true
      }
      if number != 0, number != ENOENT {
        throw SystemCallError(call: "delete a connection", subject: "udp", number: number)
      }
    }
  }

  private static func nested(
    _ attribute: UnsafeMutablePointer<nlattr>, _ type: UInt32
  ) -> UnsafeMutablePointer<nlattr>? {
    nla_find(nla_data(attribute)?.assumingMemoryBound(to: nlattr.self), nla_len(attribute), Int32(type))
  }

  private borrowing func conntrackRequest(
    _ type: Int32, _ flags: Int32, _ sequence: UInt32, tuple: [UInt8]?
  ) throws(SystemCallError) {
    guard let message = nlmsg_alloc_simple(type, NLM_F_REQUEST | flags) else {
      throw SystemCallError(call: "conntrack", number: ENOMEM)
    }
    defer { nlmsg_free(message) }
    var family = nfgenmsg()
    family.nfgen_family = UInt8(AF_INET)
    nlmsg_append(message, &family, MemoryLayout<nfgenmsg>.size, 4)
    if let tuple { nla_put(message, Int32(CTA_TUPLE_ORIG.rawValue) | Int32(NLA_F_NESTED), Int32(tuple.count), tuple) }
    guard let header = nlmsg_hdr(message) else { return }
    header.pointee.nlmsg_seq = sequence
    try SystemCallError.check("send", "conntrack") {
      Glibc.send(descriptor.number, header, Int(header.pointee.nlmsg_len), 0)
    }
  }
}
