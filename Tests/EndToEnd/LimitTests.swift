import Foundation
import Testing

extension EndToEnd {
  @Suite struct Limits {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    @Test func memoryKillsWhatTakesMore() {
      defer { fixture.end() }
      // A tmpfs counts against the container's memory and needs no tool that allocates.
      let run = fixture.engine(
        "run", "--name", "hungry", "--memory", "32m", "--memory-swap", "32m", "bb", "sh", "-c",
        "dd if=/dev/zero of=/dev/null bs=64M count=1")
      #expect(run.status == 137, "\(run)")
      #expect(fixture.succeed("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "hungry") == "true 137")
      #expect(fixture.succeed("inspect", "-f", "{{.HostConfig.Memory}}", "hungry") == "33554432")
    }

    @Test func cpusHoldABusyLoop() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "busy", "--cpus", "0.5", "bb", "sh", "-c", "while :; do :; done")
      let id = fixture.succeed("inspect", "-f", "{{.Id}}", "busy")
      let find = "find /sys/fs/cgroup -type d -name '\(id)' 2>/dev/null"
      let paths = Fixture.command(["sh", "-c", find]).lines
      let throttled = Fixture.eventually {
        paths.contains { path in
          let statistics = (try? String(contentsOfFile: "\(path)/cpu.stat", encoding: .utf8)) ?? ""
          let line = statistics.split(separator: "\n").first { $0.hasPrefix("nr_throttled ") }
          return (line?.split(separator: " ").last).flatMap { Int($0) } ?? 0 > 3
        }
      }
      #expect(throttled, "no cgroup of \(paths) was throttled")
      // The quota is half of the period.
      let quota = paths.compactMap { try? String(contentsOfFile: "\($0)/cpu.cfs_quota_us", encoding: .utf8) }
      let maximum = paths.compactMap { try? String(contentsOfFile: "\($0)/cpu.max", encoding: .utf8) }
      #expect(quota.contains("50000\n") || maximum.contains("50000 100000\n"), "\(quota) \(maximum)")
    }

    @Test func pidsStopAForkBomb() {
      defer { fixture.end() }
      let run = fixture.engine(
        "run", "--rm", "--pids-limit", "10", "bb", "sh", "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 1 & done; wait")
      #expect(run.errors.contains("can't fork"), "\(run)")
    }

    @Test(arguments: [
      (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
      (["--memory", "lots"], "lots"),
      (["--cpus", "0.001"], "CPUs"),
      (["--cpus", "1000"], "CPUs"),
      (["--cpus", "x"], "x"),
      (["--cpus", "1", "--cpu-quota", "1000"], "onflicting"),
      (["--cpuset-cpus", "99"], "99"),
      (["--memory", "64m", "--memory-swap", "32m"], "Minimum memoryswap limit"),
    ])
    func refusesALimitThatCannotBe(flags: [String], words: String) {
      defer { fixture.end() }
      let run = fixture.engine(["run", "--rm"] + flags + ["bb", "true"])
      #expect(run.status == 125 && run.errors.contains(words), "\(flags): \(run)")
      #expect(fixture.succeed("ps", "-aq").isEmpty)
    }
  }
}
