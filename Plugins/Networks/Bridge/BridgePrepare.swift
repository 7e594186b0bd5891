import CNetlink
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// A link that was made before anybody wanted it: one end on the bridge, the other, still down and without an address,
/// in a network namespace that no container has yet.
struct SpareLink: Sendable {
  /// Without an address.
  var link: AttachedLink
  var interface: String
  /// The bridge's index when the link was put on it.
  var bridge: Int32
  /// It waited for too long: the reaper has it. Its name inside is taken until then.
  var isLeaving = false
}

/// Making links ahead: it takes the kernel several times as long as to configure one, and needs the lock that all of the
/// system's links share.
extension BridgeDriver {
  /// A namespace among those that live (its inode, namespaces(7)).
  private static func key(of namespace: Descriptor) throws(SystemCallError) -> UInt64 {
    var status = stat()
    try SystemCallError.check("fstat", "network namespace") { fstat(namespace.number, &status) }
    return UInt64(status.st_ino)
  }

  /// Puts a link of the network into a namespace; `attach` finds it there.
  func prepare(_ request: NetworkDriverPrepare) throws(EngineError) {
    guard let network = state.withLock({ $0.networks[request.definition.id] }) else {
      throw EngineError(.notFound, "network \(request.definition.name) not found on this host")
    }
    var link = AttachedLink(link: Self.linkName(), network: network.definition.id, address: .unspecified)
    link.entry = try journal.begin(plugin: plugin, [(kind: AttachedLink.kind, object: link.text)])[0]
    FaultPoint.reach("bridge.prepare.recorded")
    do {
      try attempt("a link cannot be made ahead") { () throws(SystemCallError) in
        let key = try Self.key(of: request.namespace)
        var batch = NetlinkBatch()
        try batch.addVeth(
          link.link, bridge: network.index, peer: request.interface, peerAddress: nil,
          namespace: request.namespace.number, mtu: network.plan.options.mtu)
        try routing.send(&batch)
        FaultPoint.reach("bridge.prepare.linked")
        let socket = try namespaces.inside(request.namespace.number) { () throws(SystemCallError) in
          try NetlinkSocket(NETLINK_ROUTE)
        }
        var inside = NetlinkBatch()
        try inside.disableLinkLocal(subject: request.interface)
        try socket.send(&inside)
        let spare = SpareLink(link: link, interface: request.interface, bridge: network.index)
        // One of a namespace that had the number before is gone with it.
        let former = state.withLock { $0.spares.updateValue(spare, forKey: key) }
        if let former { drain([former.link]) }
        expireSpares()
      }
    } catch {
      drain([link])
      throw error
    }
  }

  /// Gives the link that waits in a namespace to the plan that it fits.
  func takeSpare(for plans: inout [Plan], in namespace: Descriptor) {
    let spare = state.withLock { state -> SpareLink? in
      if state.spares.isEmpty { return nil }
      guard let key = try? Self.key(of: namespace) else { return nil }
      return state.spares.removeValue(forKey: key)
    }
    guard let spare else { return }
    let index = plans.firstIndex { plan in
      plan.network.definition.id == spare.link.network && plan.network.index == spare.bridge
        && plan.attachment.interface == spare.interface
    }
    guard let index, !spare.isLeaving else {
      // At once, because its name inside may be wanted.
      if !spare.isLeaving { drain([spare.link]) }
      return reap()
    }
    plans[index].spare = spare.link
    plans[index].link.link = spare.link.link
  }

  /// Leaves links that nobody has to the reaper.
  func drain(_ links: [AttachedLink]) {
    if links.isEmpty { return }
    state.withLock { $0.draining += links }
    scheduleReaper()
  }

  /// Sees to it that links which were made ahead are not there for ever: they go when nobody has been connected for a
  /// while.
  func expireSpares() {
    let delay = state.withLock { state -> Duration? in
      state.lastUse = MonotonicClock.now
      if state.expiryIsScheduled || state.spares.isEmpty { return nil }
      state.expiryIsScheduled = true
      return state.patience
    }
    if let delay { scheduleExpiry(after: delay) }
  }

  private func scheduleExpiry(after delay: Duration) {
    let executor = host.bus.executor
    _ = host.bus.timekeeper.schedule(after: delay) { [weak self] in
      Task(executorPreference: executor) { self?.expire() }
    }
  }

  private func expire() {
    let (links, delay) = state.withLock { state -> ([AttachedLink], Duration?) in
      let waiting = state.spares.filter { !$0.value.isLeaving }
      let isQuiet = MonotonicClock.now - state.lastUse >= Int64(state.patience / .nanoseconds(1))
      // While there are containers, a few more links are in nobody's way; the end of the last one comes back here.
      let isWanted = !state.containers.isEmpty
      state.expiryIsScheduled = !isQuiet && !isWanted && !waiting.isEmpty
      guard isQuiet, !isWanted else { return ([], state.expiryIsScheduled ? state.patience : nil) }
      for key in waiting.keys { state.spares[key]?.isLeaving = true }
      return (waiting.values.map(\.link), nil)
    }
    drain(links)
    if let delay { scheduleExpiry(after: delay) }
  }

  /// Deletes the links that were made ahead: nobody is going to want them.
  func removeSpares() {
    state.withLock { state in
      state.draining += state.spares.values.filter { !$0.isLeaving }.map(\.link)
      state.spares = [:]
    }
    reap()
  }
}
