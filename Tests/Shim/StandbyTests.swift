import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import LinuxRuntimePlugin

extension RealKernel {
  /// Shims that are started before they are needed.
  @Suite struct StandbyTests {
    private let fixture: RuntimeFixture
    private let plugin: LinuxRuntimePlugin
    private let bus = Bus()

    init() throws {
      fixture = try RuntimeFixture(standby: 2)
      plugin = try fixture.connect(bus)
    }

    private var directories: [String] { fixture.runtimeDirectories }

    /// The PIDs of those that stand by, which `ps` calls so.
    private func standing() -> [Int32] {
      let mine = Set(plugin.standby.processes)
      return mine.filter { pid in
        ((try? Files.readText("/proc/\(pid)/cmdline")) ?? "").hasPrefix("engine-shim\0standby")
      }.sorted()
    }

    private func run() async throws -> (ObjectID, RuntimeStart.Reply) {
      let id = ObjectID.random()
      let reply = try await fixture.launch(
        try fixture.request(id, fixture.specification(["sh", "-c", "exit 5"])), on: bus)
      let exit = try await fixture.exits.first { $0.container == id }
      #expect(exit.status.code == 5)
      return (id, reply)
    }

    @Test func oneIsTakenAndReplaced() async throws {
      try await plugin.start()
      let all = try await eventually {
        let all = standing(); return all.count == 2 ? all : nil
      }
      #expect(directories == ["standby-1", "standby-2"])
      let id = ObjectID.random()
      let reply = try await fixture.launch(
        try fixture.request(id, fixture.specification(["sleep", "60"])), on: bus)
      #expect(all.contains(reply.shimPID))
      #expect(try Files.readText("/proc/\(reply.shimPID)/cmdline") == "engine-shim\0\(id.short)\0")
      _ = try await eventually { standing().count == 2 ? true : nil }
      #expect(directories.filter { !$0.hasPrefix("standby-") } == [String(id.text.prefix(32))])
      let found = try await bus.request(
        PluginCheck(known: [id], running: [id], repair: false), driver: "runtime-linux")
      #expect(found.isEmpty)

      // It is found by its container's name, as any other.
      let second = Bus()
      try fixture.connect(second)
      #expect(try await second.request(RuntimeAdopt(containers: [id])) == [id: reply.pid])
      _ = try await second.request(RuntimeSignal(container: id, signal: SIGKILL))
      _ = try await fixture.exits.first { $0.container == id && $0.status.reason.isEmpty }
      _ = try await second.request(RuntimeRemove(container: id))

      await plugin.stop()
      #expect(standing().isEmpty && directories.isEmpty)
    }

    @Test func deadOnesAreNotTaken() async throws {
      try await plugin.start()
      let all = try await eventually {
        let all = standing(); return all.count == 2 ? all : nil
      }
      for pid in all { kill(pid, SIGKILL) }
      for pid in all { await gone(pid) }
      let (id, reply) = try await run()
      #expect(!all.contains(reply.shimPID))
      _ = try await bus.request(RuntimeRemove(container: id))
      _ = try await eventually { standing().count == 2 ? true : nil }
      await plugin.stop()
      #expect(directories.isEmpty)
    }

    @Test func whatAnotherEngineLeftIsRemoved() async throws {
      try Files.makeDirectories("\(fixture.directory)/run/runtime-linux/standby-7")
      try await plugin.start()
      _ = try await eventually { standing().count == 2 ? true : nil }
      #expect(directories == ["standby-1", "standby-2"])
      await plugin.stop()
    }

    /// Waits until `condition` gives something, at most two minutes.
    private func eventually<Value>(_ condition: () -> Value?) async throws -> Value {
      for _ in 0..<24_000 {
        if let value = condition() { return value }
        try await Task.sleep(nanoseconds: 5_000_000)
      }
      return try #require(condition())
    }
  }
}
