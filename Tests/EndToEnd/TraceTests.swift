import Foundation
import Testing

extension EndToEnd {
  /// What the engine tells of where time goes.
  @Suite("Timings and traces", .timeLimit(.minutes(3)))
  struct TraceTests {
    private struct Document: Decodable {
      var traceEvents: [Event]
    }

    private struct Event: Decodable {
      struct Arguments: Decodable {
        var name: String?
        var span: Int?
        var parent: Int?
        var driver: String?
      }
      var name: String
      var ph: String
      var pid: Int
      var tid: Int
      var ts: Double?
      var dur: Double?
      var args: Arguments

      var begin: Double { ts ?? 0 }
      var end: Double { begin + (dur ?? 0) }
    }

    private func events(_ path: String) throws -> [Event] {
      let data = try #require(FileManager.default.contents(atPath: path))
      return try JSONDecoder().decode(Document.self, from: data).traceEvents
    }

    /// In one lane, spans lie within each other or side by side, and what lies within takes no longer than what it is in.
    private func expectNesting(_ events: [Event], sourceLocation: SourceLocation = #_sourceLocation) {
      let rounding = 0.01
      for lane in Dictionary(grouping: events, by: { "\($0.pid) \($0.tid)" }).values {
        var open: [Event] = []
        var within: [Int: Double] = [:]
        for event in lane.sorted(by: { ($0.begin, -$0.end) < ($1.begin, -$1.end) }) {
          while let top = open.last, top.end <= event.begin + rounding, top.args.span != event.args.parent {
            open.removeLast()
          }
          if let top = open.last {
            #expect(event.end <= top.end + rounding, "\(event) \(top)", sourceLocation: sourceLocation)
            within[top.args.span ?? -1, default: 0] += event.dur ?? 0
            #expect(within[top.args.span ?? -1, default: 0] <= (top.dur ?? 0) + 1, sourceLocation: sourceLocation)
          }
          open.append(event)
        }
      }
    }

    @Test func aTraceShowsEveryProcessOnOneClock() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let file = "\(fixture.directory)/trace.json"
      let run = fixture.engine("run", "--rm", "--trace", file, "bb", "true")
      #expect(run.status == 0, "\(run)")
      let all = try events(file)
      let spans = all.filter { $0.ph == "X" }
      expectNesting(spans)
      let programs = Set(all.filter { $0.name == "process_name" }.compactMap(\.args.name))
      #expect(programs == ["engine", "engined", "engine-shim", "container"])

      func one(_ name: String, tests: (Event) -> Bool = { _ in true }) throws -> Event {
        try #require(spans.first { $0.name == name && tests($0) }, "no \(name)")
      }
      let command = try one("engine run")
      let asked = try one("container.run") { $0.pid == command.pid }
      let answered = try one("container.run") { $0.pid != command.pid }
      let created = try one("runtime.create")
      let started = try one("runtime.start")
      let driver = try one("network.driver.attach")
      #expect(driver.args.driver == "bridge")
      // Each lies within what caused it: across processes too, because they share a clock.
      for (inner, outer) in [
        (asked, command), (answered, asked), (started, answered), (driver, try one("network.attach")),
        (created, answered), (try one("clone3"), answered), (try one("seccomp"), answered),
        (try one("execve"), started),
        (try one("runtime.remove"), answered),
      ] {
        #expect(inner.begin >= outer.begin && inner.end <= outer.end, "\(inner) is not within \(outer)")
      }
      #expect(try one("clone3").begin >= created.begin)
      // The command itself, between its start and what its end brings about.
      let ran = try one("the command")
      #expect(try ran.begin >= one("execve").end - 0.01 && ran.end <= one("runtime.remove").begin)
      let messages = spans.filter { $0.pid == answered.pid && $0.args.parent != nil }
      #expect(messages.count >= 12, "\(messages.map(\.name))")
      #expect(messages.allSatisfy { event in spans.contains { $0.args.span == event.args.parent } })
      // What was recorded below the run that is gone once it was read: nothing of it is in the next one.
      let second = fixture.engine("run", "--rm", "--trace", file, "bb", "true")
      #expect(second.status == 0, "\(second)")
      #expect(try events(file).filter { $0.name == "runtime.start" }.count == 1)
    }

    @Test func execCreateAndStartAreTracedToo() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let file = "\(fixture.directory)/trace.json"
      let rows: [([String], [String])] = [
        (["create", "--trace", file, "--name", "web", "bb", "sleep", "1000"], ["container.create", "record.write"]),
        (["start", "--trace", file, "web"], ["container.start", "runtime.start", "execve"]),
        (["exec", "--trace", file, "web", "true"], ["container.exec", "runtime.exec", "clone3", "execve"]),
      ]
      for (command, names) in rows {
        let outcome = fixture.engine(command)
        #expect(outcome.status == 0, "\(outcome)")
        let spans = try events(file).filter { $0.ph == "X" }
        expectNesting(spans)
        #expect(Set(names).isSubset(of: spans.map(\.name)), "\(spans.map(\.name))")
      }
      // A command that fails leaves a trace too; one whose file cannot be written does nothing.
      let failed = fixture.engine("run", "--rm", "--trace", file, "bb", "no-such-command")
      #expect(failed.status == 127)
      #expect(try events(file).contains { $0.name == "runtime.start" })
      let refused = fixture.engine(
        "run", "--name", "never", "--trace", "\(fixture.directory)/none/trace.json", "bb", "true")
      #expect(refused.status == 125 && refused.errors.contains("the trace cannot be written"), "\(refused)")
      #expect(fixture.engine("inspect", "never").status == 1)
    }

    @Test func timingsHaveTheStepsOfEveryProcess() throws {
      struct Timings: Decodable {
        struct Step: Decodable {
          var Name: String
          var Place: String
          var Start: Int64
          var Duration: Int64
        }
        var Name: String
        var Duration: Int64
        var Steps: [Step]
      }
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      #expect(fixture.engine("run", "-d", "--name", "web", "bb", "sleep", "1000").status == 0)
      #expect(fixture.engine("run", "--rm", "--name", "gone", "bb", "true").status == 0)
      for name in ["web", "gone"] {
        let json = fixture.engine("inspect", "--timings", "--format", "json", name)
        let start = try #require(try JSONDecoder().decode([Timings].self, from: Data(json.output.utf8)).first)
        #expect(start.Name == "/\(name)")
        #expect(Set(start.Steps.map(\.Place)) == ["engine", "shim", "process"])
        #expect(
          Set(["attach network", "mount layers", "clone3", "pivot_root", "seccomp", "execve"])
            .isSubset(of: start.Steps.map(\.Name)))
        #expect(
          start.Steps.allSatisfy { $0.Start >= 0 && $0.Duration >= 0 && $0.Start + $0.Duration <= start.Duration })
        // One after the other in one process, so together they cannot take longer than all of it.
        #expect(start.Steps.filter { $0.Place == "process" }.map(\.Duration).reduce(0, +) <= start.Duration)
      }
      let table = fixture.engine("inspect", "--timings", "web")
      #expect(table.output.contains("process: execve") && table.output.contains("█"), "\(table)")
      #expect(fixture.engine("inspect", "--timings", "nobody").errors.contains("No such container: nobody"))
    }
  }
}
