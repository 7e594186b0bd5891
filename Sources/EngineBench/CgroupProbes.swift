import CLinux
import CgroupsPlugin
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// A container's groups: made, limited, entered and removed, in the hierarchies of each version apart.
enum CgroupProbes: ProbeGroup {
  static let name = "cgroups"

  private static func created(_ version: Int) -> FigureName {
    FigureName(name: "cgroup v\(version) create", floor: "mkdir and open in the same hierarchies")
  }
  private static func limited(_ version: Int) -> FigureName {
    FigureName(name: "cgroup v\(version) limit", floor: "open, write, close of the same files")
  }
  private static func entered(_ version: Int) -> FigureName {
    FigureName(
      name: "cgroup v\(version) attach",
      floor: version == 1 ? "write of 0 to each open tasks file" : "clone3 with CLONE_INTO_CGROUP")
  }
  private static func removed(_ version: Int) -> FigureName {
    FigureName(name: "cgroup v\(version) remove", floor: "rmdir in the same hierarchies")
  }
  private static func figures(of version: Int) -> [FigureName] {
    [created(version), limited(version), entered(version), removed(version)]
  }

  static let figures: [FigureName] = figures(of: 1) + figures(of: 2)

  static func probes(_ names: Set<String>, _ stage: Stage) async throws -> [Probe] {
    var probes: [Probe] = []
    for version in [1, 2] where figures(of: version).contains(where: { names.contains($0.name) }) {
      probes += try await stage.attempt(figures(of: version)) { [try await probe(version, stage)] }
    }
    return probes
  }

  private static func probe(_ version: Int, _ stage: Stage) async throws -> Probe {
    guard let groups = try await Groups(version, stage) else {
      throw EngineError(.unsupported, "this machine has no hierarchy of version \(version)")
    }
    let limits = groups.controlFiles
    if limits.isEmpty {
      stage.skip([limited(version)], "the hierarchy of version \(version) carries neither memory nor cpu here")
    }
    let own = figures(of: version).filter { !limits.isEmpty || $0.name != limited(version).name }
    return Probe(.cgroups, own) { side in
      side == .engine ? try await groups.engine(limits: !limits.isEmpty) : try groups.raw(limits)
    }
  }

  private struct Control {
    var path: String
    var value: String
  }

  /// The plugin with the hierarchies of one version.
  private final class Groups {
    private let version: Int
    private let bus = Bus()
    private let plugin: CgroupsPlugin
    private let worker: WorkerLink
    /// The group of raw system calls in each hierarchy in which the plugin makes one.
    private let paths: [String]
    private(set) var controlFiles: [Control] = []

    init?(_ version: Int, _ stage: Stage) async throws {
      self.version = version
      worker = stage.worker
      let host = try stage.sandbox.host(CgroupsPlugin.manifest, "cgroups-\(version)", bus: bus)
      guard let plugin = try CgroupsPlugin.only(version: version, host: host) else { return nil }
      self.plugin = plugin
      try plugin.register(Registrar(bus: bus, manifest: CgroupsPlugin.manifest))
      try await plugin.start()
      // Where the plugin makes groups is learned from one.
      let container = ObjectID.random()
      let reply = try await bus.request(ResourceCreate(container: container, limits: Self.none))
      let capabilities = try await bus.request(ResourceCapabilities())
      _ = try await bus.request(ResourceRemove(container: container))
      func raw(_ path: String) -> String { "\(path.prefix(upTo: path.lastIndex(of: "/") ?? path.endIndex))/raw" }
      paths = Set(reply.paths.values.filter { $0.contains(container.text) }).map(raw).sorted()
      guard !paths.isEmpty else { throw EngineError(.unavailable, "no group can be made") }
      for (controller, files) in version == 1 ? Self.oldFiles : Self.newFiles
      where capabilities.controllers[controller] != nil {
        guard let path = version == 1 ? reply.paths[controller] : reply.paths["unified"] else { continue }
        controlFiles += files.map { Control(path: "\(raw(path))/\($0.name)", value: $0.value) }
      }
    }

    private static let oldFiles = [
      ("cpu", [(name: "cpu.cfs_period_us", value: "100000"), (name: "cpu.cfs_quota_us", value: "100000")]),
      ("memory", [(name: "memory.limit_in_bytes", value: "67108864")]),
    ]
    private static let newFiles = [
      ("cpu", [(name: "cpu.max", value: "100000 100000")]), ("memory", [(name: "memory.max", value: "67108864")]),
    ]

    /// Without the rules for devices, which are not what is measured here.
    private static var none: ResourceLimits {
      var limits = ResourceLimits()
      limits.allowsAllDevices = true
      return limits
    }

    func engine(limits: Bool) async throws -> [Int64] {
      let container = ObjectID.random()
      var wanted = ResourceLimits()
      wanted.nanoCPUs = 1_000_000_000
      wanted.memory = 67_108_864
      var times: [Int64] = []
      var begin = MonotonicClock.now
      let reply = try await bus.request(ResourceCreate(container: container, limits: Self.none))
      times.append(MonotonicClock.now - begin)
      let made = Set(reply.paths.values.filter { $0.contains(container.text) }).sorted()
      do {
        if limits {
          begin = MonotonicClock.now
          _ = try await bus.request(ResourceUpdate(container: container, limits: wanted))
          times.append(MonotonicClock.now - begin)
        }
        times.append(try enter(.engine, made))
      } catch {
        _ = try? await bus.request(ResourceRemove(container: container))
        throw error
      }
      begin = MonotonicClock.now
      _ = try await bus.request(ResourceRemove(container: container))
      times.append(MonotonicClock.now - begin)
      return times
    }

    func raw(_ limits: [Control]) throws -> [Int64] {
      var times: [Int64] = []
      var opened: [Int32] = []
      defer {
        for number in opened where number >= 0 { close(number) }
        for path in paths { rmdir(path) }
      }
      var begin = MonotonicClock.now
      for path in paths {
        guard mkdir(path, 0o755) == 0 else { throw SystemCallError(call: "mkdir", subject: path, number: errno) }
        opened.append(
          version == 1
            ? linux_open("\(path)/tasks", O_WRONLY | O_CLOEXEC, 0)
            : linux_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0))
      }
      times.append(MonotonicClock.now - begin)
      if !limits.isEmpty {
        begin = MonotonicClock.now
        for limit in limits {
          let file = linux_open(limit.path, O_WRONLY | O_CLOEXEC, 0)
          let count = write(file, limit.value, limit.value.utf8.count)
          let failure = errno
          close(file)
          guard count > 0 else { throw SystemCallError(call: "write", subject: limit.path, number: failure) }
        }
        times.append(MonotonicClock.now - begin)
      }
      times.append(try enter(.raw, paths))
      begin = MonotonicClock.now
      for path in paths {
        guard rmdir(path) == 0 else { throw SystemCallError(call: "rmdir", subject: path, number: errno) }
      }
      times.append(MonotonicClock.now - begin)
      return times
    }

    private func enter(_ side: Side, _ paths: [String]) throws(EngineError) -> Int64 {
      try worker.run(
        version == 1
          ? .enter(side, tasks: paths.map { "\($0)/tasks" }, unified: "")
          : .enter(side, tasks: [], unified: paths.first ?? ""))
    }
  }
}
