import Contracts
import Testing

@testable import Kernel

@Suite("Bus in process")
struct BusTests {
  @Test func answersByType() async throws {
    let engine = try Engine()
    #expect(try await engine.bus.request(Echo(text: "a")) == Echo(text: "a"))
    await engine.stop()
  }

  @Test func namesAnUnknownMessage() async throws {
    let engine = try Engine()
    await expectError(.unknownMessage, containing: "test.nobody") { try await engine.bus.request(Nobody()) }
    await engine.stop()
  }

  @Test func routesByDriver() async throws {
    let bus = Bus()
    for name in ["red", "blue"] {
      let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "echo-\(name)", role: "echo", driver: name))
      try registrar.answerAsDriver(Echo.self) { (_, _) async throws(EngineError) in Echo(text: name) }
    }
    #expect(try await bus.request(Echo(text: ""), driver: "red").text == "red")
    #expect(try await bus.request(Echo(text: ""), driver: "blue").text == "blue")
    await expectError(.notFound, containing: "there is: blue, red") {
      try await bus.request(Echo(text: ""), driver: "green")
    }
    await expectError(.notFound, containing: "no driver") { try await bus.request(Echo(text: "")) }
    bus.setDefaultDriver("blue", for: [Echo.self])
    #expect(try await bus.request(Echo(text: "")).text == "blue")
  }

  @Test func refusesTwoAnswersToOneMessage() throws {
    let bus = Bus()
    let first = Registrar(bus: bus, manifest: PluginManifest(name: "first", role: "echo"))
    let second = Registrar(bus: bus, manifest: PluginManifest(name: "second", role: "echo"))
    try first.answer(Echo.self) { (request, _) async throws(EngineError) in request }
    #expect(throws: EngineError(.conflict, "the plugins first and second both answer \"test.echo\"")) {
      try second.answer(Echo.self) { (request, _) async throws(EngineError) in request }
    }
  }

  @Test func tellsWhyAStoppedPluginDoesNotAnswer() async throws {
    let engine = try Engine()
    engine.bus.unregister(owner: "test", reason: "it fell over")
    await expectError(.unavailable, containing: "it fell over") { try await engine.bus.request(Echo(text: "")) }
    await engine.stop()
  }

  @Test func streamsInOrder() async throws {
    let engine = try Engine()
    let call = Call(bus: engine.bus)
    let seen = Recorder<Int>()
    let total = try await call.stream(Count(upTo: 100)) { (number) async throws(EngineError) in seen.append(number) }
    #expect(total == 100)
    #expect(seen.values == Array(0..<100))
    await engine.stop()
  }

  @Test func tellsEventsToSubscribersInOrder() async throws {
    let bus = Bus()
    let seen = Recorder<String>()
    bus.subscribe(to: Ping.self) { seen.append("first \($0.number)") }
    let second = bus.subscribe(to: Ping.self) { seen.append("second \($0.number)") }
    await bus.publish(Ping(number: 1))
    bus.unsubscribe(second)
    await bus.publish(Ping(number: 2))
    #expect(seen.values == ["first 1", "second 1", "first 2"])
  }

  @Test func givesBackWhatAFailedRequestAcquiredLastFirst() async throws {
    let bus = Bus()
    let seen = Recorder<String>()
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "test", role: "test"))
    try registrar.answer(Nobody.self) { (_, call) async throws(EngineError) in
      await call.lease.hold("a") { seen.append("a") }
      await call.lease.hold("b") { seen.append("b") }
      throw EngineError(.conflict, "no")
    }
    await expectError(.conflict, containing: "no") { try await bus.request(Nobody()) }
    #expect(seen.values == ["b", "a"])
  }

  @Test func aLeaseThatWasReleasedGivesBackAtOnceAndCannotBeCommitted() async throws {
    let lease = Lease()
    await lease.release()
    let seen = Recorder<String>()
    await lease.hold("late") { seen.append("late") }
    #expect(seen.values == ["late"])
    #expect(throws: EngineError.self) { try lease.commit() }
  }

  @Test func aKeptLeaseOutlivesWhoeverAskedButNotItsOwnFailure() async throws {
    let lease = Lease()
    let seen = Recorder<String>()
    await lease.hold("a") { seen.append("a") }
    try lease.keep()
    await lease.abandon()
    await lease.hold("b") { seen.append("b") }
    #expect(seen.values == [] && lease.holding == ["a", "b"])
    await lease.release()
    #expect(seen.values == ["b", "a"])
    #expect(throws: EngineError.self) { try lease.keep() }

    let other = Lease()
    await other.hold("c") { seen.append("c") }
    await other.abandon()
    #expect(seen.values == ["b", "a", "c"])
  }
}
