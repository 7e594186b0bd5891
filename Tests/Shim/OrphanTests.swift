import CLinux
import Contracts
import Glibc
import LinuxSystem
import ShimProtocol
import Testing

@testable import LinuxRuntimePlugin

extension RealKernel {
  /// A shim without its engine, and what the kernel counts a container in.
  @Suite struct OrphanTests {
    let fixture: RuntimeFixture
    init() throws { fixture = try RuntimeFixture() }

    private func wait(for path: String) async throws -> String {
      for _ in 0..<5000 {
        if let text = try? Files.readText(path), text.hasSuffix("\n") { return text }
        try await Task.sleep(nanoseconds: 1_000_000)
      }
      Issue.record("\(path) did not come")
      return ""
    }

    @Test func theExitIsKeptAndAnEngineStarted() async throws {
      let base = fixture.directory
      let daemon = "\(base)/daemon"
      let script = "#!/bin/sh\necho \"$@\" > \(base)/started\n"
      try Files.replace(daemon, with: Array(script.utf8), mode: 0o755, durable: false)
      let directory = ContainerDirectory(base: "\(base)/run", name: "orphan")
      try Files.makeDirectory(directory.path)
      let listener = try directory.listen()
      var ends: [Int32] = [-1, -1]
      try SystemCallError.check("socketpair") {
        socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends)
      }
      let other = OwnedDescriptor(adopting: ends[1])
      let spawner = ShimSpawner(path: RuntimeFixture.shimPath)
      let pid = try spawner.spawn(connection: other.number, listener: listener.number, label: "orphan")
      var plan = StartPlan()
      plan.process.arguments = ["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.01; done; exit 6"]
      plan.process.environment = ["PATH=/bin"]
      plan.freshNamespaces = UInt32(
        bitPattern: CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)
      plan.sharedMemorySize = 1 << 20
      plan.directory = directory.path
      plan.daemonPath = daemon
      plan.daemonRoot = "/the/root"
      let root = try Mounts.clone("\(base)/root", recursive: false)
      let gate = try Pipe()
      let (reading, writing) = (gate.reading(), gate.writing())
      try Channel.send(
        Frame(number: 1, body: ToShim.start(plan)), descriptors: [root.number, reading.number], to: ends[0])
      try Files.writeAll(writing.number, [1])
      let answer = try #require(try Channel.receive(from: ends[0]))
      for number in answer.descriptors { close(number) }
      guard case .started = try Frame<FromShim>(decoding: answer.bytes).body else {
        Issue.record("not started")
        return
      }
      // The engine dies; a moment later the container ends.
      close(ends[0])
      try Files.replace("\(base)/root/tmp/go", with: [], durable: false)
      #expect(try await wait(for: "\(directory.path)/exit").hasPrefix("6 "))
      #expect(try await wait(for: "\(base)/started") == "--root /the/root\n")
      #expect(waitpid(pid, nil, 0) == pid)
      #expect(try directory.exit()?.code == 6)
    }

    @Test func aPreparedShimEndsWithItsEngine() throws {
      let directory = ContainerDirectory(base: "\(fixture.directory)/run", name: "early")
      try Files.makeDirectory(directory.path)
      let listener = try directory.listen()
      var ends: [Int32] = [-1, -1]
      try SystemCallError.check("socketpair") {
        socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends)
      }
      let pid = try ShimSpawner(path: RuntimeFixture.shimPath)
        .spawn(connection: ends[1], listener: listener.number, label: "early")
      close(ends[1])
      close(ends[0])
      var status: Int32 = -1
      #expect(waitpid(pid, &status, 0) == pid && status == 0)
    }

    @Test func cgroupsAreEnteredAndHidden() async throws {
      let name = "shim-test-\(getpid())"
      var directories: [String] = []
      defer { for directory in directories { rmdir(directory) } }
      var entries: [Descriptor] = []
      if Files.exists("/sys/fs/cgroup/pids/tasks") {
        directories.append("/sys/fs/cgroup/pids/\(name)")
        try Files.makeDirectory(directories[0])
        entries.append(Descriptor(adopting: try Files.open("\(directories[0])/tasks", O_WRONLY).release()))
      }
      var unified: Descriptor?
      let base = Files.exists("/sys/fs/cgroup/cgroup.procs") ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified"
      if Files.exists("\(base)/cgroup.procs") {
        let directory = "\(base)/\(name)"
        try Files.makeDirectory(directory)
        directories.append(directory)
        unified = Descriptor(adopting: try Files.open(directory, O_RDONLY | O_DIRECTORY).release())
      }
      try #require(!directories.isEmpty)
      let id = ObjectID.random()
      var request = try fixture.request(
        id, fixture.specification(["sh", "-c", "grep -E '^0:|pids' /proc/self/cgroup; sleep 60"]))
      request.cgroupEntries = entries
      request.unifiedCgroup = unified
      let reply = try await fixture.launch(request)
      for directory in directories {
        #expect(try Files.readText("\(directory)/cgroup.procs").contains("\(reply.pid)\n"))
      }
      let log = "\(fixture.directory)/\(id.short).log"
      for _ in 0..<5000 where !((try? Files.readText(log)) ?? "").contains("0::") {
        try await Task.sleep(nanoseconds: 1_000_000)
      }
      let text = try Files.readText(log)
      #expect(text.contains("0::/\\n") && !text.contains(name), "\(text)")
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }
  }
}
