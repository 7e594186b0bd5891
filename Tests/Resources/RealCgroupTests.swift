import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import CgroupsPlugin

/// On the hierarchies that this machine has; needs root.
@Suite(.enabled(if: getuid() == 0, "making cgroups needs root")) struct RealCgroupTests {
  @Test func aProcessThatTakesMoreThanItsMemoryIsKilledAndCounted() async throws {
    let fixture = try await CgroupFixture()
    let id = ObjectID.random()
    var limits = ResourceLimits()
    limits.memory = 32 << 20
    limits.memorySwap = 32 << 20
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: limits))
    // tail keeps what it reads until a line ends, which never happens here.
    #expect(wait(for: try spawn("exec tail /dev/zero", in: created)) == 128 + SIGKILL)
    let usage = try await fixture.bus.request(ResourceRead(container: id))
    #expect(usage.oomKills >= 1)
    #expect(usage.memoryLimit == 32 << 20)
    #expect(usage.cpuNanoseconds > 0)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  @Test func aQuotaThrottles() async throws {
    let fixture = try await CgroupFixture()
    let id = ObjectID.random()
    var limits = ResourceLimits()
    limits.nanoCPUs = 100_000_000
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: limits))
    let pid = try spawn("while :; do :; done", in: created)
    let path = try #require(created.paths["cpu"] ?? created.paths["unified"])
    var throttled: UInt64 = 0
    for _ in 0..<1000 where throttled == 0 {
      await fixture.bus.timekeeper.sleep(.milliseconds(10))
      throttled = CgroupUsage.value(try Files.readText("\(path)/cpu.stat"), "nr_throttled") ?? 0
    }
    #expect(throttled > 0)
    try await fixture.waitForProcess(pid, in: id)
    // What is left is killed, and what is killed goes by itself.
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(wait(for: pid) == 128 + SIGKILL)
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  @Test func forkingStopsAtTheLimitOfProcesses() async throws {
    let fixture = try await CgroupFixture()
    let id = ObjectID.random()
    var limits = ResourceLimits()
    limits.pids = 2
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: limits))
    #expect(wait(for: try spawn("(exec sleep 60) 2>/dev/null & exit 0", in: created)) == 0)
    #expect(wait(for: try spawn("exec 2>/dev/null; sleep 60 & sleep 60 & exit 0", in: created)) != 0)
    let path = try #require(created.paths["pids"] ?? created.paths["unified"])
    #expect((CgroupUsage.value(try Files.readText("\(path)/pids.events"), "max") ?? 0) > 0)
    #expect(try await fixture.bus.request(ResourceRead(container: id)).pids >= 1)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  @Test func aContainerMayNotOpenTheHostsDisk() async throws {
    let fixture = try await CgroupFixture()
    let id = ObjectID.random()
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: ResourceLimits()))
    guard created.paths["devices"] != nil else { return }
    let node = "\(fixture.directory)/node"
    // 1:11 is /dev/kmsg, 1:3 /dev/null: a node of the first can be made, and only the second opened.
    let script = "mknod \(node) c 1 11 || exit 9; : < /dev/null || exit 8; : < \(node)"
    #expect(wait(for: try spawn("exec 2>/dev/null; \(script)", in: created)) == 2)
    #expect(Files.exists(node))
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    var all = ResourceLimits()
    all.allowsAllDevices = true
    let privileged = try await fixture.bus.request(ResourceCreate(container: id, limits: all))
    #expect(privileged.paths["devices"] == nil)
    #expect(wait(for: try spawn(": < \(node)", in: privileged)) == 0)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  /// The unified hierarchy alone, as on a machine with nothing but cgroup v2.
  @Test func onTheUnifiedHierarchyAProgramGuardsTheDevices() async throws {
    let hybrid = CgroupLayout(
      mountinfo: try Files.readText("/proc/self/mountinfo"), subsystems: "",
      unifiedControllers: { (try? Files.readText("\($0)/cgroup.controllers")) ?? "" })
    var layout = hybrid
    layout.mounts = hybrid.mounts.filter { $0.version == .v2 }
    guard !layout.mounts.isEmpty else { return }
    let fixture = try await CgroupFixture(layout: layout, isSimulated: false)
    let id = ObjectID.random()
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: ResourceLimits()))
    #expect(created.entries.isEmpty)
    #expect(created.warnings == [])
    let node = "\(fixture.directory)/node"
    let script =
      "mknod \(node) c 1 11 || exit 9; for i in null zero full random urandom ptmx; do : < /dev/$i || exit 8; done"
    #expect(wait(for: try spawn("exec 2>/dev/null; \(script); : < \(node)", in: created)) == 2)
    #expect(Files.exists(node))
    let block = "exec 2>/dev/null; mknod \(node)2 b 1 3 || exit 9; : < \(node)2"
    #expect(wait(for: try spawn(block, in: created)) == 2)
    let pid = try spawn("exec sleep 60", in: created)
    try await fixture.waitForProcess(pid, in: id)
    #expect(try await fixture.bus.request(ResourceRead(container: id)).pids == 1)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(wait(for: pid) == 128 + SIGKILL)
    var all = ResourceLimits()
    all.allowsAllDevices = true
    let privileged = try await fixture.bus.request(ResourceCreate(container: id, limits: all))
    #expect(wait(for: try spawn(": < \(node)", in: privileged)) == 0)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  @Test func limitsOfARunningContainerChange() async throws {
    let fixture = try await CgroupFixture()
    let id = ObjectID.random()
    var limits = ResourceLimits()
    limits.memory = 32 << 20
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: limits))
    let pid = try spawn("exec sleep 60", in: created)
    try await fixture.waitForProcess(pid, in: id)
    // Both grow beyond the old limit with swap, which works in one order only.
    limits.memory = 128 << 20
    limits.memorySwap = 256 << 20
    limits.cpusetCPUs = "0"
    limits.pids = 5
    _ = try await fixture.bus.request(ResourceUpdate(container: id, limits: limits))
    #expect(try await fixture.bus.request(ResourceRead(container: id)).memoryLimit == 128 << 20)
    #expect(try await fixture.bus.request(ResourceRead(container: id)).pids == 1)
    #expect(try Files.readText("/proc/\(pid)/status").contains("Cpus_allowed_list:\t0\n"))
    var tooMuch = ResourceLimits()
    tooMuch.memory = 1 << 30
    let update = ResourceUpdate(container: id, limits: tooMuch)
    let error = await #expect(throws: EngineError.self) { try await fixture.bus.request(update) }
    #expect(error?.message.contains("update the memoryswap at the same time") == true)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(wait(for: pid) == 128 + SIGKILL)
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  @Test func whatACrashLeftIsReportedAndRemoved() async throws {
    let crashed = try await CgroupFixture()
    let (running, ended) = (ObjectID.random(), ObjectID.random())
    let kept = try await crashed.bus.request(ResourceCreate(container: running, limits: ResourceLimits()))
    let left = try await crashed.bus.request(ResourceCreate(container: ended, limits: ResourceLimits()))
    let keptPID = try spawn("exec sleep 60", in: kept)
    let leftPID = try spawn("exec sleep 60", in: left)
    try await crashed.waitForProcess(keptPID, in: running)
    try await crashed.waitForProcess(leftPID, in: ended)
    let stray = try #require(left.paths["memory"] ?? left.paths["unified"]).split(separator: "/").dropLast()
    let strayPath = "/" + stray.joined(separator: "/") + "/stray"
    try Files.makeDirectory(strayPath)

    let fixture = try await CgroupFixture(after: crashed)
    let found = try await fixture.check(running: [running])
    #expect(Set(found.map(\.kind)) == [.leftover])
    #expect(found.contains { $0.object == "cgroup \(strayPath)" })
    #expect(found.contains { $0.object.hasSuffix("/\(ended.text)") })
    #expect(!found.contains { $0.object.hasSuffix("/\(running.text)") })
    _ = try await fixture.check(running: [running], repair: true)
    #expect(wait(for: leftPID) == 128 + SIGKILL)
    for _ in 0..<500 where try await !fixture.check(running: [running]).isEmpty {
      await fixture.bus.timekeeper.sleep(.milliseconds(10))
    }
    #expect(try await fixture.check(running: [running]) == [])
    #expect(kill(keptPID, 0) == 0)
    // The adopted container is as usable as one of its own.
    #expect(try await fixture.bus.request(ResourceProcesses(container: running)) == [keptPID])
    _ = try await fixture.bus.request(ResourceRemove(container: running))
    #expect(wait(for: keptPID) == 128 + SIGKILL)
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
    #expect(fixture.journal.entries(plugin: CgroupsPlugin.manifest.name) == [])
  }

  @Test func aGroupThatVanishedIsMissing() async throws {
    let fixture = try await CgroupFixture()
    let id = ObjectID.random()
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: ResourceLimits()))
    let path = try #require(created.paths["memory"] ?? created.paths["unified"])
    rmdir(path)
    #expect(try await fixture.check(running: [id]).map(\.kind) == [.missing])
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(try await fixture.settle() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }

  @Test func nothingIsLeftOfACreationThatFails() async throws {
    let fixture = try await CgroupFixture()
    var limits = ResourceLimits()
    limits.cpusetCPUs = "4095"
    let bad = ResourceCreate(container: .random(), limits: limits)
    let error = await #expect(throws: EngineError.self) { try await fixture.bus.request(bad) }
    #expect(error?.code == .invalidArgument)
    // The kernel itself refuses this one, after the group was made.
    var refused = ResourceLimits()
    refused.pids = 5_000_000_000_000
    let late = ResourceCreate(container: .random(), limits: refused)
    let lateError = await #expect(throws: EngineError.self) { try await fixture.bus.request(late) }
    #expect(lateError?.message.contains("--pids-limit") == true)
    #expect(try await fixture.check() == [])
    await fixture.close()
    #expect(fixture.presentPaths() == [])
  }
}
