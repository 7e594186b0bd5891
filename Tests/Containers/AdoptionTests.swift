import Contracts
import Kernel
import Synchronization
import Testing
import Wire

@testable import ContainersPlugin

@Suite struct AdoptionTests {
  /// The records of a container as a former engine left them.
  private func stored(
    _ name: String, phase: StoredState.Phase?, isRun: Bool = false, removesItself: Bool = false
  ) throws -> (id: ObjectID, records: [Record]) {
    var configuration = ContainerConfiguration(image: "busybox")
    configuration.removesItself = removesItself
    var record = ContainerRecord(
      id: .random(), name: name, created: .now, configuration: configuration, imageID: World.imageID,
      layers: [World.layer], path: "true", arguments: [], environment: [], workingDirectory: "/", user: "",
      exposedPorts: [], stopSignal: "", imageLabels: [:], mounts: [], mountPoints: [],
      log: LogOpen.Reply(path: "/l", maximumSize: 0, maximumFiles: 0))
    func text(_ value: some Encodable) throws -> String { String(decoding: try JSON.encode(value), as: UTF8.self) }
    var records = [
      Record(
        kind: "container", key: record.id.text, value: try text(StoredContainer(record: record, isRun: isRun)))
    ]
    if let phase {
      record.state.status = phase == .running ? .running : .exited
      record.state.pid = phase == .running ? 1 : 0
      records.append(
        Record(kind: "container-state", key: record.id.text, value: try text(StoredState(phase, record))))
    }
    return (record.id, records)
  }

  @Test func takesOverWhatRuns() async throws {
    let (id, records) = try stored("web", phase: .running)
    let world = try await World(records: records) { $0.adopted = [id: 1] }
    let record = try await world.inspect("web")
    #expect(record.state.status == .running && record.state.pid == 1)
    _ = try await world.bus.request(ContainerStop(container: "web", timeout: nil, signal: nil))
    #expect(try await world.inspect("web").state.status == .exited)
    let check = try #require(world.state.withLock { $0.checks.first })
    #expect(check.check.known == [id] && check.check.running == [id] && check.check.repair)
  }

  @Test func handlesWhatEndedMeanwhile() async throws {
    let (kept, first) = try stored("kept", phase: .running)
    let (gone, second) = try stored("gone", phase: .running, removesItself: true)
    let world = try await World(records: first + second) {
      $0.adoptionEnds = [
        kept: .init(code: 3, finished: .now), gone: .init(code: 0, finished: .now),
      ]
      $0.made = ["network \(kept)", "cgroup \(gone)", "snapshot \(gone)"]
    }
    #expect(try await world.bus.request(ContainerList(all: true)).map(\.name) == ["kept"])
    #expect(try await world.inspect("kept").state.exitCode == 3)
    #expect(world.made == [])
  }

  @Test func handlesAReboot() async throws {
    let (_, first) = try stored("kept", phase: .running)
    let (_, second) = try stored("gone", phase: .running, removesItself: true)
    let world = try await World(records: first + second)
    #expect(try await world.bus.request(ContainerList(all: true)).map(\.name) == ["kept"])
    let state = try await world.inspect("kept").state
    #expect(state.status == .exited && state.exitCode == 255 && !state.error.isEmpty)
  }

  @Test func undoesInterruptedRunsAndCompletesRemovals() async throws {
    let (run, first) = try stored("run", phase: nil, isRun: true)
    let (created, second) = try stored("created", phase: nil)
    let (removing, third) = try stored("removing", phase: .removing)
    let (starting, fourth) = try stored("starting", phase: .starting)
    let world = try await World(records: first + second + third + fourth) {
      $0.adopted = [run: 1, starting: 1]
      $0.made = [
        "process \(run)", "snapshot \(run)", "snapshot \(removing)", "process \(starting)", "snapshot \(starting)",
        "log \(created)",
      ]
    }
    #expect(world.made == ["snapshot \(starting)", "log \(created)"])
    #expect(
      Set(try await world.bus.request(ContainerList(all: true)).map(\.name)) == ["created", "starting"])
    #expect(try await world.inspect("starting").state.status == .exited)
    #expect(Set(world.records.map(\.key)) == [created.text, starting.text])
  }

  @Test func saysLoudlyWhatDoesNotRead() async throws {
    let (id, records) = try stored("good", phase: .stopped)
    let bad = ObjectID.random()
    let world = try await World(
      records: records + [
        Record(kind: "container", key: bad.text, value: "{\"record\":"),
        Record(kind: "container-state", key: ObjectID.random().text, value: "{}"),
      ])
    #expect(try await world.bus.request(ContainerList(all: true)).map(\.id) == [id])
    let differences = try await world.bus.request(SystemCheck(repair: false))
    let own = differences.filter { $0.plugin == "containers" }
    #expect(own.contains { $0.object.contains("container/\(bad)") && $0.object.contains("corrupt") })
    #expect(own.count == 2)
    // Nothing that does not read is deleted.
    #expect(world.records.count == 4)
  }

  @Test func asksEveryPluginInTheOrderOfRepair() async throws {
    let world = try await World()
    let id = try #require(try await world.run("xx").id)
    world.state.withLock { $0.checks = [] }
    let differences = try await world.bus.request(SystemCheck(repair: true))
    #expect(differences == [SystemDifference(kind: .draining, plugin: "zeta", object: "link z")])
    let checks = world.state.withLock { $0.checks }
    #expect(checks.map(\.plugin) == ["runtime-fake", "network-fake", "zeta"])
    #expect(checks.allSatisfy { $0.check.known == [id] && $0.check.running == [id] && $0.check.repair })
  }
}
