import Contracts
import Glibc
import LinuxSystem
import Testing

@testable import CgroupsPlugin

/// cgroup v2 as a plain directory: what is written where.
@Suite struct SimulatedCgroupTests {
  final class Tree {
    let path: String
    let layout: CgroupLayout

    init(controllers: String = "cpuset cpu io memory pids") throws {
      path = "/tmp/engine-tree-\(ObjectID.random().short)"
      try Files.makeDirectories(path)
      layout = CgroupLayout(
        mountinfo: "31 24 0:27 / \(path) rw - cgroup2 cgroup2 rw", subsystems: "",
        unifiedControllers: { _ in controllers })
    }

    func read(_ file: String) -> String? { try? Files.readText("\(path)/\(file)") }
    func put(_ file: String, _ text: String) throws {
      try Files.replace("\(path)/\(file)", with: Array(text.utf8), durable: false)
    }
    deinit { try? Files.removeTree(path) }
  }

  @Test func limitsAreWrittenToTheContainersGroup() async throws {
    let tree = try Tree()
    let fixture = try await CgroupFixture(layout: tree.layout)
    let id = ObjectID.random()
    var limits = ResourceLimits()
    limits.memory = 64 << 20
    limits.nanoCPUs = 1_500_000_000
    limits.cpuShares = 512
    limits.cpusetCPUs = "1"
    limits.pids = 10
    limits.memoryReservation = 16 << 20
    limits.blkioWeight = 1000
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: limits))
    let group = "engine-\(fixture.instance.hash)/\(id)"
    #expect(created.entries.isEmpty)
    #expect(created.unified != nil)
    #expect(created.paths == ["unified": "\(tree.path)/\(group)"])
    let expected = [
      "memory.max": "67108864", "memory.swap.max": "67108864", "memory.low": "16777216", "cpu.max": "150000 100000",
      "cpu.weight": "20", "cpuset.cpus": "1", "pids.max": "10", "io.bfq.weight": "1000",
    ]
    for (file, value) in expected { #expect(tree.read("\(group)/\(file)") == value, "\(file)") }
    // Only as many controllers are enabled as are asked for: here the last of them.
    #expect(tree.read("cgroup.subtree_control")?.hasPrefix("+") == true)
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    #expect(!Files.exists("\(tree.path)/\(group)"))
    await fixture.close()
    #expect(!Files.exists("\(tree.path)/engine-\(fixture.instance.hash)"))
  }

  @Test func countersAreRead() async throws {
    let tree = try Tree()
    let fixture = try await CgroupFixture(layout: tree.layout)
    let id = ObjectID.random()
    _ = try await fixture.bus.request(ResourceCreate(container: id, limits: ResourceLimits()))
    let group = "engine-\(fixture.instance.hash)/\(id)"
    try tree.put("\(group)/cpu.stat", "usage_usec 1234\nuser_usec 1000\n")
    try tree.put("\(group)/memory.current", "5000\n")
    try tree.put("\(group)/memory.stat", "anon 1\ninactive_file 1500\n")
    try tree.put("\(group)/memory.max", "max\n")
    try tree.put("\(group)/memory.events", "low 0\noom 3\noom_kill 2\n")
    try tree.put("\(group)/pids.current", "4\n")
    try tree.put("\(group)/cgroup.procs", "11\n12\n")
    try Files.makeDirectory("\(tree.path)/\(group)/nested")
    try tree.put("\(group)/nested/cgroup.procs", "13\n")
    #expect(
      try await fixture.bus.request(ResourceRead(container: id))
        == ResourceUsage(cpuNanoseconds: 1_234_000, memory: 3500, memoryLimit: 1 << 30, pids: 4, oomKills: 2))
    #expect(try await fixture.bus.request(ResourceProcesses(container: id)) == [11, 12, 13])
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    await fixture.close()
  }

  @Test func aMissingControllerIsAWarningAndNotAFailure() async throws {
    let tree = try Tree(controllers: "pids")
    let fixture = try await CgroupFixture(layout: tree.layout)
    let id = ObjectID.random()
    var limits = ResourceLimits()
    limits.memory = 64 << 20
    limits.cpuShares = 512
    let created = try await fixture.bus.request(ResourceCreate(container: id, limits: limits))
    #expect(
      created.warnings == [
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
      ])
    let capabilities = try await fixture.bus.request(ResourceCapabilities())
    #expect(capabilities == ResourceCapabilities.Reply(version: "2", controllers: ["pids": "v2"]))
    _ = try await fixture.bus.request(ResourceRemove(container: id))
    await fixture.close()
  }

  @Test func aContainerThatDoesNotRunHasNoCounters() async throws {
    let tree = try Tree()
    let fixture = try await CgroupFixture(layout: tree.layout)
    let error = await #expect(throws: EngineError.self) {
      try await fixture.bus.request(ResourceRead(container: .random()))
    }
    #expect(error?.code == .notFound)
    await fixture.close()
  }
}
