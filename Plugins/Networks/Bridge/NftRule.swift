import CNftables
import Glibc

/// One rule in the making, expression by expression, as `nft --debug=netlink` prints them.
struct NftRule: ~Copyable {
  enum Verdict: Int32 {
    case accept = 1
    case drop = 0
  }
  /// NFT_REG32_00: where a comparison takes its value from, unless said otherwise.
  static let register: UInt32 = 8

  let rule: OpaquePointer?

  init(family: Int32 = Int32(NFPROTO_INET), table: String, chain: String) {
    rule = nftnl_rule_alloc()
    nftnl_rule_set_str(rule, UInt16(NFTNL_RULE_TABLE.rawValue), table)
    nftnl_rule_set_str(rule, UInt16(NFTNL_RULE_CHAIN.rawValue), chain)
    nftnl_rule_set_u32(rule, UInt16(NFTNL_RULE_FAMILY.rawValue), UInt32(family))
  }

  deinit { nftnl_rule_free(rule) }

  private func add(_ name: String, _ body: (OpaquePointer) -> Void) {
    guard let expression = nftnl_expr_alloc(name) else { return }
    body(expression)
    nftnl_rule_add_expr(rule, expression)
  }

  private func set(_ expression: OpaquePointer, _ attribute: some BinaryInteger, _ value: some BinaryInteger) {
    nftnl_expr_set_u32(expression, UInt16(attribute), UInt32(value))
  }

  func meta(_ key: some BinaryInteger, into register: UInt32 = register) {
    add("meta") {
      set($0, NFTNL_EXPR_META_KEY, key)
      set($0, NFTNL_EXPR_META_DREG, register)
    }
  }

  func compare(_ bytes: [UInt8], equal: Bool = true) {
    add("cmp") {
      set($0, NFTNL_EXPR_CMP_SREG, Self.register)
      set($0, NFTNL_EXPR_CMP_OP, equal ? Int(NFT_CMP_EQ.rawValue) : Int(NFT_CMP_NEQ.rawValue))
      nftnl_expr_set($0, UInt16(NFTNL_EXPR_CMP_DATA), bytes, UInt32(bytes.count))
    }
  }

  /// A value in host byte order, as `meta`, `ct` and `fib` give it.
  func compare(_ value: UInt32, equal: Bool = true) { compare(Self.bytes(value), equal: equal) }

  static func bytes(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

  func mask(_ mask: [UInt8], xor: [UInt8]? = nil) {
    add("bitwise") {
      set($0, NFTNL_EXPR_BITWISE_SREG, Self.register)
      set($0, NFTNL_EXPR_BITWISE_DREG, Self.register)
      set($0, NFTNL_EXPR_BITWISE_OP, 0)
      set($0, NFTNL_EXPR_BITWISE_LEN, mask.count)
      nftnl_expr_set($0, UInt16(NFTNL_EXPR_BITWISE_MASK), mask, UInt32(mask.count))
      let xor = xor ?? [UInt8](repeating: 0, count: mask.count)
      nftnl_expr_set($0, UInt16(NFTNL_EXPR_BITWISE_XOR), xor, UInt32(xor.count))
    }
  }

  func payload(_ base: UInt32, offset: Int, length: Int, into register: UInt32 = register) {
    add("payload") {
      set($0, NFTNL_EXPR_PAYLOAD_BASE, base)
      set($0, NFTNL_EXPR_PAYLOAD_OFFSET, offset)
      set($0, NFTNL_EXPR_PAYLOAD_LEN, length)
      set($0, NFTNL_EXPR_PAYLOAD_DREG, register)
    }
  }

  /// Goes on only for IPv4, without which the offsets below would be nonsense.
  func ipv4() {
    meta(NFT_META_NFPROTO.rawValue)
    compare([UInt8(NFPROTO_IPV4)])
  }

  func sourceAddress(into register: UInt32 = register) {
    payload(UInt32(NFT_PAYLOAD_NETWORK_HEADER.rawValue), offset: 12, length: 4, into: register)
  }

  func destinationAddress(into register: UInt32 = register) {
    payload(UInt32(NFT_PAYLOAD_NETWORK_HEADER.rawValue), offset: 16, length: 4, into: register)
  }

  func destinationPort(into register: UInt32) {
    payload(UInt32(NFT_PAYLOAD_TRANSPORT_HEADER.rawValue), offset: 2, length: 2, into: register)
  }

  func source(in subnet: IPv4Subnet) {
    sourceAddress()
    within(subnet)
  }

  func destination(in subnet: IPv4Subnet) {
    destinationAddress()
    within(subnet)
  }

  private func within(_ subnet: IPv4Subnet) {
    mask(IPv4Address(subnet.mask).bytes)
    compare(subnet.base.bytes)
  }

  /// `fib daddr type local`: the destination is an address of the host.
  func destinationIsLocal() {
    add("fib") {
      set($0, NFTNL_EXPR_FIB_RESULT, Int(NFT_FIB_RESULT_ADDRTYPE.rawValue))
      set($0, NFTNL_EXPR_FIB_FLAGS, Int(NFTA_FIB_F_DADDR.rawValue))
      set($0, NFTNL_EXPR_FIB_DREG, Self.register)
    }
    compare(UInt32(2))
  }

  /// Some of `bits` are set in a value of the connection (`NFT_CT_STATE`, `NFT_CT_STATUS`).
  func connection(_ key: some BinaryInteger, has bits: UInt32) {
    add("ct") {
      set($0, NFTNL_EXPR_CT_KEY, key)
      set($0, NFTNL_EXPR_CT_DREG, Self.register)
    }
    mask(Self.bytes(bits))
    compare(UInt32(0), equal: false)
  }

  /// A link's name as it is compared: with its zeros, 16 bytes.
  static func padded(_ name: String) -> [UInt8] {
    let bytes = Array(name.utf8.prefix(15))
    return bytes + [UInt8](repeating: 0, count: 16 - bytes.count)
  }

  func link(_ key: some BinaryInteger, is name: String, equal: Bool = true) {
    meta(key)
    compare(Self.padded(name), equal: equal)
  }

  func link(_ key: some BinaryInteger, in set: String, inverted: Bool = false) {
    meta(key)
    lookup(set, inverted: inverted)
  }

  func lookup(_ name: String, inverted: Bool = false, into destination: UInt32? = nil) {
    add("lookup") {
      set($0, NFTNL_EXPR_LOOKUP_SREG, Self.register)
      if let destination { set($0, NFTNL_EXPR_LOOKUP_DREG, destination) }
      nftnl_expr_set_str($0, UInt16(NFTNL_EXPR_LOOKUP_SET), name)
      if inverted { set($0, NFTNL_EXPR_LOOKUP_FLAGS, Int(NFT_LOOKUP_F_INV.rawValue)) }
    }
  }

  /// Destination translation to the address in the first and the port in the second register.
  func translateDestination() {
    add("nat") {
      set($0, NFTNL_EXPR_NAT_TYPE, Int(NFT_NAT_DNAT.rawValue))
      set($0, NFTNL_EXPR_NAT_FAMILY, Int(NFPROTO_IPV4))
      set($0, NFTNL_EXPR_NAT_REG_ADDR_MIN, Self.register)
      set($0, NFTNL_EXPR_NAT_REG_PROTO_MIN, Self.register + 1)
    }
  }

  func masquerade() { add("masq") { _ in } }

  /// `meta mark set meta mark or bit`.
  func mark(_ bit: UInt32) {
    meta(NFT_META_MARK.rawValue)
    mask(Self.bytes(~bit), xor: Self.bytes(bit))
    add("meta") {
      set($0, NFTNL_EXPR_META_KEY, NFT_META_MARK.rawValue)
      set($0, NFTNL_EXPR_META_SREG, Self.register)
    }
  }

  func verdict(_ verdict: Verdict) {
    add("immediate") {
      set($0, NFTNL_EXPR_IMM_DREG, Int(NFT_REG_VERDICT.rawValue))
      set($0, NFTNL_EXPR_IMM_VERDICT, verdict.rawValue)
    }
  }

  /// The comment that `nft list ruleset` shows.
  func comment(_ text: String) {
    let bytes = [UInt8(0), UInt8(text.utf8.count + 1)] + Array(text.utf8) + [0]
    nftnl_rule_set_data(rule, UInt16(NFTNL_RULE_USERDATA.rawValue), bytes, UInt32(bytes.count))
  }
}

extension NftBatch {
  mutating func add(_ rule: consuming NftRule, family: Int32 = Int32(NFPROTO_INET), first: Bool = false) {
    let pointer = rule.rule
    append(NFT_MSG_NEWRULE.rawValue, family: family, flags: NLM_F_CREATE | (first ? 0 : NLM_F_APPEND)) {
      nftnl_rule_nlmsg_build_payload($0, pointer)
    }
    _ = rule
  }
}
