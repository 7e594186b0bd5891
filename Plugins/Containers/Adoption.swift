import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  /// Takes over what a former engine left: containers that run are known again, those that ended are handled as if
  /// they ended now, what was interrupted is undone (a run) or completed (a removal), and then every plugin removes
  /// what belongs to no container.
  func adopt() async throws(EngineError) {
    let call = ownCall
    let (found, unreadable) = try await Storage.read(call)
    for record in unreadable { log.critical("\(record.line)") }
    self.unreadable.withLock { $0 = unreadable }
    var perhapsRunning: [ContainerEntry] = []
    var interrupted: [(ContainerEntry, StoredState.Phase?)] = []
    var removals: [(ContainerEntry, Bool)] = []
    for container in found {
      var record = container.stored.record
      container.state?.apply(to: &record)
      let entry = ContainerEntry(record)
      do throws(EngineError) {
        try table.insert(entry, name: record.name)
      } catch {
        let line = "the record \(Storage.containers)/\(record.id) is in conflict: \(error)"
        log.critical("\(line)")
        self.unreadable.withLock { $0.append(Storage.Unreadable(line: line, container: record.id)) }
        continue
      }
      switch container.state?.phase {
      case .running: perhapsRunning.append(entry)
      case .starting: interrupted.append((entry, .starting))
      case .stopped: break
      case .removing: removals.append((entry, container.state?.removesVolumes ?? false))
      case nil: if container.stored.isRun { interrupted.append((entry, nil)) }
      }
    }
    try await takeOver(perhapsRunning, interrupted: interrupted.map(\.0), call)
    for (entry, phase) in interrupted {
      if phase == nil {
        // Nobody was told that it runs: as for any run that fails, nothing stays.
        await complete(removalOf: entry, removesVolumes: true)
      } else {
        await undoStart(entry, call)
      }
    }
    for (entry, removesVolumes) in removals { await complete(removalOf: entry, removesVolumes: removesVolumes) }
    // The former engine ended while they waited for their restart.
    for entry in table.all where entry.record.state.status == .restarting { bringBack(entry) }
    for difference in await checkSystem(repair: true, discardsUnreadable: false, call) {
      log.info("\(difference.plugin): \(difference.kind.rawValue): \(difference.object)")
    }
  }

  /// Asks the runtime for the containers that may run. The interrupted ones are asked for too, so that the runtime
  /// knows their shims when it is told to remove them.
  private func takeOver(
    _ entries: [ContainerEntry], interrupted: [ContainerEntry], _ call: Call
  ) async throws(EngineError) {
    // What runs of a container whose record does not read is left alone too.
    let unreadable = Set(self.unreadable.withLock { $0.compactMap(\.container) })
    if entries.isEmpty && interrupted.isEmpty && unreadable.isEmpty { return }
    for entry in entries {
      let ended = Signal<ExitStatus>()
      adopting.withLock { $0[entry.id] = ended }
    }
    defer { adopting.withLock { $0 = [:] } }
    let alive = try await call.request(RuntimeAdopt(containers: (entries + interrupted).map(\.id) + unreadable))
    self.unreadable.withLock { records in
      for index in records.indices {
        records[index].isRunning = records[index].container.map { alive[$0] != nil } ?? false
      }
    }
    for entry in entries {
      entry.update { state in
        if state.record.state.status != .paused { state.record.state.status = .running }
        state.isActive = true
        state.session = Session(trace: nil)
        if let pid = alive[entry.id] { state.record.state.pid = pid }
      }
    }
    // Five seconds for all of them together: a runtime that knows tells at once, though not on a machine that is busy.
    let patience = MonotonicClock.now + 5_000_000_000
    for entry in entries {
      guard let signal = adopting.withLock({ $0[entry.id] }) else { continue }
      if alive[entry.id] != nil {
        // From now on its end is handled as it comes; it may have come in between.
        adopting.withLock { $0[entry.id] = nil }
        if let status = signal.resolved { await settle(entry, status) }
        continue
      }
      // The runtime tells how it ended after its reply; after a reboot it has nothing to tell.
      let left = patience - MonotonicClock.now
      let status = await signal.wait(.nanoseconds(max(0, left)), by: bus.timekeeper)
      await settle(entry, status ?? lost)
    }
  }

  /// A start that was interrupted: what it had acquired is given back, and the container is as it was before.
  private func undoStart(_ entry: ContainerEntry, _ call: Call) async {
    for error in await giveBack(entry.record, call) {
      log.error("the interrupted start of container \(entry.id) left something behind: \(error)")
    }
    do throws(EngineError) {
      try await Storage.write(StoredState(.stopped, entry.record), entry.id, call)
    } catch {
      log.error("the state of container \(entry.id) could not be stored: \(error)")
    }
  }
}
