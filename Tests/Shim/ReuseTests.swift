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

    /// Waits until so many stand by, and nobody else does.
    private func settled(_ count: Int = 1) async throws -> [Int32] {
      for _ in 0..<4000 {
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
      try await plugin.start()
      let first = try await settled()
      let fresh = try descriptors(try #require(first.first))
      var shims: Set<Int32> = []
      for number in 0..<20 {
        let ran = try await run("echo \(number); exit 3")
        #expect(ran.output == "\(number)\n" && ran.code == 3)
        shims.insert(ran.shim)
      }
      // Whoever came before the first was back got another one.
      #expect(shims.count < 10, "twenty containers had \(shims.count) shims")
      #expect(fixture.journal.entries(plugin: "runtime-linux").isEmpty)
      let standing = try await settled()
      #expect(try descriptors(try #require(standing.first)) == fresh, "something of a container is still open")
      #expect(fixture.runtimeDirectories.allSatisfy { $0.hasPrefix("standby-") })
      let found = try await bus.request(
        PluginCheck(known: [], running: [], repair: false), driver: "runtime-linux")
      #expect(found.isEmpty)
      await plugin.stop()
      #expect(fixture.runtimeDirectories.isEmpty && plugin.standby.processes.isEmpty)
    }

    /// What one container leaves in its IPC namespace is not in the next one's, which has one of its own.
    @Test func theNextHasNamespacesOfItsOwn() async throws {
      try await plugin.start()
      _ = try await settled()
      var seen: [[String]] = []
      var shims: [Int32] = []
      for _ in 0..<6 {
        let ran = try await run(
          "touch /dev/mqueue/left /dev/shm/left; ls /dev/mqueue /dev/shm;"
            + "for kind in ipc uts pid mnt cgroup; do readlink /proc/self/ns/$kind; done")
        #expect(ran.output.hasPrefix("/dev/mqueue:\nleft\n\n/dev/shm:\nleft\n"))
        seen.append(ran.output.split(separator: "\n").suffix(5).map(String.init))
        shims.append(ran.shim)
        _ = try await settled()
      }
      #expect(Set(shims).count < shims.count, "none served twice")
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
      try await plugin.start()
      _ = try await settled()
      for _ in 0..<3 {
        _ = try await run("true")
        _ = try await settled()
      }
      let ran = try await run("readlink /proc/self/ns/ipc") { $0.specification.namespaces[.ipc] = .host }
      #expect(ran.output == (try link("/proc/self/ns/ipc")) + "\n")
      // It has been where others are, so it serves nobody else.
      let standing = try await settled()
      #expect(!standing.contains(ran.shim))
      await plugin.stop()
    }

    @Test func oneThatRanAnExecServesNobodyElse() async throws {
      try await plugin.start()
      _ = try await settled()
      let ran = try await run(
        "sleep 60",
        meanwhile: { id, _ in
          let exec = RuntimeExec(
            container: id, exec: .random(), process: fixture.process(["true"]), seccomp: .standard,
            streams: StandardStreams())
          let status = try await Call(bus: bus).stream(exec) { _ in }
          #expect(status.code == 0)
          _ = try await bus.request(RuntimeSignal(container: id, signal: SIGKILL))
        })
      let standing = try await settled()
      #expect(!standing.contains(ran.shim))
      await plugin.stop()
    }

    /// More than are to stand by go again when it is quiet, and one that died meanwhile is not taken.
    @Test func superfluousAndDeadOnesGo() async throws {
      try await plugin.start()
      _ = try await settled()
      var running: [(ObjectID, Int32)] = []
      for _ in 0..<5 {
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
      #expect(plugin.standby.processes.count > 1)
      for pid in plugin.standby.processes {
        kill(pid, SIGKILL)
        while ((try? Files.readText("/proc/\(pid)/stat")) ?? ") Z ").contains(") Z ") == false {
          try await Task.sleep(nanoseconds: 1_000_000)
        }
      }
      let ran = try await run("exit 4")
      #expect(ran.code == 4 && !running.map(\.1).contains(ran.shim))
      let standing = try await settled()
      #expect(standing.count == 1)
      #expect(fixture.runtimeDirectories.count == 1)
      await plugin.stop()
      #expect(fixture.runtimeDirectories.isEmpty)
    }

    /// A process serves a bounded number of containers, and does not grow with them.
    @Test func doesNotGrow() async throws {
      let fixture = try RuntimeFixture(standby: 2)
      let bus = Bus()
      let plugin = try fixture.connect(bus)
      try await plugin.start()
      var sizes: [Int32: [Int]] = [:]
      for _ in 0..<230 {
        let ran = try await fixture.run(
          fixture.specification(["dd", "if=/dev/zero", "bs=4096", "count=2"]), on: bus)
        #expect(ran.output.utf8.count == 2 * 4096)
        // What has served stands by, unless others did faster.
        for pid in plugin.standby.processes { sizes[pid, default: []].append((try? resident(pid)) ?? 0) }
      }
      let longest = try #require(sizes.values.max { $0.count < $1.count })
      try #require(longest.count > 20, "none served for long")
      // Each is seen about twice for each of its containers.
      #expect(sizes.count >= 3, "none was let go of")
      let early = longest[5], late = longest[longest.count - 2]
      #expect(late <= early + 256, "from \(early) to \(late) kB")
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
