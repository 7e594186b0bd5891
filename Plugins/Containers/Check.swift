import Contracts
import Glibc
import Kernel

extension Lifecycle {
  /// Every container that has a record or is being made, and those that may have something on the host.
  private var identities: (known: [ObjectID], running: [ObjectID]) {
    var known: [ObjectID] = []
    var running: [ObjectID] = []
    for entry in table.all {
      known.append(entry.id)
      let state = entry.snapshot
      if state.isActive || state.record.state.status.hasProcesses { running.append(entry.id) }
    }
    for record in unreadable.withLock({ $0 }) {
      guard let container = record.container, table[container] == nil else { continue }
      known.append(container)
      if record.isRunning { running.append(container) }
    }
    return (known.sorted(), running.sorted())
  }

  /// - Parameter discardsUnreadable: the user wants it: a record that does not read goes, and what is on the system for
  ///   it then belongs to no container.
  ///
  /// Asks every plugin that answers `plugin.check`, those that hold others' things in use first: processes before
  /// cgroups before networks, mounts and files.
  func checkSystem(repair: Bool, discardsUnreadable: Bool, _ call: Call) async -> [SystemDifference] {
    var differences = await checkSelf(repair: repair)
    if discardsUnreadable { await discardUnreadable(call) }
    let (known, running) = identities
    let plugins = (bus.answered[PluginCheck.name] ?? []).filter { !$0.isEmpty && $0 != name }
    for plugin in plugins.sorted(by: { (Self.rank($0), $0) < (Self.rank($1), $1) }) {
      do throws(EngineError) {
        differences += try await call.request(
          PluginCheck(known: known, running: running, repair: repair), driver: plugin)
      } catch {
        differences.append(SystemDifference(kind: .missing, plugin: plugin, object: "its check failed: \(error)"))
      }
    }
    return differences
  }

  /// The order in which plugins are repaired: the reverse of that in which `run` asks them.
  private static func rank(_ plugin: String) -> Int {
    let order = ["runtime", "cgroup", "resource", "network", "volume", "snapshot", "overlay", "log", "image", "record"]
    return order.firstIndex { plugin.contains($0) } ?? order.count
  }

  /// Records that do not read, containers that are said to run and do not, and removals that did not finish.
  func checkSelf(repair: Bool) async -> [SystemDifference] {
    var differences = unreadable.withLock { $0 }.map {
      SystemDifference(kind: .missing, plugin: name, object: $0.line)
    }
    for entry in table.all.sorted(by: { $0.id < $1.id }) {
      let record = entry.record
      switch record.state.status {
      case .running where !Self.isAlive(record.state.pid), .paused where !Self.isAlive(record.state.pid):
        // Its end may just be on the way.
        guard await entry.snapshot.session?.settled.wait(.seconds(1), by: bus.timekeeper) == nil else { continue }
        differences.append(
          SystemDifference(kind: .missing, plugin: name, object: "the process of container \(record.name)"))
        if repair { await settle(entry, lost) }
      case .dead:
        differences.append(
          SystemDifference(kind: .leftover, plugin: name, object: "container \(record.name): \(record.state.error)"))
        if repair { await complete(removalOf: entry, removesVolumes: record.configuration.removesItself) }
      default: break
      }
    }
    return differences
  }

  /// Drops the records that do not read; a state alone is written anew. Anonymous volumes keep their data.
  private func discardUnreadable(_ call: Call) async {
    for record in unreadable.withLock({ $0 }) {
      guard let key = record.key else { continue }
      do throws(EngineError) {
        if let container = record.container, let entry = table[container] {
          let phase: StoredState.Phase = entry.isRunning ? .running : .stopped
          try await Storage.write(StoredState(phase, entry.record), container, call)
        } else {
          if let container = record.container { _ = try await call.request(VolumeKeep(container: container)) }
          try await Storage.discard(key, call)
        }
        unreadable.withLock { $0.removeAll { $0.key == key } }
      } catch {
        log.error("\(record.line), and it cannot be dropped: \(error)")
      }
    }
  }

  /// How a container ended of which the runtime knows nothing.
  var lost: ExitStatus {
    ExitStatus(code: 255, finished: .now, reason: "the container's process was gone when the engine looked for it")
  }

  /// Removes what an earlier removal left; a failure is logged and stays visible.
  func complete(removalOf entry: ContainerEntry, removesVolumes: Bool) async {
    do throws(EngineError) {
      try await entry.lock.withLock { () async throws(EngineError) in
        guard table[entry.id] != nil else { return }
        try await destroy(entry, removesVolumes: removesVolumes, ownCall)
      }
    } catch {
      log.error("the removal of container \(entry.id) could not be completed: \(error)")
    }
  }

  /// Whether the process exists and is no zombie (proc_pid_stat(5)).
  private static func isAlive(_ pid: Int32) -> Bool {
    guard pid > 0, Glibc.kill(pid, 0) == 0 || errno == EPERM else { return false }
    guard let status = ProcessState.letter(of: pid) else { return false }
    return status != "Z" && status != "X"
  }
}
