import Contracts
import Glibc
import LinuxSystem
import Testing

@testable import EngineBench

@Suite("The order of the benchmarks")
struct ScheduleTests {
  private static func probe(_ lane: Probe.Lane, _ name: String) -> Probe {
    Probe(lane, FigureName(name: name, floor: "")) { _ in 1 }
  }

  @Test("After each pause there is at most one of each kind, and every side of everything comes once a run")
  func bundles() {
    let probes = [
      Self.probe(.processes, "a"), Self.probe(.processes, "b"), Self.probe(.links, "c"), Self.probe(.containers, "d"),
    ]
    for run in 0..<5 {
      let bundles = Schedule.bundles(probes, run: run)
      for bundle in bundles { #expect(Set(bundle.map(\.0.lane)).count == bundle.count) }
      let all = bundles.flatMap { $0 }.map { "\($0.0.figures[0].name) \($0.1)" }
      #expect(all.sorted() == ["a", "b", "c", "d"].flatMap { ["\($0) engine", "\($0) raw"] }.sorted())
      // The large ones share their pause with nobody.
      #expect(bundles.filter { $0.contains { $0.0.lane == .containers } }.allSatisfy { $0.count == 1 })
    }
    #expect(Schedule.bundles(probes, run: 0)[0][0].0.lane != Schedule.bundles(probes, run: 1)[0][0].0.lane)
  }

  @Test("Step and raw are measured in turn, as often as was asked for")
  func turns() async throws {
    var options = try BenchOptions(["--runs=4", "--pause=1"])
    options.isBounded = false
    var order: [Side] = []
    let probe = Probe(.ports, FigureName(name: "x", floor: "")) { side in
      order.append(side)
      return side == .engine ? 20 : 10
    }
    let schedule = Schedule(options: options) { _, _ in }
    let hot = try await schedule.hot([probe])
    #expect(hot["x"]?[.engine] == [20, 20, 20, 20])
    #expect(hot["x"]?[.raw] == [10, 10, 10, 10])
    // Nowhere three of a kind in a row: who comes first changes.
    for index in 2..<order.count { #expect(Set(order[(index - 2)...index]).count == 2) }
    let paused = try await schedule.paused([probe])
    #expect(paused["x"]?[.engine]?.count == 4 && paused["x"]?[.raw]?.count == 4)
  }

  @Test("What fails in the middle is not measured any more, and the others are")
  func failure() async throws {
    var calls = 0
    let failing = Probe(.ports, [FigureName(name: "x", floor: ""), FigureName(name: "y", floor: "")]) { _ in
      calls += 1
      if calls == 9 { throw EngineError(.internalFailure, "no room left") }
      return [1, 2]
    }
    let schedule = Schedule(options: try BenchOptions(["--runs=5", "--pause=1"])) { _, _ in }
    let probes = [failing, Self.probe(.links, "z")]
    let hot = try await schedule.hot(probes)
    let paused = try await schedule.paused(probes)
    #expect(calls == 9)
    #expect(schedule.failures == ["x": "no room left", "y": "no room left"])
    #expect(hot["z"]?[.raw]?.count == 5 && paused["z"]?[.engine]?.count == 5 && paused["x"] == nil)
  }

  @Test(
    "Patterns choose figures",
    arguments: [
      ("", "overlay, 5 layers", true), ("overlay", "overlay, 5 layers", true), ("5 layers", "overlay, 5 layers", true),
      ("over*", "overlay, 5 layers", true), ("*layers", "overlay, 5 layers", true), ("*x", "overlay, 5 layers", false),
      ("namespace", "namespace uts", true), ("network", "container, no network", false),
      ("network", "network namespace, fresh", true), ("ports,exec", "exec", true),
    ])
  func patterns(pattern: String, name: String, isSelected: Bool) throws {
    let options = try BenchOptions(pattern.isEmpty ? [] : ["--only=\(pattern)"])
    let group = try #require(Catalogue.figures.first { $0.figure.name == name }?.group)
    #expect(options.selects(name, group: group) == isSelected)
  }

  @Test(
    "Bad arguments are refused by name",
    arguments: ["--runs=0", "--runs=", "--runs=x", "--pause=0", "--pause=100000", "--nothing", "word"])
  func arguments(argument: String) {
    let error = #expect(throws: EngineError.self) { try BenchOptions([argument]) }
    #expect(error.map { "\($0)".contains(argument.prefix { $0 != "=" }) } == true)
  }

  @Test("Figures have names of their own")
  func names() {
    let names = Catalogue.figures.map(\.figure.name)
    #expect(Set(names).count == names.count)
    // None can be lost without this being changed: the list is what the command promises.
    #expect(names.count == 40)
  }

  @Test("What was set up last is taken down first, once")
  func cleanup() {
    let cleanup = Cleanup()
    var order: [Int] = []
    for number in 1...3 { cleanup.add { order.append(number) } }
    cleanup.run()
    cleanup.run()
    #expect(order == [3, 2, 1])
  }

  @Test("The image's programs run: one ends at once, one waits")
  func programs() throws {
    var template = Array("/tmp/engine-bench-test-XXXXXX".utf8CString)
    let directory = String(cString: try #require(mkdtemp(&template)))
    defer { try? Files.removeTree(directory) }
    let root = try RootFileSystem(at: directory)
    let ends = try Program.spawn("\(root.tree)/bin/true", ["true"], diesWithThread: false)
    #expect(Program.wait(ends) == 0)
    let waits = try Program.spawn("\(root.tree)/bin/wait", ["wait"], diesWithThread: false)
    usleep(20_000)
    #expect(waitpid(waits, nil, WNOHANG) == 0)
    kill(waits, SIGKILL)
    #expect(Program.wait(waits) == 128 + SIGKILL)
  }
}
