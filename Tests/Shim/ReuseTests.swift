import CLinux
import Contracts
import Foundation
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import LinuxRuntimePlugin

extension RealKernel {
  /// Shims that serve one container after the other: the next one notices nothing of the one before.
  @Suite struct ReuseTests {
    private let fixture: RuntimeFixture
    private let plugin: LinuxRuntimePlugin
    private let bus = Bus()

    init() throws {
      fixture = try RuntimeFixture(standby: 1)
      plugin = try fixture.connect(bus)
    }

    private struct Ran {
      var id: ObjectID
      var shim: Int32
      var output: String
      var code: Int32
    }

    /// Runs a container to its end and removes it.
    private func run(
      _ script: String, change: (inout RuntimeCreate) -> Void = { _ in },
      meanwhile: (ObjectID, RuntimeStart.Reply) async throws -> Void = { _, _ in }
    ) async throws -> Ran {
      let id = ObjectID.random()
      let output = try Pipe()
      var request = try fixture.request(
        id, fixture.specification(["sh", "-c", script]), streams: StandardStreams(output: output.writing()))
      change(&request)
      output.closeWriting()
      async let text = output.readToEnd()
      let reply = try await fixture.launch(request, on: bus)
      request.streams = StandardStreams()
      try await meanwhile(id, reply)
      let exit = try await fixture.exits.first { $0.container == id }
      _ = try await bus.request(RuntimeRemove(container: id))
      return Ran(id: id, shim: reply.shimPID, output: await text, code: exit.status.code)
    }

    /// Starts the plugin and waits until one stands by.
    private func begin() async throws -> [Int32] {
      try await plugin.start()
      await plugin.waitUntilPrepared()
      return try await settled()
    }

    /// Waits until so many stand by, and nobody else does.
    private func settled(_ count: Int = 1) async throws -> [Int32] {
      for _ in 0..<24_000 {
        let all = plugin.standby.processes
        let calm = all.allSatisfy { pid in
          (try? Files.readText("/proc/\(pid)/cmdline")) == "engine-shim\0standby     \0"
            && ((try? Files.readText("/proc/\(pid)/wchan")) ?? "") != "0"
        }
        if all.count == count && calm { return all.sorted() }
        try await Task.sleep(nanoseconds: 5_000_000)
      }
      return plugin.standby.processes.sorted()
    }

    /// As long as it is held, none is started to stand by, and none is too many: both wait for a quiet moment, which the
    /// bus's timekeeper is to tell. So the next container gets the shim of the one before.
    private final class HeldTime: Sendable {
      private let gate = DispatchSemaphore(value: 0)

      init(of bus: Bus) { _ = bus.timekeeper.schedule(after: .zero) { [gate] in gate.wait() } }

      func goOn() { gate.signal() }
    }

    private func link(_ path: String) throws -> String {
      try FileManager.default.destinationOfSymbolicLink(atPath: path)
    }

    private func descriptors(_ pid: Int32) throws -> [String] {
      try Files.list("/proc/\(pid)/fd").map { name in
        let target = try link("/proc/\(pid)/fd/\(name)")
        // Inodes are each one's own.
        return "\(name) \(target.prefix { $0 != "[" })"
      }.sorted()
    }

    @Test func oneServesTheNextContainer() async throws {
      let first = try await begin()
      let fresh = try descriptors(try #require(first.first))
      let time = HeldTime(of: bus)
      for number in 0..<20 {
        let ran = try await run("echo \(number); exit 3")
        #expect(ran.output == "\(number)\n" && ran.code == 3)
        #expect(ran.shim == first.first)
      }
      #expect(fixture.journal.entries(plugin: "runtime-linux").isEmpty)
      let standing = try await settled()
      #expect(try descriptors(try #require(standing.first)) == fresh, "something of a container is still open")
      #expect(fixture.runtimeDirectories.allSatisfy { $0.hasPrefix("standby-") })
      let found = try await bus.request(
        PluginCheck(known: [], running: [], repair: false), driver: "runtime-linux")
      #expect(found.isEmpty)
      time.goOn()
      await plugin.stop()
      #expect(fixture.runtimeDirectories.isEmpty && plugin.standby.processes.isEmpty)
    }

    /// What one container leaves in its IPC namespace is not in the next one's, which has one of its own.
    @Test func theNextHasNamespacesOfItsOwn() async throws {
      let first = try await begin()
      let time = HeldTime(of: bus)
      defer { time.goOn() }
      var seen: [[String]] = []
      for _ in 0..<6 {
        let ran = try await run(
          "touch /dev/mqueue/left /dev/shm/left; ls /dev/mqueue /dev/shm;"
            + "for kind in ipc uts pid mnt cgroup; do readlink /proc/self/ns/$kind; done")
        #expect(ran.output.hasPrefix("/dev/mqueue:\nleft\n\n/dev/shm:\nleft\n"))
        seen.append(ran.output.split(separator: "\n").suffix(5).map(String.init))
        #expect(ran.shim == first.first)
      }
      // The last of a kind may be gone before the next is made, and its number free again; the host's never is.
      for kind in seen[0].indices {
        let host = try link("/proc/self/ns/\(["ipc", "uts", "pid", "mnt", "cgroup"][kind])")
        #expect(seen.allSatisfy { $0[kind] != host })
      }
      let others = try await run("ls -A /dev/mqueue /dev/shm")
      #expect(others.output == "/dev/mqueue:\n\n/dev/shm:\n", "what another one left is seen")
      await plugin.stop()
    }

    /// The host's IPC namespace is still the host's for a shim that has left several others.
    @Test func sharesTheHostsNamespaceLater() async throws {
      let first = try await begin()
      let time = HeldTime(of: bus)
      defer { time.goOn() }
      for _ in 0..<3 { _ = try await run("true") }
      let ran = try await run("readlink /proc/self/ns/ipc") { $0.specification.namespaces[.ipc] = .host }
      #expect(ran.shim == first.first)
      #expect(ran.output == (try link("/proc/self/ns/ipc")) + "\n")
      #expect(plugin.standby.isEmpty, "it has been where others are, and serves somebody else")
      await plugin.stop()
    }

    @Test func oneThatRanAnExecServesNobodyElse() async throws {
      _ = try await begin()
      let time = HeldTime(of: bus)
      defer { time.goOn() }
      _ = try await run(
        "sleep 60",
        meanwhile: { id, _ in
          let exec = RuntimeExec(
            container: id, exec: .random(), process: fixture.process(["true"]), seccomp: .standard,
            streams: StandardStreams())
          let status = try await Call(bus: bus).stream(exec) { _ in }
          #expect(status.code == 0)
          _ = try await bus.request(RuntimeSignal(container: id, signal: SIGKILL))
        })
      #expect(plugin.standby.isEmpty)
      await plugin.stop()
    }

    /// Runs so many containers at once, each to its end, and returns their shims.
    private func runAtOnce(_ count: Int) async throws -> Set<Int32> {
      var running: [(ObjectID, Int32)] = []
      for _ in 0..<count {
        let id = ObjectID.random()
        let reply = try await fixture.launch(
          try fixture.request(id, fixture.specification(["sleep", "60"])), on: bus)
        running.append((id, reply.shimPID))
      }
      for (id, _) in running {
        _ = try await bus.request(RuntimeSignal(container: id, signal: SIGKILL))
        _ = try await fixture.exits.first { $0.container == id }
        _ = try await bus.request(RuntimeRemove(container: id))
      }
      return Set(running.map(\.1))
    }

    /// More than are to stand by go again when it is quiet.
    @Test func superfluousOnesGo() async throws {
      _ = try await begin()
      let time = HeldTime(of: bus)
      let shims = try await runAtOnce(5)
      #expect(Set(plugin.standby.processes) == shims && shims.count == 5)
      time.goOn()
      let standing = try await settled()
      #expect(standing.count == 1)
      for pid in shims.subtracting(standing) { await gone(pid) }
      #expect(fixture.runtimeDirectories.count == 1)
      await plugin.stop()
    }

    /// One that died while it stood by is not taken.
    @Test func deadOnesAreNotTaken() async throws {
      _ = try await begin()
      let time = HeldTime(of: bus)
      let shims = try await runAtOnce(3)
      #expect(Set(plugin.standby.processes) == shims)
      for pid in shims {
        kill(pid, SIGKILL)
        await gone(pid)
      }
      let ran = try await run("exit 4")
      #expect(ran.code == 4 && !shims.contains(ran.shim))
      #expect(plugin.standby.processes == [ran.shim] && fixture.runtimeDirectories.count == 1)
      time.goOn()
      await plugin.stop()
      #expect(fixture.runtimeDirectories.isEmpty)
    }

    /// A process serves a bounded number of containers, and does not grow with them.
    @Test func doesNotGrow() async throws {
      _ = try await begin()
      let time = HeldTime(of: bus)
      defer { time.goOn() }
      var shims: [Int32] = []
      var sizes: [Int] = []
      for _ in 0..<230 {
        let ran = try await run("dd if=/dev/zero bs=4096 count=2 2>/dev/null")
        #expect(ran.output.utf8.count == 2 * 4096)
        if shims.last != ran.shim { shims.append(ran.shim) }
        // What has served stands by.
        sizes.append(try plugin.standby.processes.first.map(resident) ?? 0)
      }
      #expect(shims.count == 3, "none was let go of after a hundred containers")
      #expect(sizes[98] <= sizes[5] + 256, "from \(sizes[5]) to \(sizes[98]) kB")
      await plugin.stop()
    }

    /// Kilobytes that are its own alone.
    private func resident(_ pid: Int32) throws -> Int {
      let text = try Files.readText("/proc/\(pid)/smaps_rollup")
      let line = text.split(separator: "\n").first { $0.hasPrefix("Private_Dirty:") }
      return Int(line?.split(separator: " ").dropFirst().first ?? "") ?? 0
    }
  }
}
