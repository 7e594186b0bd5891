import CNetlink
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Disconnecting a container.
extension BridgeDriver {
  /// Takes a container off; one that is not attached is off already.
  func detach(_ container: ObjectID) throws(EngineError) {
    guard let attached = state.withLock({ $0.containers[container] }) else { return }
    try takeOff(container, attached)
  }

  /// Unpublishes, cuts the links off and hands them to the reaper, which keeps their addresses until they are gone.
  func takeOff(_ container: ObjectID, _ attached: AttachedContainer) throws(EngineError) {
    if !attached.ports.isEmpty {
      try unpublish(attached.ports)
      FaultPoint.reach("bridge.detach.unpublished")
      try journal.end(attached.portsEntries)
    }
    try attempt("the container cannot be disconnected") { () throws(SystemCallError) in
      var batch = NetlinkBatch()
      for link in attached.links { try batch.cutOff(link.link, group: drainGroup) }
      try routing.send(&batch)
    }
    FaultPoint.reach("bridge.detach.down")
    state.withLock { state in
      state.containers[container]?.links.removeAll { attached.links.contains($0) }
      let ports = Set(attached.ports)
      state.containers[container]?.ports.removeAll { ports.contains($0) }
      state.containers[container]?.portsEntries.removeAll { attached.portsEntries.contains($0) }
      if state.containers[container]?.links.isEmpty == true { state.containers[container] = nil }
      state.draining += attached.links
    }
    scheduleReaper()
    expireSpares()
  }
}

/// Deleting a veth takes the kernel 6 to 40 ms, with the lock that every other change to links needs. So links wait a
/// little and go together: one wait for the kernel's readers, however many they are.
extension BridgeDriver {
  /// How long links gather before they are deleted.
  private static let gathering = Duration.milliseconds(100)

  func scheduleReaper() {
    let starts = state.withLock { state -> Bool in
      if state.draining.isEmpty || state.reaperIsScheduled { return false }
      state.reaperIsScheduled = true
      return true
    }
    guard starts else { return }
    let executor = host.bus.executor
    _ = host.bus.timekeeper.schedule(after: Self.gathering) { [weak self] in
      Task(executorPreference: executor) { self?.reap() }
    }
  }

  /// Deletes the links that drain now, and frees their addresses.
  func reap() {
    let links = state.withLock { $0.draining }
    do {
      try deleteLinks(links)
    } catch {
      host.log.error("links that drain cannot be deleted: \(error)")
    }
    state.withLock { $0.reaperIsScheduled = false }
    scheduleReaper()
  }

  private func deleteLinks(_ links: [AttachedLink]) throws(EngineError) {
    if links.isEmpty { return }
    try attempt("links cannot be deleted") { () throws(SystemCallError) in
      var batch = NetlinkBatch()
      try batch.deleteLinks(group: drainGroup)
      // Most are gone with the group or with the container's namespace; one that never got into the group goes here.
      for link in links { try batch.deleteLink(link.link) }
      try routing.send(&batch)
    }
    FaultPoint.reach("bridge.reap.deleted")
    try forget(links)
  }

  /// Takes note that links are gone. Somebody else may have deleted some of them at the same time, and their addresses may
  /// be others' by now: each is given back once.
  func forget(_ links: [AttachedLink]) throws(EngineError) {
    try journal.end(links.map(\.entry))
    state.withLock { state in
      let gone = Set(links.map(\.link))
      let ours = state.draining.filter { gone.contains($0.link) }
      state.draining.removeAll { gone.contains($0.link) }
      state.spares = state.spares.filter { !gone.contains($0.value.link.link) }
      for link in ours { state.networks[link.network]?.addresses.release(link.address) }
    }
  }
}
