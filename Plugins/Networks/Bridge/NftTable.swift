import CNftables
import Glibc
import LinuxSystem

/// What the rules need to know of one network.
struct NftNetwork: Sendable {
  var bridge: String
  var subnet: IPv4Subnet
  var isInternal: Bool
  var masquerades: Bool
  /// Whether its containers may talk to each other.
  var connects: Bool
}

/// The instance's table. Rules depend on the networks alone and are written anew, in one transaction, when a network
/// comes or goes; a container adds only elements to the maps, so a packet's cost does not grow with the containers.
struct NftTable: Sendable {
  static let ports = "published"
  static let addressPorts = "published_on_address"
  private static let bridges = "bridges"
  /// nft's `BYTEORDER_HOST_ENDIAN`.
  private static let hostByteOrder: UInt32 = 1
  private static let internals = "internal"
  private static let connected = "connected"

  /// The bit of a packet's mark that says "this forward is ours" to a rule in somebody else's chain.
  static let markBit: UInt32 = 0x0200_0000

  /// Numbers of nft's data types, so that `nft list` can print the keys (nftables' `datatype.h`, six bits each).
  private enum DataType {
    static let address: UInt32 = 7
    static let transport: UInt32 = 12
    static let port: UInt32 = 13
    static let linkName: UInt32 = 41
  }
  private enum Chain: String, CaseIterable {
    case loopback
    case prerouting
    case output
    case forward
    case postrouting

    var hook: Int32 {
      switch self {
      case .loopback, .prerouting: 0
      case .forward: 2
      case .output: 3
      case .postrouting: 4
      }
    }
    var type: String { self == .loopback || self == .forward ? "filter" : "nat" }
    /// One before the others' filters, so that the mark is there when they look.
    var priority: Int32 {
      switch self {
      case .loopback: -300
      case .prerouting, .output: -100
      case .forward: -1
      case .postrouting: 100
      }
    }
  }

  let name: String

  /// The whole table as it shall be; what is published stays.
  ///
  /// - Parameters:
  ///   - marks: set the mark, for which a rule in a foreign chain asks or may ask.
  ///   - dropsForeign: forwarding was off before this engine, so what is not its own stays dropped.
  func write(_ networks: [NftNetwork], marks: Bool, dropsForeign: Bool, into batch: inout NftBatch) {
    let table = nftnl_table_alloc()
    defer { nftnl_table_free(table) }
    nftnl_table_set_str(table, UInt16(NFTNL_TABLE_NAME.rawValue), name)
    batch.append(NFT_MSG_NEWTABLE.rawValue, flags: NLM_F_CREATE) { nftnl_table_nlmsg_build_payload($0, table) }
    let target = (DataType.address << 6 | DataType.port, UInt32(8))
    set(Self.ports, DataType.transport << 6 | DataType.port, 8, target, into: &batch)
    set(
      Self.addressPorts, (DataType.transport << 6 | DataType.address) << 6 | DataType.port, 12, target, into: &batch)
    set(Self.bridges, DataType.linkName, 16, nil, into: &batch)
    set(Self.internals, DataType.linkName, 16, nil, into: &batch)
    set(Self.connected, DataType.linkName << 6 | DataType.linkName, 32, nil, into: &batch)
    for kind in Chain.allCases { chain(kind, into: &batch) }
    fill(Self.bridges, networks.map { NftRule.padded($0.bridge) }, into: &batch)
    fill(Self.internals, networks.filter(\.isInternal).map { NftRule.padded($0.bridge) }, into: &batch)
    fill(
      Self.connected,
      networks.filter(\.connects).map { NftRule.padded($0.bridge) + NftRule.padded($0.bridge) }, into: &batch)
    loopbackRules(into: &batch)
    for kind in [Chain.prerouting, .output] { translationRules(kind, into: &batch) }
    forwardRules(marks: marks, dropsForeign: dropsForeign, into: &batch)
    for network in networks { masqueradeRules(network, into: &batch) }
  }

  /// Removes the table with everything in it.
  func delete(into batch: inout NftBatch) {
    let table = nftnl_table_alloc()
    defer { nftnl_table_free(table) }
    nftnl_table_set_str(table, UInt16(NFTNL_TABLE_NAME.rawValue), name)
    batch.append(NFT_MSG_DELTABLE.rawValue) { nftnl_table_nlmsg_build_payload($0, table) }
  }

  private func set(
    _ name: String, _ keyType: UInt32, _ keyLength: UInt32, _ value: (type: UInt32, length: UInt32)?,
    into batch: inout NftBatch
  ) {
    let set = nftnl_set_alloc()
    defer { nftnl_set_free(set) }
    nftnl_set_set_str(set, UInt16(NFTNL_SET_TABLE.rawValue), self.name)
    nftnl_set_set_str(set, UInt16(NFTNL_SET_NAME.rawValue), name)
    nftnl_set_set_u32(set, UInt16(NFTNL_SET_ID.rawValue), UInt32(keyLength) << 8 | UInt32(name.utf8.count))
    nftnl_set_set_u32(set, UInt16(NFTNL_SET_KEY_TYPE.rawValue), keyType)
    nftnl_set_set_u32(set, UInt16(NFTNL_SET_KEY_LEN.rawValue), keyLength)
    if keyType == DataType.linkName {
      // What nft(8) keeps of a type in `userdata` (a type, a length, a value); without it, it lists such keys as "".
      var order: [UInt8] = [UInt8(NFTNL_UDATA_SET_KEYBYTEORDER.rawValue), 4]
      withUnsafeBytes(of: Self.hostByteOrder) { order += $0 }
      nftnl_set_set_data(set, UInt16(NFTNL_SET_USERDATA.rawValue), order, UInt32(order.count))
    }
    if let value {
      nftnl_set_set_u32(set, UInt16(NFTNL_SET_FLAGS.rawValue), UInt32(NFT_SET_MAP.rawValue))
      nftnl_set_set_u32(set, UInt16(NFTNL_SET_DATA_TYPE.rawValue), value.type)
      nftnl_set_set_u32(set, UInt16(NFTNL_SET_DATA_LEN.rawValue), value.length)
    }
    batch.append(NFT_MSG_NEWSET.rawValue, flags: NLM_F_CREATE) { nftnl_set_nlmsg_build_payload($0, set) }
  }

  /// Makes the chain where it is missing, and empties it.
  private func chain(_ kind: Chain, into batch: inout NftBatch) {
    let chain = nftnl_chain_alloc()
    defer { nftnl_chain_free(chain) }
    nftnl_chain_set_str(chain, UInt16(NFTNL_CHAIN_TABLE.rawValue), name)
    nftnl_chain_set_str(chain, UInt16(NFTNL_CHAIN_NAME.rawValue), kind.rawValue)
    nftnl_chain_set_str(chain, UInt16(NFTNL_CHAIN_TYPE.rawValue), kind.type)
    nftnl_chain_set_u32(chain, UInt16(NFTNL_CHAIN_HOOKNUM.rawValue), UInt32(kind.hook))
    nftnl_chain_set_s32(chain, UInt16(NFTNL_CHAIN_PRIO.rawValue), kind.priority)
    nftnl_chain_set_u32(chain, UInt16(NFTNL_CHAIN_POLICY.rawValue), UInt32(NF_ACCEPT))
    batch.append(NFT_MSG_NEWCHAIN.rawValue, flags: NLM_F_CREATE) { nftnl_chain_nlmsg_build_payload($0, chain) }
    let rules = NftRule(table: name, chain: kind.rawValue)
    let pointer = rules.rule
    batch.append(NFT_MSG_DELRULE.rawValue) { nftnl_rule_nlmsg_build_payload($0, pointer) }
    _ = rules
  }

  private func fill(_ name: String, _ keys: [[UInt8]], into batch: inout NftBatch) {
    let set = nftnl_set_alloc()
    defer { nftnl_set_free(set) }
    nftnl_set_set_str(set, UInt16(NFTNL_SET_TABLE.rawValue), self.name)
    nftnl_set_set_str(set, UInt16(NFTNL_SET_NAME.rawValue), name)
    batch.append(NFT_MSG_DELSETELEM.rawValue) { nftnl_set_nlmsg_build_payload($0, set) }
    batch.elements(NFT_MSG_NEWSETELEM.rawValue, table: self.name, set: name, keys.map { ($0, nil) })
  }

  private func rule(
    _ chain: Chain, into batch: inout NftBatch, _ body: (borrowing NftRule) -> Void
  ) {
    let rule = NftRule(table: name, chain: chain.rawValue)
    body(rule)
    batch.add(rule)
  }

  /// route_localnet lets packets for 127.0.0.0/8 in from the bridges; only the host itself may send them.
  private func loopbackRules(into batch: inout NftBatch) {
    rule(.loopback, into: &batch) { rule in
      rule.link(NFT_META_IIFNAME.rawValue, is: "lo", equal: false)
      rule.ipv4()
      rule.destination(in: IPv4Subnet(IPv4Address(127 << 24), prefixLength: 8))
      rule.verdict(.drop)
    }
  }

  private func translationRules(_ kind: Chain, into batch: inout NftBatch) {
    rule(kind, into: &batch) { rule in
      rule.ipv4()
      rule.destinationIsLocal()
      rule.meta(NFT_META_L4PROTO.rawValue)
      rule.destinationAddress(into: NftRule.register + 1)
      rule.destinationPort(into: NftRule.register + 2)
      rule.lookup(Self.addressPorts, into: NftRule.register)
      rule.translateDestination()
    }
    rule(kind, into: &batch) { rule in
      rule.ipv4()
      rule.destinationIsLocal()
      rule.meta(NFT_META_L4PROTO.rawValue)
      rule.destinationPort(into: NftRule.register + 1)
      rule.lookup(Self.ports, into: NftRule.register)
      rule.translateDestination()
    }
  }

  private func forwardRules(marks: Bool, dropsForeign: Bool, into batch: inout NftBatch) {
    let incoming = NFT_META_IIFNAME.rawValue
    let outgoing = NFT_META_OIFNAME.rawValue
    func accept(_ rule: borrowing NftRule) {
      if marks { rule.mark(Self.markBit) }
      rule.verdict(.accept)
    }
    func foreign(_ rule: borrowing NftRule) {
      rule.link(incoming, in: Self.bridges, inverted: true)
      rule.link(outgoing, in: Self.bridges, inverted: true)
    }
    if dropsForeign {
      // Other bridges belong to managers of containers or machines, which switch forwarding on for themselves.
      for kind in [NFT_META_IIFKIND.rawValue, NFT_META_OIFKIND.rawValue] {
        rule(.forward, into: &batch) { rule in
          foreign(rule)
          rule.link(kind, is: "bridge")
          rule.verdict(.accept)
        }
      }
    }
    rule(.forward, into: &batch) { rule in
      foreign(rule)
      rule.verdict(dropsForeign ? .drop : .accept)
    }
    rule(.forward, into: &batch) { rule in
      rule.connection(NFT_CT_STATE.rawValue, has: 2 | 4)  // established, related
      accept(rule)
    }
    rule(.forward, into: &batch) { rule in
      rule.meta(incoming)
      rule.meta(outgoing, into: NftRule.register + 4)
      rule.lookup(Self.connected)
      accept(rule)
    }
    for key in [incoming, outgoing] {
      rule(.forward, into: &batch) { rule in
        rule.link(key, in: Self.internals)
        rule.verdict(.drop)
      }
    }
    rule(.forward, into: &batch) { rule in
      rule.link(outgoing, in: Self.bridges)
      rule.connection(NFT_CT_STATUS.rawValue, has: UInt32(IPS_DST_NAT.rawValue))
      accept(rule)
    }
    rule(.forward, into: &batch) { rule in
      rule.link(outgoing, in: Self.bridges)
      rule.verdict(.drop)
    }
    rule(.forward, into: &batch) { rule in
      rule.link(incoming, in: Self.bridges)
      accept(rule)
    }
  }

  private func masqueradeRules(_ network: NftNetwork, into batch: inout NftBatch) {
    let outgoing = NFT_META_OIFNAME.rawValue
    // The host's own loopback address means nothing inside a container.
    rule(.postrouting, into: &batch) { rule in
      rule.link(outgoing, is: network.bridge)
      rule.ipv4()
      rule.source(in: IPv4Subnet(IPv4Address(127 << 24), prefixLength: 8))
      rule.masquerade()
    }
    // A container that reaches its own network through a published port: the answer must come back through the host.
    rule(.postrouting, into: &batch) { rule in
      rule.link(outgoing, is: network.bridge)
      rule.ipv4()
      rule.source(in: network.subnet)
      rule.connection(NFT_CT_STATUS.rawValue, has: UInt32(IPS_DST_NAT.rawValue))
      rule.masquerade()
    }
    guard network.masquerades, !network.isInternal else { return }
    rule(.postrouting, into: &batch) { rule in
      rule.link(outgoing, in: Self.bridges, inverted: true)
      rule.ipv4()
      rule.source(in: network.subnet)
      rule.masquerade()
    }
  }
}
