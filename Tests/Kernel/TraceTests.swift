import Contracts
import Testing
import Wire

@testable import Kernel

private struct Outer: Request {
  static let name = "test.outer"
  typealias Reply = Int
  var count: Int
}

@Suite struct TraceTests {
  private func nested() throws -> Engine {
    let engine = try Engine()
    let registrar = Registrar(bus: engine.bus, manifest: PluginManifest(name: "outer", role: "test", driver: "far"))
    try registrar.answerAsDriver(Outer.self) { (request, call) async throws(EngineError) in
      for number in 0..<request.count { _ = try await call.request(Echo(text: "", number: number)) }
      _ = try await call.stream(Count(upTo: 3)) { (_) async throws(EngineError) in }
      call.tracePoint?.append([TimedStep("measured", .shim, begin: 1, end: 2)], process: 7, program: "other")
      if request.count == 0 { throw EngineError(.conflict, "nothing to do") }
      return request.count
    }
    try engine.listen()
    return engine
  }

  @Test func recordsEveryMessageBelowTheOneThatCausedIt() async throws {
    let engine = try nested()
    var client = try Client(path: engine.path)
    #expect(try client.request(Outer(count: 2), driver: "far", trace: "one") == 2)
    let spans = engine.bus.traces.take("one")
    #expect(spans.map(\.name) == ["test.outer", "test.echo", "test.echo", "test.count", "measured"])
    #expect(spans.map(\.parent) == [-1, 0, 0, 0, 0])
    #expect(spans.map(\.plugin) == ["outer", "test", "test", "test", ""])
    #expect(spans.map(\.driver) == ["far", "", "", "", ""])
    #expect(spans.map(\.program) == ["engined", "engined", "engined", "engined", "other"])
    let root = try #require(spans.first)
    let end = try #require(root.end)
    for span in spans[1...3] { #expect(span.begin >= root.begin && (span.end ?? .max) <= end) }
    // What was read is gone.
    #expect(engine.bus.traces.take("one") == [])
    await engine.stop()
  }

  @Test func recordsTheErrorThatAMessageEndedWith() async throws {
    let engine = try nested()
    var client = try Client(path: engine.path)
    await expectError(.conflict, containing: "nothing") {
      try client.request(Outer(count: 0), driver: "far", trace: "bad")
    }
    #expect(engine.bus.traces.take("bad").first?.error == "nothing to do")
    await engine.stop()
  }

  @Test func recordsNothingThatIsNotAsked() async throws {
    let engine = try nested()
    var client = try Client(path: engine.path)
    for trace in ["", String(repeating: "x", count: TraceStore.identifierLimit + 1)] {
      _ = try client.request(Outer(count: 1), driver: "far", trace: trace)
      #expect(engine.bus.traces.take(trace) == [])
    }
    await engine.stop()
  }

  @Test func keepsABoundedNumberOfTracesAndOfSpans() {
    let store = TraceStore()
    for number in 0...TraceStore.limit { _ = store.open("trace \(number)") }
    let (first, second) = (store.open("trace 1"), store.open("trace 1"))
    #expect(first === second)
    for _ in 0...Trace.limit { first?.end(first?.begin("x", plugin: "", driver: "", parent: -1)) }
    #expect(store.take("trace 1").count == Trace.limit)
    // Recorded after it was read: nobody would ever read it.
    #expect(first?.begin("late", plugin: "", driver: "", parent: -1) == nil)
    #expect(store.take("trace 0") == [])
  }
}
