import Foundation
import Testing

extension EndToEnd {
  /// What idle containers cost beyond their own processes.
  @Suite("Density", .timeLimit(.minutes(3)))
  struct DensityTests {
    /// Kilobytes of PSS (proc_pid_smaps_rollup(5)) of the daemon and of every shim: everything but the payload.
    private func proportionalSize(_ fixture: Fixture) throws -> (kilobytes: Int, shims: Int) {
      let daemon = try #require(fixture.processes(named: "engined").first)
      let shims = Fixture.command(["pgrep", "-P", "\(daemon)", "-f", "^engine-shim [0-9a-f]"]).lines.compactMap {
        pid_t($0)
      }
      var sum = 0
      for process in [daemon] + shims {
        let text = try String(contentsOfFile: "/proc/\(process)/smaps_rollup", encoding: .utf8)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("Pss:") })
        sum += try #require(line.split(separator: " ").dropFirst().first.flatMap { Int($0) })
      }
      return (sum, shims.count)
    }

    @Test func anIdleContainerCostsAtMostAMegabyte() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      var sizes: [(containers: Int, kilobytes: Int)] = []
      var count = 0
      // The first ones pay for what all share: threads, code that was never run before, the bridge.
      for goal in [10, 30] {
        while count < goal {
          let run = fixture.engine("run", "-d", "bb", "sleep", "1000")
          try #require(run.status == 0, "\(run)")
          count += 1
        }
        let size = try proportionalSize(fixture)
        try #require(size.shims == goal)
        sizes.append((goal, size.kilobytes))
      }
      let slope = (sizes[1].kilobytes - sizes[0].kilobytes) / (sizes[1].containers - sizes[0].containers)
      #expect(slope <= 1000, "\(slope) kB a container: \(sizes)")
      // A measurement that sees nothing would pass, too.
      #expect(slope > 10, "\(slope) kB a container: \(sizes)")
    }
  }
}
