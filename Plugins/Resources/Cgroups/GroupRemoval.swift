import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Ending what is left in a container's groups and removing them. Nothing here waits: a group that is still in use
/// after its processes were killed drains, and a reaper in the background removes it.
extension ContainerGroups {
  func remove(_ container: ObjectID) throws(EngineError) {
    guard let group = state.withLock({ $0.groups[container] }) else { return }
    if try removeEverywhere(group) { return try finish(container, group) }
    kill(group.name)
    FaultPoint.reach("cgroups.remove.killed")
    if try removeEverywhere(group) { return try finish(container, group) }
    state.withLock { state in
      state.groups[container] = nil
      state.draining[group.name] = group.entry
    }
    startReaper()
  }

  private func finish(_ container: ObjectID, _ group: Group) throws(EngineError) {
    FaultPoint.reach("cgroups.remove.removed")
    state.withLock { $0.groups[container] = nil }
    try host.journal.end([group.entry])
  }

  /// - Returns: false when a group is still in use in some hierarchy.
  func removeEverywhere(_ group: Group) throws(EngineError) -> Bool {
    var isGone = true
    for index in group.hierarchies ?? Array(hierarchies.indices) {
      let hierarchy = hierarchies[index]
      guard let parent = hierarchy.existingDirectory() else { continue }
      if try !remove(hierarchy, parent.number, group.name) { isGone = false }
      FaultPoint.reach("cgroups.remove.hierarchy")
      // As long as it is in use in the unified hierarchy, which comes first, it is in use in the others.
      if !isGone && hierarchy.mount.version == .v2 { return false }
    }
    return isGone
  }

  /// Removes a group with the groups that the container made in it.
  func remove(_ hierarchy: CgroupHierarchy, _ parent: Int32, _ path: String) throws(EngineError) -> Bool {
    do throws(SystemCallError) {
      if try hierarchy.files.removeDirectory(at: parent, path) { return true }
      let nested = try hierarchy.files.groups(at: parent, path)
      if nested.isEmpty { return false }
      for name in nested where try !removeNested(hierarchy, parent, "\(path)/\(name)") { return false }
      return try hierarchy.files.removeDirectory(at: parent, path)
    } catch  where error.number == ENOENT {
      return true
    } catch {
      throw EngineError(.internalFailure, "the cgroup \(hierarchy.path)/\(path) cannot be removed: \(error)")
    }
  }

  private func removeNested(
    _ hierarchy: CgroupHierarchy, _ parent: Int32, _ path: String
  ) throws(SystemCallError) -> Bool {
    if try hierarchy.files.removeDirectory(at: parent, path) { return true }
    for name in try hierarchy.files.groups(at: parent, path) {
      if try !removeNested(hierarchy, parent, "\(path)/\(name)") { return false }
    }
    return try hierarchy.files.removeDirectory(at: parent, path)
  }

  /// Kills every process in a group: at once through `cgroup.kill` (cgroup-v2), and one by one what is only in a v1
  /// hierarchy, frozen meanwhile where there is a freezer, so that it cannot fork ahead of the signals.
  func kill(_ name: String) {
    for hierarchy in hierarchies {
      guard let parent = hierarchy.existingDirectory() else { continue }
      if hierarchy.mount.version == .v2 {
        try? hierarchy.files.write(at: parent.number, "\(name)/cgroup.kill", "1")
        continue
      }
      let freezes = layout.unified == nil && hierarchy.carries("freezer")
      if freezes { try? hierarchy.files.write(at: parent.number, "\(name)/freezer.state", "FROZEN") }
      signal(hierarchy, parent.number, name)
      if hierarchy.carries("freezer") {
        try? hierarchy.files.write(at: parent.number, "\(name)/freezer.state", "THAWED")
      }
    }
  }

  /// Signals through pidfds that were opened before the list was read again: a number that another process got in
  /// between is not on the second list.
  private func signal(_ hierarchy: CgroupHierarchy, _ parent: Int32, _ name: String) {
    let descriptors = numbers(hierarchy, parent, name, "cgroup.procs").compactMap { process -> (Int32, Descriptor)? in
      let number = pidfd_open(process, 0)
      return number < 0 ? nil : (process, Descriptor(adopting: number))
    }
    if descriptors.isEmpty { return }
    let still = Set(numbers(hierarchy, parent, name, "cgroup.procs"))
    for (process, descriptor) in descriptors where still.contains(process) {
      pidfd_send_signal(descriptor.number, SIGKILL, nil, 0)
    }
  }

  // MARK: Draining

  /// Removes what drains, in the background: soon at first, then every second for what does not end (a process in an
  /// uninterruptible sleep).
  func startReaper() {
    let starts = state.withLock { state -> Bool in
      if state.reaperRuns || state.draining.isEmpty { return false }
      state.reaperRuns = true
      return true
    }
    if !starts { return }
    Task(executorPreference: host.bus.executor) {
      var pause = Duration.milliseconds(1)
      while true {
        await self.host.bus.timekeeper.sleep(pause)
        self.reap()
        pause = min(pause * 2, .seconds(1))
        let isDone = self.state.withLock { state -> Bool in
          if state.draining.isEmpty { state.reaperRuns = false }
          return state.draining.isEmpty
        }
        if isDone { return }
      }
    }
  }

  private func reap() {
    for (name, entry) in state.withLock({ $0.draining }) {
      let group = Group(name: name, entry: entry, isOwned: false, hierarchies: nil)
      kill(name)
      guard (try? removeEverywhere(group)) == true else { continue }
      // Unrecorded ones that the check found have no entry.
      if entry != 0 { try? host.journal.end([entry]) }
      state.withLock { $0.draining[name] = nil }
    }
  }

  /// Removes the engine's own groups when no container is left; called when the engine ends.
  func close() {
    guard state.withLock({ $0.groups.isEmpty && $0.draining.isEmpty }) else { return }
    let entries = host.journal.entries(plugin: host.manifest.name, kind: Self.parentKind)
    for hierarchy in hierarchies where (try? hierarchy.close()) == true {
      try? host.journal.end(entries.filter { $0.object == hierarchy.path }.map(\.number))
    }
  }
}
