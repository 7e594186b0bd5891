import Contracts
import Kernel
import LinuxSystem

extension CgroupsPlugin {
  /// With the hierarchies of one version alone, for who measures them apart (`engine bench`).
  ///
  /// - Parameter version: 1 or 2.
  /// - Returns: nil where this machine has none of them.
  package static func only(version: Int, host: PluginHost) throws(EngineError) -> CgroupsPlugin? {
    var layout: CgroupLayout
    do {
      layout = CgroupLayout(
        mountinfo: try Files.readText("/proc/self/mountinfo"),
        subsystems: (try? Files.readText("/proc/cgroups")) ?? "",
        unifiedControllers: { (try? Files.readText("\($0)/cgroup.controllers")) ?? "" })
    } catch {
      throw EngineError(.unavailable, "the cgroups of this machine cannot be found: \(error)")
    }
    layout.mounts.removeAll { $0.version != (version == 1 ? .v1 : .v2) }
    if layout.mounts.isEmpty { return nil }
    return CgroupsPlugin(host: host, layout: layout, machine: MachineResources.ofThisMachine())
  }
}
