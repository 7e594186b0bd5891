import CNftables
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Somebody else's firewall that drops what is forwarded: an accept of ours does not help against its drop, so where it
/// provides a place for others' rules (Docker's chain DOCKER-USER) one rule goes there.
extension BridgeDriver {
  private static let place = (table: "filter", chain: "DOCKER-USER")
  private var tag: String { "accept what \(table.name) forwards" }

  /// Looks for foreign chains that drop by policy; adds the rule where there is a place for it and warns where not.
  func detectForeignDrop() throws(EngineError) {
    let (droppers, hasPlace) = try attempt("the host's firewall cannot be read") { () throws(SystemCallError) in
      try netfilter.with { (socket) throws(SystemCallError) in
        try socket.foreignForwardChains(except: table.name, place: Self.place)
      }
    }
    if hasPlace {
      try addForeignRule()
    } else {
      try journal.end(journal.entries(plugin: plugin, kind: BridgeState.ruleKind).map(\.number))
    }
    // The mark is there for whoever follows the advice below, also where no rule of ours asks for it.
    state.withLock { $0.marks = hasPlace || !droppers.isEmpty }
    for chain in droppers where !(hasPlace && chain.hasPrefix("ip filter ")) {
      host.log.warning(
        "the firewall's chain \"\(chain)\" drops what is forwarded: containers are cut off from outside until \"\(Self.remedy(chain))\" was run"
      )
    }
  }

  /// The command that lets a chain accept what this engine forwards.
  ///
  /// - Parameter chain: family, table and chain.
  static func remedy(_ chain: String) -> String {
    let bit = String(NftTable.markBit, radix: 16)
    return chain == "ip filter FORWARD"
      ? "iptables -I FORWARD -m mark --mark 0x\(bit)/0x\(bit) -j ACCEPT"
      : "nft insert rule \(chain) meta mark and 0x\(bit) == 0x\(bit) accept"
  }

  private func addForeignRule() throws(EngineError) {
    let present = try attempt("Docker's chain cannot be read") { () throws(SystemCallError) in
      try netfilter.with { (socket) throws(SystemCallError) in
        try socket.ruleHandles(family: Int32(NFPROTO_IPV4), Self.place.table, Self.place.chain, comment: tag)
      }
    }
    if journal.entries(plugin: plugin, kind: BridgeState.ruleKind).isEmpty {
      try journal.begin(
        plugin: plugin,
        [(kind: BridgeState.ruleKind, object: "ip \(Self.place.table) \(Self.place.chain) \(table.name)")])
    }
    if !present.isEmpty { return }
    try attempt("Docker's chain cannot be written") { () throws(SystemCallError) in
      try netfilter.with { (socket) throws(SystemCallError) in
        var batch = NftBatch()
        let rule = NftRule(family: Int32(NFPROTO_IPV4), table: Self.place.table, chain: Self.place.chain)
        rule.meta(NFT_META_MARK.rawValue)
        rule.mask(NftRule.bytes(NftTable.markBit))
        rule.compare(NftTable.markBit)
        rule.verdict(.accept)
        rule.comment(tag)
        batch.add(rule, family: Int32(NFPROTO_IPV4), first: true)
        try batch.commit(socket, subject: "\(Self.place.table) \(Self.place.chain)")
      }
    }
    FaultPoint.reach("bridge.create.foreign")
  }

  /// Takes the rule out again.
  func removeForeignRules() throws(EngineError) {
    let entries = journal.entries(plugin: plugin, kind: BridgeState.ruleKind)
    if entries.isEmpty { return }
    try attempt("the rule in Docker's chain cannot be removed") { () throws(SystemCallError) in
      try netfilter.with { (socket) throws(SystemCallError) in
        let handles = try socket.ruleHandles(
          family: Int32(NFPROTO_IPV4), Self.place.table, Self.place.chain, comment: tag)
        var batch = NftBatch()
        for handle in handles {
          let rule = NftRule(family: Int32(NFPROTO_IPV4), table: Self.place.table, chain: Self.place.chain)
          nftnl_rule_set_u64(rule.rule, UInt16(NFTNL_RULE_HANDLE.rawValue), handle)
          let pointer = rule.rule
          batch.append(NFT_MSG_DELRULE.rawValue, family: Int32(NFPROTO_IPV4)) {
            nftnl_rule_nlmsg_build_payload($0, pointer)
          }
          _ = rule
        }
        try batch.commit(socket, subject: "\(Self.place.table) \(Self.place.chain)")
      }
    }
    try journal.end(entries.map(\.number))
    state.withLock { $0.marks = false }
  }
}

extension NetlinkSocket {
  /// Chains of others at the forward hook of IPv4 whose policy is drop, as `ip filter FORWARD`, and whether there is
  /// the chain that others may add to.
  borrowing func foreignForwardChains(
    except table: String, place: (table: String, chain: String)
  ) throws(SystemCallError) -> (droppers: [String], hasPlace: Bool) {
    var droppers: [String] = []
    var hasPlace = false
    try nftDump("list the chains", NFT_MSG_GETCHAIN.rawValue, Int32(NFPROTO_UNSPEC)) { _ in
    } _: { header in
      let chain = nftnl_chain_alloc()
      defer { nftnl_chain_free(chain) }
      guard nftnl_chain_nlmsg_parse(header, chain) >= 0,
        let tableText = nftnl_chain_get_str(chain, UInt16(NFTNL_CHAIN_TABLE.rawValue)),
        let chainText = nftnl_chain_get_str(chain, UInt16(NFTNL_CHAIN_NAME.rawValue))
      else { return }
      let owner = String(cString: tableText)
      let name = String(cString: chainText)
      let family = Int32(nftnl_chain_get_u32(chain, UInt16(NFTNL_CHAIN_FAMILY.rawValue)))
      if family == Int32(NFPROTO_IPV4), owner == place.table, name == place.chain { hasPlace = true }
      guard family == Int32(NFPROTO_IPV4) || family == Int32(NFPROTO_INET), owner != table,
        nftnl_chain_is_set(chain, UInt16(NFTNL_CHAIN_HOOKNUM.rawValue)),
        nftnl_chain_get_u32(chain, UInt16(NFTNL_CHAIN_HOOKNUM.rawValue)) == 2,
        nftnl_chain_is_set(chain, UInt16(NFTNL_CHAIN_POLICY.rawValue)),
        nftnl_chain_get_u32(chain, UInt16(NFTNL_CHAIN_POLICY.rawValue)) == 0
      else { return }
      droppers.append("\(family == Int32(NFPROTO_INET) ? "inet" : "ip") \(owner) \(name)")
    }
    return (droppers, hasPlace)
  }

  /// The handles of the rules with a comment, so that only what carries our tag is touched.
  borrowing func ruleHandles(
    family: Int32, _ table: String, _ chain: String, comment: String
  ) throws(SystemCallError) -> [UInt64] {
    let request = NftRule(family: family, table: table, chain: chain)
    let pointer = request.rule
    var handles: [UInt64] = []
    do {
      try nftDump("list the rules", NFT_MSG_GETRULE.rawValue, family) {
        nftnl_rule_nlmsg_build_payload($0, pointer)
      } _: { header in
        let rule = nftnl_rule_alloc()
        defer { nftnl_rule_free(rule) }
        var length: UInt32 = 0
        guard nftnl_rule_nlmsg_parse(header, rule) >= 0,
          let name = nftnl_rule_get_str(rule, UInt16(NFTNL_RULE_CHAIN.rawValue)), String(cString: name) == chain,
          let data = nftnl_rule_get_data(rule, UInt16(NFTNL_RULE_USERDATA.rawValue), &length), length > 3
        else { return }
        let bytes = UnsafeRawBufferPointer(start: data, count: Int(length))
        if bytes.dropFirst(2).dropLast().elementsEqual(comment.utf8) {
          handles.append(nftnl_rule_get_u64(rule, UInt16(NFTNL_RULE_HANDLE.rawValue)))
        }
      }
    } catch  where error.number == ENOENT {}
    _ = request
    return handles
  }
}
