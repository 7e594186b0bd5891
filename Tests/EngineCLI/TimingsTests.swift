import Contracts
import Testing

@testable import EngineCLI

@Suite struct TimingsTests {
  private func start() throws -> ContainerTimings.Reply {
    ContainerTimings.Reply(
      id: try #require(Samples.id("a")), containerName: "web", started: Samples.now, begin: 1_000_000,
      end: 5_000_000,
      steps: [
        TimedStep("resolve image", .engine, begin: 1_000_000, end: 2_000_000),
        TimedStep("load", .shim, begin: 2_000_000, end: 3_000_400),
        TimedStep("execve", .process, begin: 4_999_600, end: 5_000_000),
      ])
  }

  @Test func theTableShowsWhereEachStepLay() throws {
    func row(_ step: String, _ start: String, _ took: String, _ gap: Int, _ bar: String) -> String {
      let name = step + String(repeating: " ", count: 22 - step.count)
      return "\(name)\(start) ms   \(took) ms   \(String(repeating: " ", count: gap))\(bar)"
    }
    let ten = String(repeating: "█", count: 10)
    let lines = TimingsText.table(try start()).split(separator: "\n").map(String.init)
    #expect(lines.first == "web (aaaaaaaaaaaa): 4.000 ms from the request until it ran")
    #expect(
      Array(lines.dropFirst(2)) == [
        row("resolve image", "0.000", "1.000", 0, ten), row("  shim: load", "1.000", "1.000", 10, ten),
        row("    process: execve", "4.000", "0.000", 39, "█"),
      ])
  }

  @Test func jsonCountsFromTheRequest() throws {
    let value = TimingsText.value(try start())
    #expect(value["Name"] == .string("/web") && value["Duration"] == .integer(4_000_000))
    guard case .array(let steps) = value["Steps"] else {
      Issue.record("no steps")
      return
    }
    #expect(steps.map { $0["Start"] } == [.integer(0), .integer(1_000_000), .integer(3_999_600)])
    #expect(steps.map { $0["Place"] } == [.string("engine"), .string("shim"), .string("process")])
    #expect(steps.last?["Duration"] == .integer(400))
  }

  @Test(arguments: [(0, "0.000 ms"), (499, "0.000 ms"), (500, "0.001 ms"), (12_345_678, "12.346 ms"), (-3, "0.000 ms")])
  func times(nanoseconds: Int64, expected: String) { #expect(TimingsText.milliseconds(nanoseconds) == expected) }
}
