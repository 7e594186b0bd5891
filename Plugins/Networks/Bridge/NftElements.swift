import CNftables
import Contracts
import Glibc
import LinuxSystem

extension TransportProtocol {
  /// IANA's protocol number; a release build does not find glibc's IPPROTO_UDP beside the headers of netlink.
  var number: UInt8 { self == .tcp ? 6 : 17 }
}

/// A published port as the maps hold it.
struct PublishedPort: Hashable, Sendable {
  var transport: TransportProtocol
  /// Nil for all of the host's addresses.
  var hostAddress: IPv4Address?
  var hostPort: UInt16
  var address: IPv4Address
  var port: UInt16

  private static func padded(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 255), 0, 0] }

  var map: String { hostAddress == nil ? NftTable.ports : NftTable.addressPorts }
  var key: [UInt8] {
    [transport.number, 0, 0, 0] + (hostAddress?.bytes ?? []) + Self.padded(hostPort)
  }
  var value: [UInt8] { address.bytes + Self.padded(port) }

  /// `tcp,0.0.0.0,8080,172.17.0.2,80`, as the journal keeps it.
  var text: String { "\(transport.rawValue),\(hostAddress?.description ?? ""),\(hostPort),\(address),\(port)" }

  init(
    transport: TransportProtocol, hostAddress: IPv4Address?, hostPort: UInt16, address: IPv4Address, port: UInt16
  ) {
    self.transport = transport
    self.hostAddress = hostAddress
    self.hostPort = hostPort
    self.address = address
    self.port = port
  }

  init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    guard parts.count == 5, let transport = TransportProtocol(rawValue: String(parts[0])),
      let hostPort = UInt16(parts[2]), let address = IPv4Address(parts[3]), let port = UInt16(parts[4])
    else { return nil }
    self.init(
      transport: transport, hostAddress: IPv4Address(parts[1]), hostPort: hostPort, address: address, port: port)
  }

  /// Reads an element of the map that `withAddress` says back.
  init?(key: [UInt8], value: [UInt8], withAddress: Bool) {
    guard key.count == (withAddress ? 12 : 8), value.count == 8 else { return nil }
    func number(_ bytes: ArraySlice<UInt8>) -> UInt32 { bytes.reduce(0) { $0 << 8 | UInt32($1) } }
    self.init(
      transport: key[0] == TransportProtocol.tcp.number ? .tcp : .udp,
      hostAddress: withAddress ? IPv4Address(number(key[4..<8])) : nil,
      hostPort: UInt16(number(withAddress ? key[8..<10] : key[4..<6])), address: IPv4Address(number(value[..<4])),
      port: UInt16(number(value[4..<6])))
  }
}

extension NftBatch {
  /// Adds or removes elements of a set or map; the message is `NFT_MSG_NEWSETELEM` or `NFT_MSG_DELSETELEM`.
  mutating func elements(
    _ type: some BinaryInteger, table: String, set name: String, _ elements: [(key: [UInt8], value: [UInt8]?)]
  ) {
    for start in stride(from: 0, to: elements.count, by: Self.elementsPerMessage) {
      let part = elements[start..<min(start + Self.elementsPerMessage, elements.count)]
      let set = nftnl_set_alloc()
      nftnl_set_set_str(set, UInt16(NFTNL_SET_TABLE.rawValue), table)
      nftnl_set_set_str(set, UInt16(NFTNL_SET_NAME.rawValue), name)
      for element in part {
        let item = nftnl_set_elem_alloc()
        nftnl_set_elem_set(item, UInt16(NFTNL_SET_ELEM_KEY), element.key, UInt32(element.key.count))
        if let value = element.value {
          nftnl_set_elem_set(item, UInt16(NFTNL_SET_ELEM_DATA), value, UInt32(value.count))
        }
        nftnl_set_elem_add(set, item)
      }
      append(type, flags: NLM_F_CREATE, room: 512 + part.count * 128) { nftnl_set_elems_nlmsg_build_payload($0, set) }
      nftnl_set_free(set)
    }
  }

  mutating func publish(_ ports: [PublishedPort], table: String) {
    change(NFT_MSG_NEWSETELEM.rawValue, ports, table: table, flags: true)
  }

  mutating func unpublish(_ ports: [PublishedPort], table: String) {
    change(NFT_MSG_DELSETELEM.rawValue, ports, table: table, flags: false)
  }

  private mutating func change(
    _ type: some BinaryInteger, _ ports: [PublishedPort], table: String, flags hasValue: Bool
  ) {
    for map in [NftTable.ports, NftTable.addressPorts] {
      elements(
        type, table: table, set: map,
        ports.filter { $0.map == map }.map { (key: $0.key, value: hasValue ? $0.value : nil) })
    }
  }
}

extension NetlinkSocket {
  /// Everything that is published in a table, or nil when there is no such table.
  borrowing func publishedPorts(table: String) throws(SystemCallError) -> [PublishedPort]? {
    do {
      return try elements(table: table, set: NftTable.ports)
        .compactMap { PublishedPort(key: $0.key, value: $0.value, withAddress: false) }
        + elements(table: table, set: NftTable.addressPorts)
        .compactMap { PublishedPort(key: $0.key, value: $0.value, withAddress: true) }
    } catch  where error.number == ENOENT {
      return nil
    }
  }

  private borrowing func elements(
    table: String, set name: String
  ) throws(SystemCallError) -> [(key: [UInt8], value: [UInt8])] {
    let request = nftnl_set_alloc()
    defer { nftnl_set_free(request) }
    nftnl_set_set_str(request, UInt16(NFTNL_SET_TABLE.rawValue), table)
    nftnl_set_set_str(request, UInt16(NFTNL_SET_NAME.rawValue), name)
    var found: [(key: [UInt8], value: [UInt8])] = []
    try nftDump("list the published ports", NFT_MSG_GETSETELEM.rawValue, Int32(NFPROTO_INET)) {
      nftnl_set_elems_nlmsg_build_payload($0, request)
    } _: { header in
      let set = nftnl_set_alloc()
      defer { nftnl_set_free(set) }
      guard nftnl_set_elems_nlmsg_parse(header, set) >= 0, let iterator = nftnl_set_elems_iter_create(set) else {
        return
      }
      defer { nftnl_set_elems_iter_destroy(iterator) }
      while let element = nftnl_set_elems_iter_next(iterator) {
        found.append(
          (Self.bytes(element, UInt16(NFTNL_SET_ELEM_KEY)), Self.bytes(element, UInt16(NFTNL_SET_ELEM_DATA))))
      }
    }
    return found
  }

  private static func bytes(_ element: OpaquePointer, _ attribute: UInt16) -> [UInt8] {
    var length: UInt32 = 0
    guard let data = nftnl_set_elem_get(element, attribute, &length) else { return [] }
    return Array(UnsafeRawBufferPointer(start: data, count: Int(length)))
  }

  /// One dump request to nf_tables.
  borrowing func nftDump(
    _ call: StaticString, _ type: some BinaryInteger, _ family: Int32,
    _ request: (UnsafeMutablePointer<nlmsghdr>) -> Void, _ body: (UnsafeMutablePointer<nlmsghdr>) -> Void
  ) throws(SystemCallError) {
    let sequence: UInt32 = 0x6e66
    try withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { (buffer) throws(SystemCallError) in
      guard let start = buffer.baseAddress?.assumingMemoryBound(to: CChar.self),
        let message = nftnl_nlmsg_build_hdr(start, UInt16(type), UInt16(family), UInt16(NLM_F_DUMP), sequence)
      else { return }
      request(message)
      let length = Int(message.pointee.nlmsg_len)
      try SystemCallError.check("send", "nftables") { Glibc.send(descriptor.number, start, length, 0) }
      try readDump(sequence: sequence, call, body)
    }
  }
}
