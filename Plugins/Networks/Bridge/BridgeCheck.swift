import CNetlink
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Comparing the journal with the host.
extension BridgeDriver {
  func check(_ request: PluginCheck) throws(EngineError) -> [SystemDifference] {
    var differences: [SystemDifference] = []
    func report(_ kind: SystemDifference.Kind, _ object: String) {
      differences.append(SystemDifference(kind: kind, plugin: plugin, object: object))
    }
    let running = Set(request.running)
    let links = try attempt("the links cannot be listed") { () throws(SystemCallError) in
      try routing.with { (socket) throws(SystemCallError) in try socket.links() }
    }
    let names = Set(links.map(\.name))
    let (snapshot, published) = (state.withLock { $0 }, try presentPorts())

    for (container, attached) in snapshot.containers.sorted(by: { $0.key < $1.key }) {
      guard running.contains(container) else {
        for link in attached.links { report(.leftover, "link \(link.link) of container \(container.short)") }
        for port in attached.ports { report(.leftover, "published port \(port.text) of container \(container.short)") }
        if request.repair { try detach(container) }
        continue
      }
      for link in attached.links where !names.contains(link.link) {
        report(.missing, "link \(link.link) of container \(container.short)")
      }
      let missing = attached.ports.filter { !(published ?? []).contains($0) }
      for port in missing { report(.missing, "published port \(port.text) of container \(container.short)") }
      if request.repair, !missing.isEmpty { try publish(missing) }
    }

    let recorded = Set(snapshot.published)
    let stray = (published ?? []).filter { !recorded.contains($0) }
    for port in stray { report(.leftover, "published port \(port.text)") }
    if request.repair, !stray.isEmpty { try unpublish(stray) }

    let draining = Set(snapshot.draining.map(\.link))
    for link in snapshot.draining { report(.draining, "link \(link.link)") }
    let attached = Set((snapshot.containers.values.flatMap(\.links) + snapshot.spares.values.map(\.link)).map(\.link))
    let bridges = Set(snapshot.networks.values.map(\.plan.bridge))
    let masters = Set(links.filter { bridges.contains($0.name) }.map { UInt32(bitPattern: $0.index) })
    for link in links where !draining.contains(link.name) && !attached.contains(link.name) {
      // On its way out, or one of those that this driver makes, on a bridge of ours.
      guard link.group == drainGroup || masters.contains(link.master) && Self.isOurs(link) else { continue }
      // The last of its owner may have come and gone since the links were listed.
      guard try isPresent(link) else { continue }
      report(.leftover, "link \(link.name)")
      if request.repair { try deleteBridge(link.name) }
    }
    try checkNetworks(snapshot, names, repair: request.repair, report)
    if !snapshot.networks.isEmpty {
      if published == nil { report(.missing, "table inet \(table.name)") }
      try checkForwarding(repair: request.repair, report)
      if request.repair {
        // Rules cost nothing to write again, and somebody may have changed them, or a firewall may be new.
        try detectForeignDrop()
        try writeTable(restoring: published == nil ? state.withLock { $0.published } : [])
      }
    }
    return differences
  }

  /// A veth with a name as `BridgeAttach` gives them.
  private static func isOurs(_ link: Link) -> Bool {
    link.kind == "veth" && link.name.utf8.count == 15 && link.name.hasPrefix("veth")
      && link.name.utf8.dropFirst(4).allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
  }

  private func isPresent(_ link: Link) throws(EngineError) -> Bool {
    let isKnown = state.withLock { state in
      state.draining.contains { $0.link == link.name } || state.spares.values.contains { $0.link.link == link.name }
        || state.containers.values.contains { $0.links.contains { $0.link == link.name } }
    }
    if isKnown { return false }
    return try attempt("the link \(link.name) cannot be found") { () throws(SystemCallError) in
      try routing.with { (socket) throws(SystemCallError) in try socket.index(of: link.name) == link.index }
    }
  }

  private func checkForwarding(
    repair: Bool, _ report: (SystemDifference.Kind, String) -> Void
  ) throws(EngineError) {
    let isOn = try attempt("the kernel's settings cannot be read") { () throws(SystemCallError) in
      try settings.read(NetworkSettings.forwarding) == "1"
    }
    if isOn { return }
    report(.missing, "forwarding (net.ipv4.ip_forward)")
    if repair { try switchForwardingOn() }
  }

  private func checkNetworks(
    _ snapshot: BridgeState, _ names: Set<String>, repair: Bool, _ report: (SystemDifference.Kind, String) -> Void
  ) throws(EngineError) {
    for network in snapshot.networks.values where !names.contains(network.plan.bridge) {
      report(.missing, "bridge \(network.plan.bridge) of network \(network.definition.name)")
      if repair { _ = try create(network.definition) }
    }
    for entry in journal.entries(plugin: plugin, kind: BridgeState.networkKind) {
      let parts = entry.object.split(separator: " ")
      guard parts.count == 2, let id = ObjectID(String(parts[0])), snapshot.networks[id] == nil else { continue }
      if names.contains(String(parts[1])) { report(.leftover, "bridge \(parts[1])") }
      guard repair else { continue }
      try deleteBridge(String(parts[1]))
      try journal.end([entry.number])
    }
  }

  private func presentPorts() throws(EngineError) -> [PublishedPort]? {
    try attempt("the published ports cannot be listed") { () throws(SystemCallError) in
      try netfilter.with { (socket) throws(SystemCallError) in try socket.publishedPorts(table: table.name) }
    }
  }
}
