import CLinux
import Contracts
import Glibc
import Kernel
import LinuxRuntimePlugin
import LinuxSystem
import Testing

/// Tests with real containers: one after the other, as root.
@Suite(.serialized, .enabled(if: RuntimeFixture.isRoot, "containers need root")) struct RealKernel {}

extension RealKernel {
  /// Deaths and returns of everybody involved.
  @Suite struct LifeTests {
    let fixture: RuntimeFixture
    init() throws { fixture = try RuntimeFixture() }

    private func start(_ script: String) async throws -> (ObjectID, RuntimeStart.Reply) {
      let id = ObjectID.random()
      let request = try fixture.request(id, fixture.specification(["sh", "-c", script]))
      return (id, try await fixture.launch(request))
    }

    private func isGone(_ pid: Int32) async throws -> Bool {
      for _ in 0..<5000 {
        let status = (try? Files.readText("/proc/\(pid)/stat")) ?? ""
        if status.isEmpty || status.contains(") Z ") { return true }
        try await Task.sleep(nanoseconds: 1_000_000)
      }
      return false
    }

    @Test func aKilledShimEndsItsContainer() async throws {
      let (id, reply) = try await start("trap '' TERM; sleep 60")
      kill(reply.shimPID, SIGKILL)
      let exit = try await fixture.exits.first { $0.container == id }
      #expect(exit.status.code == 137 && exit.status.reason == "the container's shim was killed")
      #expect(try await isGone(reply.pid))
      #expect(fixture.exits.all.count { $0.container == id } == 1)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test func preparedAndNotStarted() async throws {
      let id = ObjectID.random()
      let call = Call(bus: fixture.bus)
      _ = try await call.request(RuntimePrepare(container: id))
      #expect(call.lease.holding.count == 1)
      #expect(fixture.journal.entries(plugin: "runtime-linux").count == 1)
      await call.lease.release()
      #expect(fixture.journal.entries(plugin: "runtime-linux").isEmpty)
      #expect(fixture.runtimeDirectories.isEmpty)
    }

    @Test func aNewEngineAdopts() async throws {
      let (id, reply) = try await start("sleep 60")
      let second = Bus()
      try fixture.connect(second)
      let adopted = try await second.request(RuntimeAdopt(containers: [id]))
      #expect(adopted == [id: reply.pid])
      // The old connection is cut, which the old engine would take for the shim's death; the new one is served.
      _ = try await second.request(RuntimeSignal(container: id, signal: SIGKILL))
      let exit = try await fixture.exits.first { $0.container == id && $0.status.reason.isEmpty }
      #expect(exit.status.code == 137)
      _ = try await second.request(RuntimeRemove(container: id))
      #expect(try await isGone(reply.shimPID))
    }

    @Test func adoptingWhatIsGone() async throws {
      let id = ObjectID.random()
      #expect(try await fixture.bus.request(RuntimeAdopt(containers: [id])).isEmpty)
      let exit = try await fixture.exits.first { $0.container == id }
      #expect(exit.status.code == 137)
      let other = ObjectID.random()
      let directory = "\(fixture.directory)/run/runtime-linux/\(other.text.prefix(32))"
      try Files.makeDirectories(directory)
      try Files.replace("\(directory)/exit", with: Array("3 1700000000000000000\n".utf8), durable: false)
      _ = try await fixture.bus.request(RuntimeAdopt(containers: [other]))
      let second = try await fixture.exits.first { $0.container == other }
      #expect(second.status == ExitStatus(code: 3, finished: Timestamp(nanoseconds: 1_700_000_000_000_000_000)))
    }

    @Test func checkFindsAndRepairs() async throws {
      let (id, reply) = try await start("sleep 60")
      func check(_ running: [ObjectID], repair: Bool) async throws -> [SystemDifference] {
        try await fixture.bus.request(
          PluginCheck(known: running, running: running, repair: repair), driver: "runtime-linux")
      }
      #expect(try await check([id], repair: false).isEmpty)
      let missing = try await check([id, ObjectID.random()], repair: false)
      #expect(missing.map(\.kind) == [.missing])
      // What an engine before this one left: a directory that no record names, and one whose shim lives on.
      try Files.makeDirectories("\(fixture.directory)/run/runtime-linux/stray")
      let second = Bus()
      try fixture.connect(second)
      let found = try await second.request(
        PluginCheck(known: [], running: [], repair: true), driver: "runtime-linux")
      #expect(found.map(\.kind) == [.leftover, .leftover])
      #expect(try await isGone(reply.pid))
      #expect(fixture.runtimeDirectories.isEmpty)
    }

    @Test func signalsAndRefusals() async throws {
      let (id, _) = try await start("trap 'exit 12' USR1; while true; do sleep 0.01; done")
      let error = await #expect(throws: EngineError.self) {
        _ = try await fixture.bus.request(RuntimeSignal(container: ObjectID.random(), signal: SIGTERM))
      }
      #expect(error?.code == .conflict)
      // Again while the shell has not come to its trap yet.
      for _ in 0..<2000 where fixture.exits.all.isEmpty {
        _ = try? await fixture.bus.request(RuntimeSignal(container: id, signal: SIGUSR1))
        try await Task.sleep(nanoseconds: 2_000_000)
      }
      #expect(try await fixture.exits.first { $0.container == id }.status.code == 12)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }
  }
}
