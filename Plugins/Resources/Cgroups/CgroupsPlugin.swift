import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Limits, counts and ends what runs in containers, through cgroups: v1, v2 or both side by side (cgroups(7)).
public final class CgroupsPlugin: Plugin {
  public static let manifest = PluginManifest(name: "resources-cgroups", role: "resource")

  private let groups: ContainerGroups

  public convenience init(host: PluginHost) throws(EngineError) {
    do throws(SystemCallError) {
      let layout = CgroupLayout(
        mountinfo: try Files.readText("/proc/self/mountinfo"),
        subsystems: (try? Files.readText("/proc/cgroups")) ?? "",
        unifiedControllers: { (try? Files.readText("\($0)/cgroup.controllers")) ?? "" })
      self.init(host: host, layout: layout, machine: MachineResources.ofThisMachine())
    } catch {
      throw EngineError(.unavailable, "the cgroups of this machine cannot be found: \(error)")
    }
  }

  /// With a layout of the caller's, for tests of hierarchies that this machine lacks.
  init(host: PluginHost, layout: CgroupLayout, machine: MachineResources, files: ControlFiles = ControlFiles()) {
    groups = ContainerGroups(host: host, layout: layout, machine: machine, files: files)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    let groups = groups
    try registrar.answer(ResourceCreate.self) { (request, call) async throws(EngineError) in
      let reply = try groups.create(request.container, request.limits)
      await call.lease.hold("cgroup \(request.container.short)") { try? groups.remove(request.container) }
      return reply
    }
    try registrar.answer(ResourceRemove.self) { (request, _) async throws(EngineError) in
      try groups.remove(request.container)
      return Done()
    }
    try registrar.answer(ResourceUpdate.self) { (request, _) async throws(EngineError) in
      try groups.update(request.container, request.limits)
      return Done()
    }
    try registrar.answer(ResourceFreeze.self) { (request, _) async throws(EngineError) in
      try groups.freeze(request.container, request.isFrozen)
      return Done()
    }
    try registrar.answer(ResourceRead.self) { (request, _) async throws(EngineError) in
      try groups.usage(request.container)
    }
    try registrar.answer(ResourceProcesses.self) { (request, _) async throws(EngineError) in
      try groups.processes(request.container)
    }
    try registrar.answer(ResourceCapabilities.self) { (_, _) async throws(EngineError) in
      ResourceCapabilities.Reply(version: groups.layout.version, controllers: groups.layout.controllers)
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, _) async throws(EngineError) in
      try groups.check(request)
    }
  }

  public func start() async throws(EngineError) {
    try groups.open()
    groups.startReaper()
  }

  public func stop() async { groups.close() }
}

extension MachineResources {
  static func ofThisMachine() -> MachineResources {
    let cpus = ((try? Files.readText("/sys/devices/system/cpu/online")) ?? "0").trimmed
    let nodes = ((try? Files.readText("/sys/devices/system/node/online")) ?? "0").trimmed
    let pages = sysconf(Int32(_SC_PHYS_PAGES))
    return MachineResources(
      cpus: max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))), onlineCPUs: cpus, onlineMemoryNodes: nodes,
      memory: UInt64(max(0, pages)) * UInt64(max(0, sysconf(Int32(_SC_PAGESIZE)))))
  }
}
