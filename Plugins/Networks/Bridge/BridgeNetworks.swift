import CNetlink
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Making and removing networks.
extension BridgeDriver {
  /// Makes a network, or what is missing of one that was made before.
  func create(_ definition: NetworkDefinition) throws(EngineError) -> NetworkDefinition {
    let definition = try configured(definition)
    return try networkChanges.run { () throws(EngineError) in try makeNetwork(definition) }
  }

  /// The definition with what the configuration says about the default network and about all.
  private func configured(_ definition: NetworkDefinition) throws(EngineError) -> NetworkDefinition {
    var definition = definition
    let mtu = host.setting("mtu")
    if !["", "0"].contains(mtu), definition.options[BridgeOptions.mtu] == nil {
      definition.options[BridgeOptions.mtu] = mtu
    }
    guard definition.isDefault else { return definition }
    let (name, pool) = (host.setting("name"), host.setting("pool"))
    if !name.isEmpty { definition.options[BridgeOptions.bridgeName] = name }
    if !pool.isEmpty {
      guard let subnet = IPv4Subnet(pool) else {
        throw EngineError(.invalidArgument, "plugins.network-bridge.pool: \"\(pool)\" is not IPv4 in CIDR form")
      }
      if definition.pools.first?.subnet != subnet.description {
        definition.pools = [AddressPool(subnet: subnet.description)]
      }
    }
    if host.configuration["icc"] != nil { definition.options[BridgeOptions.connects] = host.setting("icc") }
    return definition
  }

  private func makeNetwork(_ definition: NetworkDefinition) throws(EngineError) -> NetworkDefinition {
    if definition.isDefault { try removeFormerDefaults(definition.id) }
    let entry = networkEntry(definition.id)
    let former = state.withLock { $0.networks[definition.id] }
    var survey = try attempt("the host's networks cannot be listed") { () throws(SystemCallError) in
      try routing.with { (socket) throws(SystemCallError) in
        HostSurvey(links: try socket.links(), subnets: try socket.subnets())
      }
    }
    survey.own = state.withLock { state in
      state.networks.values.filter { $0.definition.id != definition.id }.map(\.plan.subnet)
    }
    let ownBridge = entry?.bridge
    let plan = try NetworkPlan(
      definition, survey, ownBridge: ownBridge, takesDockerNames: host.instance.isDefault, engineBridge: engineBridge)
    var entries = entry.map { [$0.number] } ?? []
    if let entry, entry.bridge != plan.bridge {
      try deleteBridge(entry.bridge)
      try journal.end(entries)
      entries = []
    }
    // A bridge that the user named and that was there before stays the user's.
    let isForeign = survey.link(plan.bridge) != nil && plan.bridge != ownBridge
    if isForeign, survey.link(plan.bridge)?.kind != "bridge" {
      throw EngineError(.conflict, "the link \(plan.bridge) is there already and is not a bridge")
    }
    if entries.isEmpty, !isForeign {
      entries = try journal.begin(
        plugin: plugin, [(kind: BridgeState.networkKind, object: "\(definition.id) \(plan.bridge)")])
    }
    do {
      let index = try makeBridge(plan, exists: survey.link(plan.bridge) != nil, isForeign: isForeign)
      FaultPoint.reach("bridge.create.linked")
      try configureHost(plan)
      FaultPoint.reach("bridge.create.configured")
      let network = state.withLock { state -> BridgeNetwork in
        var allocator = AddressAllocator(subnet: plan.subnet, range: plan.range, gateway: plan.gateway)
        state.restoreAddresses(of: definition.id, in: &allocator)
        // Containers that are being connected right now have an address but no record yet.
        if let former = state.networks[definition.id], former.plan == plan { allocator = former.addresses }
        return BridgeNetwork(
          definition: plan.complete(definition), plan: plan, index: index, ownsBridge: !isForeign, entries: entries,
          addresses: allocator)
      }
      state.withLock { $0.networks[definition.id] = network }
      try detectForeignDrop()
      try writeTable()
      FaultPoint.reach("bridge.create.tabled")
      return network.definition
    } catch {
      state.withLock { $0.networks[definition.id] = former }
      if former == nil, !isForeign {
        try? deleteBridge(plan.bridge)
        try? journal.end(entries)
      }
      throw error
    }
  }

  /// There is one default network, so a bridge of another one is left from an engine that died before it recorded the
  /// network.
  private func removeFormerDefaults(_ id: ObjectID) throws(EngineError) {
    for entry in networkEntries
    where entry.network != id.text && (entry.bridge == "docker0" || entry.bridge == engineBridge) {
      try deleteBridge(entry.bridge)
      try journal.end([entry.number])
    }
  }

  /// The journal's entries about bridges of networks.
  private var networkEntries: [(number: UInt64, network: String, bridge: String)] {
    journal.entries(plugin: plugin, kind: BridgeState.networkKind).compactMap { entry in
      let parts = entry.object.split(separator: " ").map(String.init)
      return parts.count == 2 ? (entry.number, parts[0], parts[1]) : nil
    }
  }

  private func networkEntry(_ id: ObjectID) -> (number: UInt64, network: String, bridge: String)? {
    networkEntries.first { $0.network == id.text }
  }

  private func makeBridge(_ plan: NetworkPlan, exists: Bool, isForeign: Bool) throws(EngineError) -> Int32 {
    try attempt("the bridge \(plan.bridge) cannot be made") { () throws(SystemCallError) in
      try routing.with { (socket) throws(SystemCallError) in
        if !exists {
          var batch = NetlinkBatch()
          try batch.addBridge(
            plan.bridge, address: HardwareAddress(derivedFrom: plan.gateway), mtu: plan.options.mtu)
          try socket.send(&batch)
        }
        guard let index = try socket.index(of: plan.bridge) else {
          throw SystemCallError(call: "find the bridge", subject: plan.bridge, number: ENODEV)
        }
        // Without an IPv6 address of its own, the host does not answer containers on a protocol that has no rules.
        if !isForeign { try? settings.write(NetworkSettings.disableIPv6(plan.bridge), "1") }
        var batch = NetlinkBatch()
        try batch.addAddress(plan.gateway, plan.subnet, link: index, subject: plan.bridge)
        try batch.setLinkUp(index, subject: plan.bridge)
        try socket.send(&batch)
        return index
      }
    }
  }

  /// The kernel settings: localhost into the bridge (the table's loopback rule is written before any port is
  /// published), and forwarding, which is remembered when it was off.
  private func configureHost(_ plan: NetworkPlan) throws(EngineError) {
    let forwarding = try attempt("the kernel's settings cannot be read") { () throws(SystemCallError) in
      try settings.read(NetworkSettings.forwarding)
    }
    if forwarding != "1" { try switchForwardingOn() }
    let reflects = settings.bridgesCallRules
    state.withLock { $0.reflects = reflects }
  }

  func switchForwardingOn() throws(EngineError) {
    if journal.entries(plugin: plugin, kind: BridgeState.forwardingKind).isEmpty {
      try journal.begin(plugin: plugin, [(kind: BridgeState.forwardingKind, object: NetworkSettings.forwarding)])
    }
    // The table drops foreign forwarding before the kernel forwards anything.
    state.withLock { $0.dropsForeign = true }
    try writeTable()
    try attempt("forwarding cannot be switched on") { () throws(SystemCallError) in
      try settings.write(NetworkSettings.forwarding, "1")
    }
    FaultPoint.reach("bridge.create.forwarding")
  }

  /// Writes the table as the state wants it. What is published stays, and is put back where somebody flushed it.
  func writeTable(restoring ports: [PublishedPort] = []) throws(EngineError) {
    let (networks, marks, dropsForeign) = state.withLock { state in
      (state.networks.values.map(\.nft).sorted { $0.bridge < $1.bridge }, state.marks, state.dropsForeign)
    }
    if journal.entries(plugin: plugin, kind: BridgeState.tableKind).isEmpty {
      try journal.begin(plugin: plugin, [(kind: BridgeState.tableKind, object: "inet \(table.name)")])
    }
    try attempt("the rules cannot be written") { () throws(SystemCallError) in
      try netfilter.with { (socket) throws(SystemCallError) in
        var batch = NftBatch()
        table.write(networks, marks: marks, dropsForeign: dropsForeign, into: &batch)
        batch.publish(ports, table: table.name)
        try batch.commit(socket, subject: "table inet \(table.name)")
      }
      // Only now, with the rule that keeps containers from the host's loopback services in place.
      for network in networks { try settings.write(NetworkSettings.routeLocal(network.bridge), "1") }
    }
  }

  /// Removes a network that nothing is attached to; one that is not there is removed already.
  func remove(_ definition: NetworkDefinition) throws(EngineError) {
    try networkChanges.run { () throws(EngineError) in
      let users = state.withLock { state in
        state.containers.filter { $0.value.links.contains { $0.network == definition.id } }.map(\.key.short)
      }
      if !users.isEmpty {
        throw EngineError(
          .inUse, "network \(definition.name) has active endpoints: \(users.sorted().joined(separator: ", "))")
      }
      let network = state.withLock { state in
        let waiting = state.spares.values.filter { !$0.isLeaving }.map(\.link)
        state.draining += waiting.filter { $0.network == definition.id }
        state.spares = state.spares.filter { $0.value.link.network != definition.id }
        return state.networks.removeValue(forKey: definition.id)
      }
      scheduleReaper()
      try writeTable()
      FaultPoint.reach("bridge.remove.tabled")
      if let entry = networkEntry(definition.id) {
        try deleteBridge(entry.bridge)
        FaultPoint.reach("bridge.remove.unlinked")
        try journal.end([entry.number])
      } else if let network {
        try? settings.write(NetworkSettings.routeLocal(network.plan.bridge), "0")
      }
      if state.withLock({ $0.networks.isEmpty }) { try removeTable() }
    }
  }

  /// Takes everything back that the host has of this driver, when nobody uses any of it: an engine that starts makes its
  /// networks again, as they were.
  func release() {
    do throws(EngineError) {
      try networkChanges.run { () throws(EngineError) in
        let kinds = [BridgeState.networkKind, BridgeState.tableKind, BridgeState.forwardingKind, BridgeState.ruleKind]
        guard state.withLock({ $0.containers.isEmpty }),
          journal.entries(plugin: plugin).allSatisfy({ kinds.contains($0.kind) })
        else { return }
        for entry in networkEntries {
          let isThere = try attempt("the bridge \(entry.bridge) cannot be looked for") { () throws(SystemCallError) in
            try routing.with { (socket) throws(SystemCallError) in try socket.index(of: entry.bridge) } != nil
          }
          if isThere { try deleteBridge(entry.bridge) }
          try journal.end([entry.number])
        }
        let networks = state.withLock { state in
          defer { state.networks = [:] }
          return Array(state.networks.values)
        }
        for network in networks { try? settings.write(NetworkSettings.routeLocal(network.plan.bridge), "0") }
        try removeTable()
      }
    } catch {
      host.log.warning("what the bridge networks have on the host is not all removed: \(error)")
    }
  }

  /// Takes back what belongs to no single network: the table, the rule in a foreign chain, and forwarding.
  private func removeTable() throws(EngineError) {
    // First, because the table drops what is not the engine's own.
    for entry in journal.entries(plugin: plugin, kind: BridgeState.forwardingKind) {
      try attempt("forwarding cannot be switched off") { () throws(SystemCallError) in
        try settings.write(NetworkSettings.forwarding, "0")
      }
      try journal.end([entry.number])
      state.withLock { $0.dropsForeign = false }
    }
    try removeForeignRules()
    try attempt("the rules cannot be removed") { () throws(SystemCallError) in
      do throws(SystemCallError) {
        try netfilter.with { (socket) throws(SystemCallError) in
          var batch = NftBatch()
          table.delete(into: &batch)
          try batch.commit(socket, subject: "table inet \(table.name)")
        }
      } catch  where error.number == ENOENT {}
    }
    try journal.end(journal.entries(plugin: plugin, kind: BridgeState.tableKind).map(\.number))
  }

  func deleteBridge(_ name: String) throws(EngineError) {
    try attempt("the bridge \(name) cannot be removed") { () throws(SystemCallError) in
      var batch = NetlinkBatch()
      try batch.deleteLink(name)
      try routing.send(&batch)
    }
  }
}
