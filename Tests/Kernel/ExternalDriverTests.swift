import Contracts
import Foundation
import Glibc
import LinuxSystem
import Testing

@testable import Kernel

/// Drivers of the tests that are programs of their own, in Python.
@Suite("Drivers out of tree", .serialized)
struct ExternalDriverTests {
  static let faulty = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Drivers/faulty-volume").path

  /// An engine's worth of drivers and nothing else.
  final class World {
    let bus = Bus()
    let directory = NSTemporaryDirectory() + "drivers-\(UUID().uuidString.prefix(8))"
    let drivers: ExternalDrivers

    init(_ faults: [String: [String]], deadline: Duration = .seconds(20), engine: [String: ConfigurationValue] = [:])
      throws
    {
      try Files.makeDirectories(directory)
      let instance = Instance(
        root: directory, runtimeDirectory: directory + "/run", hash: "0", isDefault: false, daemonPath: "",
        shimPath: "", version: "test")
      var configuration = EngineConfiguration()
      configuration.engine = ["driver_seconds": .integer(20), "plugin_directories": .list(["plugins"])]
      configuration.engine.merge(engine) { $1 }
      for (name, arguments) in faults {
        var driver = ExternalDriver(name: name, command: [ExternalDriverTests.faulty] + arguments)
        driver.deadline = deadline
        configuration.drivers.append(driver)
      }
      drivers = ExternalDrivers(
        bus: bus, instance: instance, configuration: configuration,
        builtIn: [PluginManifest(name: "taken", role: "volume", driver: "own")])
    }

    func status(_ name: String) -> PluginStatus? { drivers.statuses.first { $0.name == name } }

    func reason(_ name: String) -> String {
      switch status(name)?.state {
      case .failed(let reason), .skipped(let reason): reason
      default: ""
      }
    }

    func create(_ driver: String) async throws -> String {
      try await bus.request(VolumeDriverCreate(volume: "v1", options: [:]), driver: driver).mountpoint
    }

    func end() async {
      await drivers.stop()
      try? Files.removeTree(directory)
    }
  }

  @Test func answersItsRoleAndDiesWithTheEngine() async throws {
    let world = try World(["good": [], "other": []])
    await world.drivers.start()
    let status = try #require(world.status("good"))
    #expect(status.state == .running)
    #expect(status.role == "volume" && status.driver == "good" && status.version == "0")
    #expect(status.restarts == 0)
    let path = try await world.create("good")
    #expect(path == world.directory + "/drivers/good/volumes/v1")
    #expect(world.bus.answered[VolumeDriverMount.name] == ["good", "other"])
    let statistics = world.bus.statistics(owner: "good").first { $0.message == VolumeDriverCreate.name }
    #expect(statistics?.count == 1 && statistics?.measured == 1)
    #expect(kill(status.pid, 0) == 0)
    await world.end()
    #expect(kill(status.pid, 0) != 0)
  }

  /// A driver that fails at any message fails that request in words, goes on or is started again, and no other driver
  /// notices.
  @Test(
    arguments: [
      ("crash", "ended with exit status 7"), ("garbage", "frame"), ("nojson", "JSON"), ("huge", "longer than"),
      ("flood", "answer nothing"),
    ], [VolumeDriverCreate.name, VolumeDriverMount.name, VolumeDriverUnmount.name, VolumeDriverRemove.name])
  func aFaultIsTheRequestsAndTheDriverComesBack(fault: (String, String), message: String) async throws {
    let mark = NSTemporaryDirectory() + "faulty-\(UUID().uuidString)"
    defer { unlink(mark) }
    let world = try World(["bad": [fault.0, message, mark], "good": []])
    await world.drivers.start()
    let container = ObjectID.random()
    var errors: [EngineError] = []
    func ask<R: Request>(_ request: R) async {
      do {
        _ = try await world.bus.request(request, driver: "bad")
      } catch {
        errors.append(error)
      }
      // The next message may come while it is down: then it would fail for that, which is another test.
      await eventually("it runs again") { world.status("bad")?.state == .running }
    }
    await ask(VolumeDriverCreate(volume: "v1", options: [:]))
    await ask(VolumeDriverMount(volume: "v1", container: container, options: [:]))
    await ask(VolumeDriverUnmount(volume: "v1", container: container))
    await ask(VolumeDriverRemove(volume: "v1"))
    #expect(errors.count == 1, "\(errors)")
    let text = errors.first?.description ?? ""
    #expect(text.contains("the driver bad"), "\(text)")
    #expect(text.contains(message), "\(text)")
    #expect(text.contains(fault.1), "\(text)")
    #expect(world.status("bad")?.restarts == 1)
    #expect(world.status("good")?.restarts == 0)
    #expect(try await world.create("good") != "")
    await world.end()
  }

  @Test func anAnswerOfAnotherTypeNamesDriverAndMessage() async throws {
    let world = try World(["bad": ["wrong", VolumeDriverMount.name]])
    await world.drivers.start()
    await expectError(.protocolViolation, containing: "the driver bad answered \"volume.driver.mount\"") {
      try await world.bus.request(
        VolumeDriverMount(volume: "v", container: .random(), options: [:]), driver: "bad")
    }
    #expect(world.status("bad")?.state == .running)
    await world.end()
  }

  @Test func aRefusalKeepsItsCodeAndSaysWhoseItIs() async throws {
    let world = try World(["bad": ["refuse", VolumeDriverCreate.name]])
    await world.drivers.start()
    do {
      _ = try await world.create("bad")
      Issue.record("expected an error")
    } catch let error as EngineError {
      #expect(error.code == .permissionDenied)
      #expect(error.description == "not today: said by the driver bad to \"volume.driver.create\"")
    }
    await world.end()
  }

  @Test func oneThatHangsIsToldByNameAndStartedAgain() async throws {
    let world = try World(["bad": ["hang", VolumeDriverMount.name], "good": []], deadline: .seconds(1))
    await world.drivers.start()
    let mount = VolumeDriverMount(volume: "v", container: .random(), options: [:])
    for _ in 0..<2 {
      await expectError(.deadlineExceeded, containing: "the driver bad did not answer \"volume.driver.mount\"") {
        try await world.bus.request(mount, driver: "bad")
      }
    }
    await eventually("it is started again") { (world.status("bad")?.restarts ?? 0) >= 1 }
    #expect(try await world.create("good") != "")
    await world.end()
  }

  @Test(arguments: [
    (["exit"], "ended with exit status 3; it said: no such luck"), (["role"], "no role \"juggler\""),
    (["version"], "protocol version 99"), (["crash", "plugin.describe"], "exit status 7"),
  ])
  func oneThatCannotStartSaysWhyAndIsTriedAgain(arguments: [String], reason: String) async throws {
    let world = try World(["bad": arguments, "good": []])
    await world.drivers.start()
    await eventually("the reason shows") { world.reason("bad").contains(reason) }
    #expect(world.reason("bad").contains("it is started again within"), "\(world.reason("bad"))")
    await eventually("it is tried again") { (world.status("bad")?.restarts ?? 0) >= 2 }
    #expect(world.status("good")?.state == .running)
    await world.end()
  }

  @Test func requestsFailAtOnceWhileItIsDown() async throws {
    let world = try World(["bad": ["crash", VolumeDriverCreate.name]])
    await world.drivers.start()
    // Each start ends at the same message, so the pauses grow: soon one is met.
    var sawPause = false
    for _ in 0..<200 where !sawPause {
      do {
        _ = try await world.create("bad")
      } catch let error as EngineError {
        #expect(error.code == .unavailable)
        sawPause = error.message.contains("the driver bad is not running: it ended with exit status 7")
      }
    }
    #expect(sawPause)
    await world.end()
  }

  @Test func oneThatDiesAtItsStartIsStartedAgainLessAndLess() async throws {
    let world = try World(["dead": ["exit"]])
    let begun = Timekeeper.clock()
    await world.drivers.start()
    await eventually("four more starts") { (world.status("dead")?.restarts ?? 0) >= 4 }
    // Pauses of 100, 200, 400 and 800 ms; however slow the machine is, they are not shorter.
    #expect(Timekeeper.clock() - begun >= 1_500_000_000)
    await world.end()
  }

  /// Also one whose file has the name of a driver of ours: it must not keep the engine from starting.
  @Test func aDriverThatIsBuiltInIsNotReplacedUnasked() async throws {
    let world = try World(["own": [], "good": []])
    await world.drivers.start()
    #expect(world.bus.answered[VolumeDriverMount.name] == ["good"])
    let reason = world.reason("own")
    #expect(reason.contains("the volume driver own is built in; give this one another name"), "\(reason)")
    #expect(reason.contains("enabled = false in [plugins.taken]"), "\(reason)")
    await world.end()
  }

  @Test func aFloodOnItsStandardErrorHoldsNothingUp() async throws {
    let world = try World(["bad": ["chatter", VolumeDriverCreate.name]])
    await world.drivers.start()
    #expect(try await world.create("bad") != "")
    #expect(world.status("bad")?.restarts == 0)
    await world.end()
  }

  @Test func oneThatSaysNothingDelaysTheStartAndNoMore() async throws {
    let world = try World(["mute": ["silent"], "good": []], engine: ["driver_seconds": .integer(1)])
    await world.drivers.start()
    // On a busy machine it may have been given up by now.
    #expect(world.status("mute")?.state != .running)
    #expect(world.status("good")?.state == .running)
    await world.end()
  }

  @Test func findsDriversInItsDirectoryAlsoLater() async throws {
    let world = try World([:])
    let plugins = world.directory + "/plugins"
    try Files.makeDirectories(plugins)
    try Files.replace(plugins + "/open.py", with: try Files.read(Self.faulty), mode: 0o777, durable: false)
    chmod(plugins + "/open.py", 0o777)
    try Files.replace(plugins + "/taken", with: try Files.read(Self.faulty), mode: 0o755, durable: false)
    try Files.replace(plugins + "/notes.txt", with: [], mode: 0o644, durable: false)
    await world.drivers.start()
    #expect(world.reason("open").contains("can be written by others"))
    #expect(world.reason("taken").contains("built-in plugin"))
    #expect(world.reason("notes").contains("is not executable: chmod +x it"))
    #expect(world.drivers.statuses.count == 3)
    try Files.replace(plugins + "/late.py", with: try Files.read(Self.faulty), mode: 0o755, durable: false)
    await world.bus.publishWanted(VolumeDriverCreate.self, role: "volume", driver: "late")
    #expect(try await world.create("late").hasSuffix("/drivers/late/volumes/v1"))
    await world.end()
  }

  /// What `plugin ls` does: files that are mended are started, files that are deleted are forgotten when they do not run.
  @Test func filesThatChangeAreFoundAtTheNextLook() async throws {
    let world = try World([:])
    let plugins = world.directory + "/plugins"
    try Files.makeDirectories(plugins)
    func put(_ name: String, mode: mode_t) throws {
      try Files.replace(plugins + "/" + name, with: try Files.read(Self.faulty), mode: mode, durable: false)
    }
    try put("mine.py", mode: 0o644)
    try put("gone.py", mode: 0o755)
    try Files.replace(
      plugins + "/dead.sh", with: Array("#!/bin/sh\nexit 3\n".utf8), mode: 0o755, durable: false)
    await world.drivers.start()
    #expect(world.reason("mine").contains("is not executable"))
    chmod(plugins + "/mine.py", 0o755)
    try put("mine.sh", mode: 0o755)
    unlink(plugins + "/gone.py")
    unlink(plugins + "/dead.sh")
    await eventually("it has ended") { world.reason("dead").contains("exit status 3") }
    await world.drivers.look()
    #expect(world.status("mine")?.state == .running)
    #expect(world.reason("mine.sh").contains("the driver mine is \(plugins)/mine.py already"))
    #expect(world.status("dead") == nil)
    // One that runs is not taken from whoever uses it.
    let gone = try #require(world.status("gone"))
    #expect(gone.state == .running)
    #expect(gone.note == "its file is gone, so it is not started again")
    kill(gone.pid, SIGKILL)
    await eventually("it has ended") { world.status("gone")?.state != .running }
    await world.drivers.look()
    #expect(world.status("gone") == nil)
    await expectError(.notFound, containing: "no driver \"gone\" answers") { _ = try await world.create("gone") }
    try put("gone.py", mode: 0o755)
    await world.drivers.look()
    #expect(try await world.create("gone") != "")
    await world.end()
  }

  @Test func aDriverThatCannotBeExecutedIsAReason() async throws {
    let world = try World([:])
    let plugins = world.directory + "/plugins"
    try Files.makeDirectories(plugins)
    try Files.replace(plugins + "/junk", with: [1, 2, 3], mode: 0o755, durable: false)
    await world.drivers.start()
    await eventually("the reason shows") { world.reason("junk").contains("Exec format error") }
    await world.end()
  }
}

@Suite("Watching the bus")
struct WatchingTests {
  @Test func countsEveryCallAndMeasuresSome() async throws {
    let bus = Bus()
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "test", role: "test"))
    try registrar.answer(Echo.self) { (request, _) async throws(EngineError) in
      if request.text == "no" { throw EngineError(.notFound, "no") }
      return request
    }
    for _ in 0..<40 { _ = try await bus.request(Echo(text: "a")) }
    _ = try? await bus.request(Echo(text: "no"))
    let statistics = try #require(bus.statistics(owner: "test").first)
    #expect(statistics.count == 41 && statistics.failures == 1)
    #expect((1...40).contains(statistics.measured))
    #expect(statistics.totalNanoseconds >= statistics.maximumNanoseconds)
  }

  @Test func tellsEachMessageWhileSomebodyWatches() async throws {
    let bus = Bus()
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "test", role: "test"))
    try registrar.answer(Echo.self) { (request, _) async throws(EngineError) in
      if request.text == "no" { throw EngineError(.notFound, "no") }
      return request
    }
    let seen = Recorder<Observation>()
    let number = bus.watch { seen.append($0) }
    for text in ["a", "no", "b"] { _ = try? await bus.request(Echo(text: text)) }
    bus.endWatching(number)
    _ = try await bus.request(Echo(text: "c"))
    #expect(seen.values.compactMap { ($0.request as? Echo)?.text } == ["a", "no", "b"])
    #expect(seen.values.map { $0.error?.code } == [nil, .notFound, nil])
    #expect(seen.values.allSatisfy { $0.plugin == "test" })
    bus.endWatching(number)
    #expect(!bus.isWatched)
  }
}
