import Contracts
import Kernel
import Synchronization
import Testing

@testable import ContainersPlugin

@Suite struct RunTests {
  @Test func runsDetachedAndShowsEverything() async throws {
    let world = try await World()
    let run = try await world.run("web") {
      $0.ports = [PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)]
      $0.mounts = [MountRequest(kind: .volume, source: "data", target: "/data")]
    }
    let id = try #require(run.id)
    #expect(run.elements == [.created(id, warnings: []), .created(id, warnings: ["no swap limit"]), .started])
    let record = try await world.inspect("web")
    #expect(record.state.status == .running && record.state.pid > 0)
    #expect(record.endpoints.first?.address == "172.17.0.2")
    #expect(record.publishedPorts.first?.hostPort == 8080)
    #expect(record.cgroupPaths == ["cpu": "/cg"])
    #expect(record.logPath == "/logs/\(id)")
    #expect(record.configuration.hostname == id.short)
    #expect(record.mountPoints.map(\.volume) == ["data"])
    for prefix in [id.text, id.short, String(id.text.prefix(5)), "/web"] {
      #expect(try await world.inspect(prefix).id == id)
    }
    let start = try #require(world.state.withLock { $0.starts.first })
    #expect(start.portReservations.count == 1)
    #expect(start.files["/etc/hosts"]?.contains("172.17.0.2\t\(id.short)\n") == true)
    let create = try #require(world.state.withLock { $0.creates.first })
    #expect(create.specification.generatedFiles["/etc/hosts"]?.isEmpty == true)
    #expect(create.specification.generatedFiles["/etc/hostname"] == "\(id.short)\n")
    #expect(record.generatedPaths?["/etc/hosts"] == "/a/file")
    let timings = try await world.bus.request(ContainerTimings(container: "web"))
    #expect(timings.id == id && timings.containerName == "web" && timings.begin < timings.end)
    #expect(timings.steps.map(\.name).contains("start process"))
    #expect(timings.steps == timings.steps.sorted { $0.begin < $1.begin })
    #expect(timings.steps.allSatisfy { $0.begin >= timings.begin && $0.begin <= $0.end && $0.end <= timings.end })
  }

  @Test func removesEverythingBeforeTheReplyWithRm() async throws {
    let world = try await World { $0.exitsAtOnce = 7 }
    let run = try await world.run("once", detached: false) {
      $0.removesItself = true
      $0.mounts = [
        MountRequest(kind: .volume, source: "", target: "/anonymous"),
        MountRequest(kind: .volume, source: "kept", target: "/named"),
      ]
    }
    #expect(run.status?.code == 7)
    #expect(world.made == [])
    #expect(world.records == [])
    #expect(world.state.withLock { $0.volumes } == ["kept"])
    #expect(world.state.withLock { $0.durabilities }.allSatisfy { $0 == .process })
    #expect(world.calls.last == "record.write")
    // Its record with its state in one, and its end.
    #expect(world.calls.count { $0 == "record.write" } == 2)
    #expect(await failure { _ = try await world.inspect("once") }?.message == "No such container: once")
  }

  @Test func keepsTheRecordOfAnEndedContainer() async throws {
    let world = try await World {
      $0.exitsAtOnce = 137; $0.oomKills = 1
    }
    let run = try await world.run("kept", detached: false)
    #expect(run.status?.code == 137)
    let record = try await world.inspect("kept")
    #expect(record.state.status == .exited && record.state.exitCode == 137 && record.state.wasKilledForMemory)
    #expect(record.state.pid == 0 && record.endpoints.isEmpty)
    let id = try #require(run.id)
    #expect(world.made == ["snapshot \(id)", "log \(id)"])
    #expect(world.state.withLock { $0.durabilities.first } == .power)
  }

  static let steps = [
    "image.resolve", "runtime.prepare", "log.open", "volume.prepare", "record.write",
    "network.prepare", "network.attach", "snapshot.mount", "volume.mount", "resource.create", "runtime.create",
    "runtime.start",
  ]

  @Test(arguments: steps, [false, true])
  func undoesEverythingWhenAStepFails(step: String, removesItself: Bool) async throws {
    let world = try await World()
    world.fail(step, EngineError(.commandNotFound, "exec: \"x\": not found"))
    let error = await failure {
      try await world.run("broken") {
        $0.removesItself = removesItself
        $0.mounts = [MountRequest(kind: .volume, source: "", target: "/v")]
      }
    }
    #expect(error?.code == .commandNotFound)
    #expect(error?.message == "exec: \"x\": not found")
    #expect(world.made == [])
    #expect(world.records == [])
    #expect(world.state.withLock { $0.volumes } == [])
    #expect(try await world.bus.request(ContainerList(all: true)) == [])
    // The name is free again.
    #expect(try await world.run("broken").id != nil)
  }

  @Test func theProcessIsMadeBesideTheNetworkAndWaitsForIt() async throws {
    let world = try await World { $0.gated = ["network.attach"] }
    let run = Task(executorPreference: world.bus.executor) { try await world.run("beside") { $0.removesItself = true } }
    #expect(await world.reachedGate.wait(.seconds(120), by: world.bus.timekeeper) == true)
    #expect(await world.eventually { world.calls.contains("runtime.create") })
    #expect(!world.calls.contains("runtime.start"))
    world.gate.resolve(true)
    _ = try await run.value
    let calls = world.calls
    let start = try #require(calls.firstIndex(of: "runtime.start"))
    // What goes with its process is stored once it runs: an engine that ends before that leaves it to be undone anyway.
    #expect(try #require(calls.firstIndex(of: "record.write")) > start)
  }

  @Test func theProcessIsNotStartedBeforeARecordThatIsToLast() async throws {
    let world = try await World { $0.gated = ["network.attach"] }
    let run = Task(executorPreference: world.bus.executor) { try await world.run("lasting") }
    #expect(await world.reachedGate.wait(.seconds(120), by: world.bus.timekeeper) == true)
    #expect(await world.eventually { world.calls.contains("record.write") })
    world.gate.resolve(true)
    _ = try await run.value
    let calls = world.calls
    let start = try #require(calls.firstIndex(of: "runtime.start"))
    #expect(try #require(calls.firstIndex(of: "record.write")) < start)
    #expect(try #require(calls.lastIndex(of: "record.write")) > start)
  }

  @Test func undoesInReverseOrder() async throws {
    let world = try await World()
    world.fail("runtime.start")
    _ = await failure { try await world.run { $0.mounts = [MountRequest(kind: .tmpfs, source: "", target: "/t")] } }
    let undone = world.calls.drop { $0 != "runtime.start" }.dropFirst()
    // What is acquired side by side is given back in any order, but nothing that the process holds before the process.
    let sides: Set = ["network.detach", "resource.remove"]
    #expect(
      undone.filter { !sides.contains($0) } == [
        "runtime.remove", "volume.unmount", "snapshot.remove", "record.write", "log.remove",
      ])
    #expect(Set(undone).isSuperset(of: sides))
    let order = Array(undone)
    let process = try #require(order.firstIndex(of: "runtime.remove"))
    #expect(try process < #require(order.firstIndex(of: "resource.remove")))
  }

  @Test func undoesWhenTheSecondRecordCannotBeWritten() async throws {
    let world = try await World()
    world.state.withLock { $0.gated = ["runtime.start"] }
    let run = Task(executorPreference: world.bus.executor) { await failure { try await world.run("late") } }
    #expect(await world.reachedGate.wait(.seconds(120), by: world.bus.timekeeper) == true)
    world.fail("record.write")
    world.gate.resolve(true)
    #expect(await run.value?.message == "injected")
    #expect(world.made == [] && world.records == [])
  }

  /// A run that has come to a message, with the lease of its client.
  private func waiting(at step: String) async throws -> (World, Lease, Task<EngineError?, Never>) {
    let world = try await World()
    world.state.withLock { $0.gated = [step] }
    let lease = Lease()
    let run = Task(executorPreference: world.bus.executor) {
      await failure { try await world.run("orphan", lease: lease) }
    }
    #expect(await world.reachedGate.wait(.seconds(120), by: world.bus.timekeeper) == true)
    return (world, lease, run)
  }

  @Test(arguments: [
    "runtime.prepare", "snapshot.mount", "network.prepare", "network.attach", "resource.create", "runtime.create",
  ])
  func undoesWhenTheClientDiesInTheMiddle(step: String) async throws {
    let (world, lease, run) = try await waiting(at: step)
    // In this order: a wait that is cancelled ends, and then the run could be complete before its lease is released.
    await lease.release()
    run.cancel()
    world.gate.resolve(true)
    #expect(await run.value?.code == .cancelled)
    #expect(world.made == [] && world.records == [])
    #expect(try await world.bus.request(ContainerList(all: true)) == [])
  }

  /// A process that comes too late and cannot be removed has a container's name, to be removed by.
  @Test func aProcessThatIsLeftHasAName() async throws {
    let (world, lease, run) = try await waiting(at: "runtime.create")
    await lease.release()
    world.fail("runtime.remove")
    world.gate.resolve(true)
    #expect(await run.value?.code == .cancelled)
    let left = try await world.bus.request(ContainerList(all: true))
    #expect(left.map(\.state.status) == [.dead] && left.first?.state.error.contains("could not be undone") == true)
    #expect(world.made.map { $0.prefix(7) } == ["process"])
    _ = try await world.bus.request(ContainerRemove(container: "orphan", force: false, removesVolumes: true))
    #expect(world.made == [] && world.records == [])
    #expect(try await world.bus.request(ContainerList(all: true)) == [])
  }

  /// What the process does is seen by others, so its start is not taken back.
  @Test func goesOnWhenTheClientDiesWhileTheProcessStarts() async throws {
    let (world, lease, run) = try await waiting(at: "runtime.start")
    await lease.release()
    world.gate.resolve(true)
    _ = await run.value
    #expect(try await world.inspect("orphan").state.status == .running)
  }

  @Test func goesOnWhenTheClientOfAForegroundRunDies() async throws {
    let world = try await World()
    let lease = Lease()
    let run = Task(executorPreference: world.bus.executor) {
      await failure { try await world.run("on", detached: false, lease: lease) }
    }
    #expect(await world.eventually { (try? await world.inspect("on"))?.state.status == .running })
    run.cancel()
    #expect(await run.value?.code == .cancelled)
    await lease.release()
    #expect(try await world.inspect("on").state.status == .running)
    #expect(
      Set(world.made.map { $0.prefix { $0 != " " } })
        == ["shim", "process", "network", "cgroup", "snapshot", "log"])
  }

  @Test func letsGoOnDetach() async throws {
    let world = try await World()
    let run = Task(executorPreference: world.bus.executor) {
      try await world.run("tty", detached: false) { $0.hasTerminal = true }
    }
    #expect(await world.eventually { (try? await world.inspect("tty"))?.state.status == .running })
    let id = try await world.inspect("tty").id
    #expect(
      await world.eventually {
        await world.bus.publish(
          RuntimeDetached(
            container: id, exec: nil, client: world.state.withLock { $0.creates.last?.streams.client ?? 0 }))
        return true
      })
    let result = try await run.value
    #expect(result.status == nil)
    #expect(result.elements.last == .detached)
    #expect(try await world.inspect("tty").state.status == .running)
  }

  @Test func refusesATakenName() async throws {
    let world = try await World()
    let id = try #require(try await world.run("db").id)
    let error = await failure { try await world.run("db") }
    #expect(error?.code == .conflict)
    #expect(
      error?.message
        == "Conflict. The container name \"/db\" is already in use by container \"\(id)\". You have to remove (or "
        + "rename) that container to be able to reuse that name.")
    #expect(world.made.allSatisfy { $0.contains(id.text) })
    #expect(try await world.bus.request(ContainerList(all: true)).map(\.id) == [id])
  }

  @Test func refusesAnUnknownLogDriverAndOpensNoneForNone() async throws {
    let world = try await World()
    let error = await failure { try await world.run { $0.logDriver = "syslog" } }
    #expect(error?.message == "logger: no log driver named 'syslog' is registered")
    try await world.run("quiet") { $0.logDriver = "none" }
    #expect(try await world.inspect("quiet").logPath == "")
    _ = try await world.bus.request(ContainerRemove(container: "quiet", force: true, removesVolumes: false))
    #expect(world.calls.allSatisfy { !$0.hasPrefix("log.") } && world.made == [])
  }

  @Test func runsAHundredAtOnce() async throws {
    let world = try await World { $0.exitsAtOnce = 0 }
    try await withThrowingTaskGroup(of: Int32?.self) { group in
      for _ in 0..<100 {
        group.addTask(executorPreference: world.bus.executor) {
          try await world.run(detached: false) { $0.removesItself = true }.status?.code
        }
      }
      for try await code in group { #expect(code == 0) }
    }
    #expect(world.made == [] && world.records == [])
  }

  @Test func joinsAnothersNetwork() async throws {
    let world = try await World()
    let error = await failure {
      try await world.run {
        $0.networkMode = "container:db"
        $0.ports = [PortBinding(transport: .tcp, hostAddress: "", hostPort: 1, containerPort: 1)]
      }
    }
    #expect(error?.message == "No such container: db")
    let id = try #require(try await world.run("db").id)
    try await world.run("web") { $0.networkMode = "container:db" }
    let create = try #require(world.state.withLock { $0.creates.last })
    #expect(create.networkNamespace == nil)
    #expect(create.specification.namespaces[.network] == .process(try await world.inspect("db").state.pid))
    #expect(create.specification.hostname == id.short)
    let start = try #require(world.state.withLock { $0.starts.last })
    #expect(start.files["/etc/hosts"]?.contains("172.17.0.2\t\(id.short)\n") == true)
    #expect(world.state.withLock { $0.attaches.count } == 1)
    _ = try await world.bus.request(ContainerStop(container: "db", timeout: nil, signal: nil))
    let refused = await failure { try await world.run { $0.networkMode = "container:db" } }
    #expect(refused?.message == "cannot join network of a non running container: \(id)")
    let conflict = await failure {
      try await world.run {
        $0.networkMode = "container:db"
        $0.publishesAllPorts = true
      }
    }
    #expect(conflict?.message == "conflicting options: port publishing and the container type network mode")
  }
}
