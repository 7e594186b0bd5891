import Contracts
import Kernel
import LinuxSystem

/// Comparing the journal with the cgroup file systems and the containers that run.
extension ContainerGroups {
  func check(_ request: PluginCheck) throws(EngineError) -> [SystemDifference] {
    var differences: [SystemDifference] = []
    let running = Set(request.running)
    let present = presentGroups()
    let (groups, draining) = state.withLock { ($0.groups, $0.draining) }
    func report(_ kind: SystemDifference.Kind, _ name: String, in hierarchies: [CgroupHierarchy]) {
      for hierarchy in hierarchies {
        differences.append(
          SystemDifference(kind: kind, plugin: host.manifest.name, object: "cgroup \(hierarchy.path)/\(name)"))
      }
    }
    for (container, group) in groups.sorted(by: { $0.key < $1.key }) {
      let found = present[group.name] ?? []
      if running.contains(container) {
        report(.missing, group.name, in: expected(of: group).filter { wanted in !found.contains { $0 === wanted } })
        continue
      }
      // What an operation of this process made belongs to that operation until it removes it.
      if group.isOwned { continue }
      report(.leftover, group.name, in: found)
      if request.repair { try remove(container) }
    }
    for name in draining.keys.sorted() { report(.draining, name, in: present[name] ?? []) }
    let recorded = Set(groups.values.map(\.name)).union(draining.keys)
    for (name, found) in present.sorted(by: { $0.key < $1.key }) where !recorded.contains(name) {
      // It may have been made, begun to drain or been removed since: one that is still there and still nobody's is left.
      let isKnown = state.withLock { state in
        state.draining[name] != nil || state.groups.values.contains { $0.name == name }
      }
      let left = found.filter { Files.isDirectory("\($0.path)/\(name)") }
      if isKnown || left.isEmpty { continue }
      report(.leftover, name, in: left)
      if request.repair { drainUnrecorded(name) }
    }
    if request.repair { startReaper() }
    return differences
  }

  private func drainUnrecorded(_ name: String) {
    let group = Group(name: name, entry: 0, isOwned: false, hierarchies: nil)
    kill(name)
    if (try? removeEverywhere(group)) != true { state.withLock { $0.draining[name] = 0 } }
  }

  /// Where a container's group must be; of one that a former engine made, where every container has one.
  private func expected(of group: Group) -> [CgroupHierarchy] {
    if let indices = group.hierarchies { return indices.map { hierarchies[$0] } }
    return hierarchies.filter(isAlways)
  }

  /// The name of every group beneath the engine's own ones, with the hierarchies that have it.
  private func presentGroups() -> [String: [CgroupHierarchy]] {
    var result: [String: [CgroupHierarchy]] = [:]
    for hierarchy in hierarchies {
      guard let parent = hierarchy.existingDirectory() else { continue }
      for name in (try? hierarchy.files.groups(at: parent.number, ".")) ?? [] {
        result[name, default: []].append(hierarchy)
      }
    }
    return result
  }
}
