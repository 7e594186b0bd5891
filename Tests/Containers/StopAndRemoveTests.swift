import Contracts
import Glibc
import Kernel
import Synchronization
import Testing

@testable import ContainersPlugin

@Suite struct StopAndRemoveTests {
  @Test func stopsWithTheContainersOwnSignalAndStartsAgain() async throws {
    let world = try await World {
      $0.image.stopSignal = "SIGQUIT"
      $0.deadly = [SIGQUIT]
    }
    let id = try #require(try await world.run("web").id)
    _ = try await world.bus.request(ContainerStop(container: "web", timeout: nil, signal: nil))
    #expect(world.state.withLock { $0.signals } == [SIGQUIT])
    let stopped = try await world.inspect("web")
    #expect(stopped.state.status == .exited && stopped.state.exitCode == 128 + SIGQUIT)
    #expect(stopped.state.wasStoppedByUser)
    #expect(world.made == ["snapshot \(id)", "log \(id)"])
    // A stopped container is stopped already.
    _ = try await world.bus.request(ContainerStop(container: "web", timeout: nil, signal: nil))
    #expect(try await start(world, "web") == nil)
    #expect(try await world.inspect("web").state.status == .running)
    #expect(world.made.contains("network \(id)"))
    // A running one is started already.
    let starts = world.calls.count { $0 == "runtime.start" }
    #expect(try await start(world, "web") == nil)
    #expect(world.calls.count { $0 == "runtime.start" } == starts)
  }

  @Test func killsWhatDoesNotStopInTime() async throws {
    let world = try await World { $0.deadly = [SIGKILL] }
    try await world.run("deaf")
    _ = try await world.bus.request(ContainerStop(container: "deaf", timeout: 0, signal: "INT"))
    #expect(world.state.withLock { $0.signals } == [SIGINT, SIGKILL])
    #expect(try await world.inspect("deaf").state.exitCode == 137)
  }

  @Test func stopsManyTimesAtOnceAndAnswersWaiters() async throws {
    let world = try await World()
    try await world.run("shared")
    try await withThrowingTaskGroup(of: Int32.self) { group in
      for _ in 0..<10 {
        group.addTask {
          _ = try await world.bus.request(ContainerStop(container: "shared", timeout: nil, signal: nil))
          return 143
        }
        group.addTask { try await world.bus.request(ContainerWait(container: "shared")).code }
      }
      for try await code in group { #expect(code == 143) }
    }
    #expect(world.calls.count { $0 == "runtime.remove" } == 1)
  }

  @Test func killsOnlyWhatRuns() async throws {
    let world = try await World()
    let id = try #require(try await world.run("xx").id)
    _ = try await world.bus.request(ContainerKill(container: "xx", signal: "SIGHUP"))
    #expect(try await world.inspect("xx").state.status == .running)
    _ = try await world.bus.request(ContainerKill(container: "xx", signal: ""))
    #expect(try await world.bus.request(ContainerWait(container: "xx")).code == 137)
    let error = await failure { _ = try await world.bus.request(ContainerKill(container: "xx", signal: "KILL")) }
    #expect(error?.code == .conflict)
    #expect(error?.message == "cannot kill container: xx: container \(id) is not running")
    let invalid = await failure { _ = try await world.bus.request(ContainerKill(container: "xx", signal: "NOPE")) }
    #expect(invalid?.message == "Invalid signal: NOPE")
  }

  @Test func removesOnlyWithForceWhatRuns() async throws {
    let world = try await World()
    try await world.run("xx") { $0.mounts = [MountRequest(kind: .volume, source: "", target: "/v")] }
    let error = await failure {
      _ = try await world.bus.request(ContainerRemove(container: "xx", force: false, removesVolumes: false))
    }
    #expect(error?.code == .conflict)
    #expect(
      error?.message
        == "cannot remove container \"/xx\": container is running: stop the container before removing or force remove")
    _ = try await world.bus.request(ContainerRemove(container: "xx", force: true, removesVolumes: false))
    #expect(world.made == [] && world.records == [])
    #expect(world.state.withLock { $0.volumes } == ["anonymous1"])
    try await world.run("xx") { $0.mounts = [MountRequest(kind: .volume, source: "", target: "/v")] }
    _ = try await world.bus.request(ContainerRemove(container: "xx", force: true, removesVolumes: true))
    #expect(world.state.withLock { $0.volumes } == ["anonymous1"])
  }

  @Test(arguments: ["snapshot.remove", "log.remove", "record.write", "volume.remove", "resource.remove"])
  func keepsTheRecordUntilARemovalSucceeds(step: String) async throws {
    let world = try await World { $0.exitsAtOnce = 0 }
    try await world.run("xx", detached: false) {
      $0.mounts = [MountRequest(kind: .volume, source: "", target: "/v")]
    }
    world.fail(step)
    let error = await failure {
      _ = try await world.bus.request(ContainerRemove(container: "xx", force: false, removesVolumes: true))
    }
    #expect(error?.description == "cannot remove container \"/xx\": injected")
    #expect(try await world.inspect("xx").state.status == .dead)
    #expect(await failure { _ = try await start(world, "xx") }?.code == .conflict)
    _ = try await world.bus.request(ContainerRemove(container: "xx", force: false, removesVolumes: true))
    #expect(world.made == [] && world.records == [] && world.state.withLock { $0.volumes } == [])
  }

  @Test(arguments: [
    "runtime.prepare", "network.prepare", "network.attach", "snapshot.mount", "resource.create", "runtime.create",
    "runtime.start",
  ])
  func aFailedStartLeavesTheContainerAsItWas(step: String) async throws {
    let world = try await World()
    let made = try await world.bus.request(
      ContainerCreate(containerName: "xx", configuration: world.configuration()))
    let before = world.made
    world.fail(step, EngineError(.notExecutable, "exec: permission denied"))
    #expect(await failure { _ = try await start(world, "xx") }?.code == .notExecutable)
    #expect(world.made.subtracting(["snapshot \(made.id)"]) == before)
    let record = try await world.inspect("xx")
    #expect(record.state.status == .created && record.state.exitCode == 126)
    #expect(record.state.error == "exec: permission denied")
    #expect(try await start(world, "xx") == nil)
    #expect(try await world.inspect("xx").state.error == "")
  }

  @Test func stopWaitsForAStartUnderWay() async throws {
    let world = try await World { $0.gated = ["runtime.start"] }
    let run = Task(executorPreference: world.bus.executor) { try await world.run("slow") }
    #expect(await world.reachedGate.wait(.seconds(120), by: world.bus.timekeeper) == true)
    let stop = Task { try await world.bus.request(ContainerStop(container: "slow", timeout: nil, signal: nil)) }
    world.gate.resolve(true)
    _ = try await run.value
    _ = try await stop.value
    #expect(try await world.inspect("slow").state.status == .exited)
  }

  @Test func listsNewestFirstAndTellsUsers() async throws {
    let world = try await World()
    try await world.run("one") { $0.mounts = [MountRequest(kind: .volume, source: "data", target: "/d")] }
    try await world.run("two")
    _ = try await world.bus.request(ContainerStop(container: "one", timeout: nil, signal: nil))
    #expect(try await world.bus.request(ContainerList(all: true)).map(\.name) == ["two", "one"])
    #expect(try await world.bus.request(ContainerList(all: false)).map(\.name) == ["two"])
    let users = try await world.bus.request(ContainerUsers(resource: .volume("data")))
    #expect(users.map(\.containerName) == ["one"] && users.map(\.isRunning) == [false])
    #expect(try await world.bus.request(ContainerUsers(resource: .image(World.imageID))).count == 2)
    #expect(try await world.bus.request(ContainerSize(container: "two")) == 42)
  }

  @Test func executesInARunningContainer() async throws {
    let world = try await World()
    let id = try #require(
      try await world.run("xx") {
        $0.environment = ["A=1"]
        $0.user = "1000"
        $0.workingDirectory = "/srv"
        $0.droppedCapabilities = ["NET_RAW"]
      }.id)
    func exec(_ command: [String], detached: Bool = false) async throws -> Contracts.ExitStatus? {
      try await Call(bus: world.bus).stream(
        ContainerExec(
          container: "xx", command: command, environment: ["B=2"], workingDirectory: "", user: "", hasTerminal: false,
          isPrivileged: false, isDetached: detached, streams: StandardStreams())
      ) { (_) async throws(EngineError) in }
    }
    #expect(try await exec(["ls"])?.code == 3)
    #expect(try await exec(["ls"], detached: true) == nil)
    let request = try #require(world.state.withLock { $0.execs.first })
    #expect(request.process.environment == ["HOSTNAME=\(id.short)", "A=1", "PATH=/bin", "B=2"])
    #expect(request.process.user == "1000" && request.process.workingDirectory == "/srv")
    #expect(!request.process.capabilities.contains("CAP_NET_RAW"))
    world.fail("runtime.exec", EngineError(.commandNotFound, "no ls"))
    #expect(await failure { _ = try await exec(["ls"]) }?.code == .commandNotFound)
    #expect(
      await failure {
        _ = try await world.bus.request(ContainerExecSignal(container: "xx", exec: .random(), signal: 2))
      }?.code == .notFound)
    _ = try await world.bus.request(ContainerStop(container: "xx", timeout: nil, signal: nil))
    #expect(await failure { _ = try await exec(["ls"]) }?.message == "container \(id) is not running")
  }

  @Test func passesTheLifeOfTheProcessToLogs() async throws {
    let world = try await World()
    try await world.run("xx")
    func logs() async throws {
      _ = try await Call(bus: world.bus).stream(
        ContainerLogs(
          container: "xx", output: World.descriptor(), error: World.descriptor(), follow: true, tail: 3, since: nil,
          until: nil, timestamps: true)
      ) { (_) async throws(EngineError) in }
    }
    try await logs()
    _ = try await world.bus.request(ContainerStop(container: "xx", timeout: nil, signal: nil))
    try await logs()
    let reads = world.state.withLock { $0.logReads }
    #expect(reads.map { $0.running != nil } == [true, false])
    #expect(reads.allSatisfy { $0.follow && $0.tail == 3 && $0.timestamps })
  }

  private func start(_ world: World, _ name: String) async throws -> Contracts.ExitStatus? {
    let request = ContainerStart(container: name, isAttached: false, streams: StandardStreams())
    return try await Call(bus: world.bus).stream(request) { (_) async throws(EngineError) in }
  }
}
