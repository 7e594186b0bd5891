import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

@testable import CgroupsPlugin

private let instances = Mutex(0)

/// A plugin on a bus of its own, with a journal and a name of its own. A crash of the engine is a second one with the
/// journal of the first.
final class CgroupFixture: Sendable {
  let bus = Bus()
  let plugin: CgroupsPlugin
  let instance: Instance
  let journal: Journal
  let directory: String

  init(
    layout: CgroupLayout? = nil, isSimulated: Bool = true, after former: CgroupFixture? = nil
  ) async throws {
    if let former {
      instance = former.instance
      directory = former.directory
    } else {
      let number = instances.withLock { number in
        number += 1
        return number
      }
      let hash = "test\(getpid())x\(number)"
      directory = "/tmp/engine-cgroups-\(hash)"
      try Files.makeDirectories(directory)
      instance = Instance(
        root: directory, runtimeDirectory: directory, hash: hash, isDefault: false, daemonPath: "", shimPath: "",
        version: "1")
    }
    journal = try Journal(path: "\(directory)/journal")
    let host = PluginHost(manifest: CgroupsPlugin.manifest, bus: bus, instance: instance, journal: journal)
    if let layout {
      plugin = CgroupsPlugin(
        host: host, layout: layout,
        machine: MachineResources(cpus: 2, onlineCPUs: "0-1", onlineMemoryNodes: "0", memory: 1 << 30),
        files: ControlFiles(isSimulated: isSimulated))
    } else {
      plugin = try CgroupsPlugin(host: host)
    }
    try plugin.register(Registrar(bus: bus, manifest: CgroupsPlugin.manifest))
    try await plugin.start()
  }

  /// Paths of everything that the engine of this fixture has in the real hierarchies.
  func presentPaths() -> [String] {
    ((try? Files.list("/sys/fs/cgroup")) ?? []).flatMap { hierarchy -> [String] in
      let base = "/sys/fs/cgroup/\(hierarchy)/engine-\(instance.hash)"
      guard Files.isDirectory(base) else { return [] }
      return [base] + ((try? Files.list(base)) ?? []).map { "\(base)/\($0)" }.filter(Files.isDirectory)
    }
  }

  func check(running: [ObjectID] = [], repair: Bool = false) async throws -> [SystemDifference] {
    try await bus.request(
      PluginCheck(known: running, running: running, repair: repair), driver: CgroupsPlugin.manifest.name)
  }

  /// Asks again until nothing drains any more; at most some seconds.
  func settle() async throws -> [SystemDifference] {
    for _ in 0..<500 {
      let differences = try await check()
      if !differences.contains(where: { $0.kind == .draining }) { return differences }
      await bus.timekeeper.sleep(.milliseconds(10))
    }
    return try await check()
  }

  /// A child enters its groups by itself, some time after it was spawned.
  func waitForProcess(_ pid: pid_t, in container: ObjectID) async throws {
    for _ in 0..<500 {
      if try await bus.request(ResourceProcesses(container: container)) == [pid] { return }
      await bus.timekeeper.sleep(.milliseconds(10))
    }
    throw EngineError(.deadlineExceeded, "process \(pid) did not enter its cgroup")
  }

  func close() async {
    await plugin.stop()
    try? Files.removeTree(directory)
  }
}

/// Runs `/bin/sh -c script` after it has entered the groups by itself, as a container's first process does.
func spawn(_ script: String, in created: ResourceCreate.Reply) throws -> pid_t {
  var entries = created.entries.map(\.number)
  var opened: Descriptor?
  if let unified = created.unified {
    opened = Descriptor(adopting: try Files.open(at: unified.number, "cgroup.procs", O_WRONLY).release())
    if let opened { entries.append(opened.number) }
  }
  defer { withExtendedLifetime(opened) {} }
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  var high: [Descriptor] = []
  var enter = ""
  for (index, entry) in entries.enumerated() {
    let copy = Descriptor(adopting: try SystemCallError.check("fcntl") { linux_fcntl(entry, F_DUPFD_CLOEXEC, 200) })
    high.append(copy)
    posix_spawn_file_actions_adddup2(&actions, copy.number, Int32(3 + index))
    enter += "echo 0 >&\(3 + index); exec \(3 + index)>&-; "
  }
  var pid: pid_t = 0
  let words = ["/bin/sh", "-c", enter + script]
  let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
  defer { arguments.forEach { free($0) } }
  let result = withExtendedLifetime(high) { posix_spawn(&pid, "/bin/sh", &actions, nil, arguments, Glibc.environ) }
  if result != 0 { throw SystemCallError(call: "posix_spawn", number: result) }
  return pid
}

/// How a child ended: its exit code, or 128 and the signal's number.
func wait(for pid: pid_t) -> Int32 {
  var status: Int32 = 0
  while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
  return linux_wait_signalled(status) != 0 ? 128 + linux_wait_signal(status) : linux_wait_exit_status(status)
}
