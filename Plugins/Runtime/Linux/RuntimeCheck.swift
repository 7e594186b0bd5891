import Contracts
import Kernel
import LinuxSystem

extension LinuxRuntimePlugin {
  /// Compares the runtime's directories and the journal with the containers that run.
  func check(_ request: PluginCheck) throws(EngineError) -> [SystemDifference] {
    let name = Self.manifest.name
    let running = Set(request.running)
    let known = Set(request.known)
    var differences: [SystemDifference] = []
    let (prepared, live) = shims.withLock { ($0.starting, $0.running) }
    for container in request.running where live[container] == nil {
      differences.append(
        SystemDifference(kind: .missing, plugin: name, object: "shim of container \(container.short)"))
    }
    var seen: Set<String> = []
    for entry in host.journal.entries(plugin: name) {
      guard let container = ObjectID(entry.container) else { continue }
      let directory = directory(container)
      seen.insert(directory.name)
      if running.contains(container) || prepared.contains(container) { continue }
      // One of this engine's own is an operation's, also where the container is not known yet. One that was taken over
      // is nobody's once its record was given up.
      if let link = live[container], !link.isAdopted || known.contains(container) { continue }
      if Files.exists(directory.path) {
        differences.append(
          SystemDifference(kind: .leftover, plugin: name, object: "runtime directory \(directory.path)"))
      }
      if request.repair { try remove(container) }
    }
    // What no entry names was made by somebody else, or the journal was lost.
    let base = try host.runtimeDirectory()
    let expected = standby.names.union((request.running + prepared + live.keys).map { directory($0).name })
    for found in (try? Files.list(base)) ?? []
    where !seen.contains(found) && !expected.contains(found) && !found.hasPrefix(DirectoryPool.prefix) {
      differences.append(SystemDifference(kind: .leftover, plugin: name, object: "runtime directory \(base)/\(found)"))
      if request.repair { removeUnknown(ContainerDirectory(base: base, name: found)) }
    }
    return differences
  }
}

extension LinuxRuntimePlugin {
  private func removeUnknown(_ directory: ContainerDirectory) {
    if let connection = try? directory.connect() {
      terminate(connection.number)
    }
    try? directory.remove()
  }
}
