import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// The groups of every container: makes them, limits them and hands out the ways in.
///
/// A container has a group only in those hierarchies where it needs one, because each costs a mkdir and a rmdir on the
/// path of `run` (30 to 70 µs together). It always has one for memory (what it uses, and whether it was killed for want
/// of it), for cpu (so that containers share the CPUs fairly, however many threads each has) and in the unified
/// hierarchy, which kills and freezes it and counts its time and its threads. Others are made when a limit asks for
/// them, or where there is no unified hierarchy to do that.
final class ContainerGroups: Sendable {
  struct Group: Sendable {
    /// The directory's name in each hierarchy: the container's ID, with a number behind it while a former group of the
    /// same container still drains.
    var name: String
    /// The journal's number.
    var entry: UInt64
    /// Made by this process, so that an operation of it (or a container's record) owns it.
    var isOwned: Bool
    /// Where in `hierarchies` it is; nil when a former engine made it.
    var hierarchies: [Int]?
  }

  struct State {
    var groups: [ObjectID: Group] = [:]
    /// Name to journal's number, while something in it has yet to end.
    var draining: [String: UInt64] = [:]
    var reaperRuns = false
  }

  let host: PluginHost
  let layout: CgroupLayout
  /// The unified hierarchy first, where there is one: removal kills through it.
  let hierarchies: [CgroupHierarchy]
  let versions: [String: CgroupMount.Version]
  let machine: MachineResources
  let state: Mutex<State>
  private let files: ControlFiles
  private let program = Mutex<Descriptor?>(nil)

  static let groupKind = "cgroup"
  static let parentKind = "parent"
  private static let always: Set<String> = ["memory", "cpu"]
  /// What the unified hierarchy does better where there is one: count time and threads, and stop everything at once.
  private static let alwaysWithoutUnified: Set<String> = ["memory", "cpu", "cpuacct", "pids", "freezer"]
  private static let unifiedBase = ["cpu", "memory", "pids"]

  init(host: PluginHost, layout: CgroupLayout, machine: MachineResources, files: ControlFiles) {
    self.host = host
    self.layout = layout
    self.machine = machine
    self.files = files
    let name = host.instance.isDefault ? "engine" : "engine-\(host.instance.hash)"
    hierarchies = layout.mounts.sorted { $0.version == .v2 && $1.version == .v1 }
      .map { CgroupHierarchy(mount: $0, name: name, files: files) }
    var versions: [String: CgroupMount.Version] = [:]
    for mount in layout.mounts { for controller in mount.controllers { versions[controller] = mount.version } }
    if layout.unified != nil { versions["unified"] = .v2 }
    self.versions = versions
    var initial = State()
    for entry in host.journal.entries(plugin: host.manifest.name, kind: Self.groupKind) {
      guard let container = ObjectID(entry.container) else { continue }
      // A later group of the same container counts; an earlier one was draining.
      if let former = initial.groups[container] { initial.draining[former.name] = former.entry }
      initial.groups[container] = Group(name: entry.object, entry: entry.number, isOwned: false, hierarchies: nil)
    }
    state = Mutex(initial)
  }

  /// The hierarchy of a controller (`unified` for v2 itself).
  func hierarchy(of controller: String) -> CgroupHierarchy? {
    controller == "unified"
      ? hierarchies.first { $0.mount.version == .v2 } : hierarchies.first { $0.carries(controller) }
  }

  /// Makes the engine's own groups that every container needs.
  func open() throws(EngineError) {
    for hierarchy in hierarchies where isAlways(hierarchy) || hierarchy.carries("devices") {
      _ = try parent(of: hierarchy)
      // What cannot be enabled lacks its control files, which gives a warning where a limit asks for them.
      _ = try? hierarchy.enable(Self.unifiedBase)
    }
  }

  func isAlways(_ hierarchy: CgroupHierarchy) -> Bool {
    let controllers = layout.unified == nil ? Self.alwaysWithoutUnified : Self.always
    return hierarchy.mount.version == .v2 || !controllers.isDisjoint(with: hierarchy.mount.controllers)
  }

  // MARK: Making

  func create(_ container: ObjectID, _ limits: ResourceLimits) throws(EngineError) -> ResourceCreate.Reply {
    try LimitValidation.check(limits, machine)
    let name = try claimName(container)
    let numbers = try host.journal.begin(
      plugin: host.manifest.name, container: container.text, [(Self.groupKind, name)])
    guard let entry = numbers.first else { throw EngineError(.internalFailure, "the journal took no entry") }
    FaultPoint.reach("cgroups.create.recorded")
    var warnings: [String] = []
    let writes = writes(limits, isUpdate: false, &warnings)
    let needed = hierarchies.indices.filter { index in
      isAlways(hierarchies[index]) || writes.contains { hierarchies[index].carries($0.controller) }
    }
    let group = Group(name: name, entry: entry, isOwned: true, hierarchies: needed)
    state.withLock { $0.groups[container] = group }
    do throws(EngineError) {
      var reply = ResourceCreate.Reply(entries: [], unified: nil, paths: [:], warnings: warnings)
      for index in needed { try make(hierarchies[index], group, writes, &reply) }
      if !limits.allowsAllDevices { try restrictDevices(needed, &reply) }
      return reply
    } catch {
      try? remove(container)
      throw error
    }
  }

  /// A name that no group has.
  private func claimName(_ container: ObjectID) throws(EngineError) -> String {
    if let former = state.withLock({ $0.groups[container] }) {
      guard try removeEverywhere(former) else {
        throw EngineError(.conflict, "the container \(container.short) still has processes in its cgroup")
      }
      state.withLock { $0.groups[container] = nil }
      try host.journal.end([former.entry])
    }
    return state.withLock { state in
      var name = container.text
      var number = 2
      while state.draining[name] != nil {
        name = "\(container.text)-\(number)"
        number += 1
      }
      return name
    }
  }

  private func make(
    _ hierarchy: CgroupHierarchy, _ group: Group, _ writes: [ControlWrite], _ reply: inout ResourceCreate.Reply
  ) throws(EngineError) {
    let own = writes.filter { hierarchy.carries($0.controller) }
    let parent = try parent(of: hierarchy)
    let path = "\(hierarchy.path)/\(group.name)"
    func failure(_ error: SystemCallError) -> EngineError {
      EngineError(.internalFailure, "the cgroup \(path) cannot be made: \(error)")
    }
    do throws(SystemCallError) {
      if hierarchy.mount.version == .v2, !own.isEmpty { _ = try hierarchy.enable(own.map(\.controller)) }
      try makeDirectory(hierarchy, parent.number, group.name)
    } catch {
      throw failure(error)
    }
    FaultPoint.reach("cgroups.create.made")
    try apply(own, hierarchy, parent.number, group.name, isNew: true, &reply.warnings)
    do throws(SystemCallError) {
      switch hierarchy.mount.version {
      case .v1:
        let entry = try hierarchy.files.openEntry(at: parent.number, "\(group.name)/tasks")
        reply.entries.append(Descriptor(adopting: entry.release()))
        for controller in hierarchy.mount.controllers { reply.paths[controller] = path }
      case .v2:
        let directory = try Files.open(at: parent.number, group.name, O_RDONLY | O_DIRECTORY)
        reply.unified = Descriptor(adopting: directory.release())
        reply.paths["unified"] = path
      }
    } catch {
      throw failure(error)
    }
  }

  private func makeDirectory(
    _ hierarchy: CgroupHierarchy, _ parent: Int32, _ name: String
  ) throws(SystemCallError) {
    do throws(SystemCallError) {
      try hierarchy.files.makeDirectory(at: parent, name)
    } catch  where error.number == EEXIST {
      // Nobody's: what was left over of a group that nobody recorded.
      _ = try hierarchy.files.removeDirectory(at: parent, name)
      try hierarchy.files.makeDirectory(at: parent, name)
    }
  }

  /// The engine's group of a hierarchy, recorded before it is made for the first time.
  private func parent(of hierarchy: CgroupHierarchy) throws(EngineError) -> Descriptor {
    if let directory = hierarchy.openedDirectory { return directory }
    let entries = host.journal.entries(plugin: host.manifest.name, kind: Self.parentKind)
    if !entries.contains(where: { $0.object == hierarchy.path }) {
      try host.journal.begin(plugin: host.manifest.name, [(Self.parentKind, hierarchy.path)])
    }
    do throws(SystemCallError) {
      return try hierarchy.directory()
    } catch {
      throw EngineError(.unavailable, "the cgroup \(hierarchy.path) cannot be made: \(error)")
    }
  }

  /// Every unprivileged container enters the engine's own group of the devices hierarchy, whose rules hold for it; in
  /// v2 its own group asks the program.
  private func restrictDevices(_ needed: [Int], _ reply: inout ResourceCreate.Reply) throws(EngineError) {
    guard let index = hierarchies.firstIndex(where: { $0.mount.version == .v1 && $0.carries("devices") }) else {
      guard let group = reply.unified, !files.isSimulated else { return }
      do throws(SystemCallError) {
        try DeviceProgram.attach(try loadedProgram(), to: group)
      } catch {
        reply.warnings.append("Your kernel cannot restrict the container's devices: \(error)")
      }
      return
    }
    if needed.contains(index) { return }
    do throws(SystemCallError) {
      let directory = try hierarchies[index].directory()
      reply.entries.append(
        Descriptor(adopting: try hierarchies[index].files.openEntry(at: directory.number, "tasks").release()))
      reply.paths["devices"] = hierarchies[index].path
    } catch {
      throw EngineError(.internalFailure, "the cgroup \(hierarchies[index].path) cannot be entered: \(error)")
    }
  }

  /// The program that restricts devices in v2, loaded when it is needed for the first time.
  private func loadedProgram() throws(SystemCallError) -> Descriptor {
    if let program = program.withLock({ $0 }) { return program }
    let loaded = try DeviceProgram.load()
    program.withLock { $0 = loaded }
    return loaded
  }

  // MARK: Limits

  /// What has to be written for `limits` on this machine; a controller that it lacks gives a warning.
  private func writes(_ limits: ResourceLimits, isUpdate: Bool, _ warnings: inout [String]) -> [ControlWrite] {
    if limits == ResourceLimits() { return [] }
    var result: [ControlWrite] = []
    for version in [CgroupMount.Version.v1, .v2] {
      for write in ControlWrite.all(limits, version: version, isUpdate: isUpdate) {
        switch versions[write.controller] {
        case version: result.append(write)
        case nil: if !warnings.contains(write.warning) { warnings.append(write.warning) }
        default: break
        }
      }
    }
    return result
  }

  private func apply(
    _ writes: [ControlWrite], _ hierarchy: CgroupHierarchy, _ parent: Int32, _ name: String, isNew: Bool,
    _ warnings: inout [String]
  ) throws(EngineError) {
    let files = hierarchy.files
    if isNew && hierarchy.mount.version == .v1 && hierarchy.carries("cpuset") {
      // A new v1 cpuset is empty and takes no process: what is not asked for comes from the parent.
      for file in ["cpuset.cpus", "cpuset.mems"] where !writes.contains(where: { $0.targets.first?.file == file }) {
        do {
          try files.write(at: parent, "\(name)/\(file)", try files.read(at: parent, file).trimmed)
        } catch {
          throw EngineError(.internalFailure, "the cpuset of \(name) cannot be prepared: \(error)")
        }
      }
    }
    for (index, write) in writes.enumerated() {
      do throws(SystemCallError) {
        try put(write, files, parent, name, &warnings)
      } catch {
        // The kernel keeps memory <= memory with swap at every moment, so raising both needs the other order.
        let next = index + 1 < writes.count ? writes[index + 1] : nil
        guard error.number == EINVAL, write.flag == "--memory" else { throw refusal(write, error) }
        guard let next, next.flag == "--memory-swap" else {
          throw EngineError(
            .invalidArgument,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
        }
        do throws(SystemCallError) {
          try put(next, files, parent, name, &warnings)
          try put(write, files, parent, name, &warnings)
        } catch {
          throw refusal(write, error)
        }
      }
    }
  }

  private func put(
    _ write: ControlWrite, _ files: ControlFiles, _ parent: Int32, _ name: String, _ warnings: inout [String]
  ) throws(SystemCallError) {
    for target in write.targets {
      do {
        return try files.write(at: parent, "\(name)/\(target.file)", target.value)
      } catch  where error.number == ENOENT || error.number == EOPNOTSUPP {}
    }
    if !warnings.contains(write.warning) { warnings.append(write.warning) }
  }

  private func refusal(_ write: ControlWrite, _ error: SystemCallError) -> EngineError {
    let value = write.targets.first?.value ?? ""
    if error.number == EBUSY && write.controller == "memory" {
      return EngineError(.invalidArgument, "the container uses more memory than the \(write.flag) \(value) allows")
    }
    return EngineError(.invalidArgument, "the kernel refuses \(write.flag) \(value): \(error.reason)")
  }

  /// Changes what `limits` name, and leaves the rest.
  func update(_ container: ObjectID, _ limits: ResourceLimits) throws(EngineError) {
    try LimitValidation.check(limits, machine, isUpdate: true)
    let group = try group(container)
    var reply = ResourceCreate.Reply(entries: [], unified: nil, paths: [:], warnings: [])
    let writes = writes(limits, isUpdate: true, &reply.warnings)
    for (index, hierarchy) in hierarchies.enumerated() {
      let own = writes.filter { hierarchy.carries($0.controller) }
      if own.isEmpty { continue }
      if let parent = hierarchy.existingDirectory(), faccessat(parent.number, group.name, F_OK, 0) == 0 {
        try apply(own, hierarchy, parent.number, group.name, isNew: false, &reply.warnings)
        continue
      }
      // The limit is of a hierarchy that the container did not need before: it moves there now.
      try make(hierarchy, group, own, &reply)
      state.withLock { $0.groups[container]?.hierarchies?.append(index) }
      try move(processes(container), hierarchy, group)
    }
  }

  private func move(_ processes: [Int32], _ hierarchy: CgroupHierarchy, _ group: Group) throws(EngineError) {
    guard let parent = hierarchy.existingDirectory() else { return }
    for process in processes {
      do {
        try hierarchy.files.write(at: parent.number, "\(group.name)/cgroup.procs", String(process))
      } catch  where error.number == ESRCH {
      } catch {
        throw EngineError(.internalFailure, "process \(process) cannot enter \(hierarchy.path)/\(group.name): \(error)")
      }
    }
  }

  // MARK: Reading

  func group(_ container: ObjectID) throws(EngineError) -> Group {
    guard let group = state.withLock({ $0.groups[container] }) else {
      throw EngineError(.notFound, "the container \(container.short) has no cgroup: it does not run")
    }
    return group
  }

  func usage(_ container: ObjectID) throws(EngineError) -> ResourceUsage {
    let group = try group(container)
    return CgroupUsage.gather(versions: versions, hostMemory: machine.memory) { controller, file in
      guard let hierarchy = hierarchy(of: controller), let parent = hierarchy.existingDirectory() else { return nil }
      return try? hierarchy.files.read(at: parent.number, "\(group.name)/\(file)")
    } threads: {
      guard let hierarchy = hierarchy(of: "unified"), let parent = hierarchy.existingDirectory() else { return 0 }
      return UInt64(numbers(hierarchy, parent.number, group.name, "cgroup.threads").count)
    }
  }

  /// The processes of a container's groups, those of groups it made beneath them included.
  func processes(_ container: ObjectID) throws(EngineError) -> [Int32] {
    let group = try group(container)
    for controller in ["unified", "pids", "memory", "cpu"] {
      guard let hierarchy = hierarchy(of: controller), let parent = hierarchy.existingDirectory() else { continue }
      let found = numbers(hierarchy, parent.number, group.name, "cgroup.procs")
      if !found.isEmpty { return found }
    }
    return []
  }

  /// The processes or threads listed in a group's `file` and in those of the groups beneath it.
  func numbers(_ hierarchy: CgroupHierarchy, _ parent: Int32, _ path: String, _ file: String) -> [Int32] {
    var result = ((try? hierarchy.files.read(at: parent, "\(path)/\(file)")) ?? "")
      .split(separator: "\n").compactMap { Int32($0) }
    for name in (try? hierarchy.files.groups(at: parent, path)) ?? [] {
      result += numbers(hierarchy, parent, "\(path)/\(name)", file)
    }
    return result
  }
}
