import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// What the engine does with containers by itself, and what can be changed of them and seen.
  @Suite struct Policies {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func inspect(_ name: String, _ field: String) -> String {
      fixture.engine("inspect", "-f", "{{\(field)}}", name).text
    }

    @Test func bringsBackWhatEnds() {
      defer { fixture.end() }
      let id = fixture.succeed(
        "run", "-d", "--name", "box", "--restart", "always", "-p", "8080:80", "-v", "kept:/kept", "bb", "sh", "-c",
        "echo run >>/kept/runs; exit 3")
      let runs = {
        fixture.engine("run", "--rm", "-v", "kept:/kept", "bb", "sh", "-c", "wc -l </kept/runs").text
      }
      #expect(Fixture.eventually { Int(inspect("box", ".RestartCount")) ?? 0 >= 3 })
      #expect(Int(runs()) ?? 0 >= 3)
      #expect(inspect("box", ".HostConfig.RestartPolicy.Name") == "always")
      // Between two runs it says so, counts as running, and can be neither removed nor entered.
      #expect(Fixture.eventually { inspect("box", ".State.Status") == "restarting" })
      #expect(inspect("box", ".State.Restarting") == "true")
      #expect(
        Fixture.eventually {
          fixture.engine("ps", "--format", "{{.Status}}").output.hasPrefix("Restarting (3) ")
        })
      #expect(
        Fixture.eventually {
          fixture.engine("exec", "box", "true").errors.contains(
            "Container \(id) is restarting, wait until the container is running")
        })
      #expect(fixture.engine("rm", "box").status == 1)
      // A stop is for good.
      #expect(fixture.succeed("stop", "box") == "box")
      #expect(inspect("box", ".State.Status") == "exited")
      let count = runs()
      usleep(700_000)
      #expect(inspect("box", ".State.Status") == "exited" && runs() == count)
      fixture.succeed("start", "box")
      #expect(Fixture.eventually { Int(inspect("box", ".RestartCount")) ?? 0 >= 1 })
      #expect(fixture.succeed("rm", "-f", "box") == "box")
    }

    @Test func countsFailuresAndLeavesSuccessAlone() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "bad", "--restart", "on-failure:2", "bb", "sh", "-c", "exit 7")
      fixture.succeed("run", "-d", "--name", "good", "--restart", "on-failure", "bb", "true")
      #expect(Fixture.eventually { inspect("bad", ".RestartCount") == "2" })
      #expect(Fixture.eventually { inspect("bad", ".State.Status") == "exited" })
      #expect(inspect("bad", ".State.ExitCode") == "7")
      #expect(Fixture.eventually { inspect("good", ".State.Status") == "exited" })
      #expect(inspect("good", ".RestartCount") == "0")
      // In the foreground the first end is the client's.
      let client = fixture.engine("run", "--name", "seen", "--restart", "on-failure:1", "bb", "sh", "-c", "exit 4")
      #expect(client.status == 4, "\(client)")
      #expect(Fixture.eventually { inspect("seen", ".RestartCount") == "1" })
      let refused = fixture.engine("run", "--rm", "--restart", "always", "bb", "true")
      #expect(refused.status == 125 && refused.errors.contains("conflicting options"), "\(refused)")
    }

    @Test func aKilledEngineGoesOnWithIt() {
      defer { fixture.end() }
      func killDaemon() {
        for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
        Fixture.eventually { fixture.processes(named: "engined").isEmpty }
      }
      fixture.succeed("run", "-d", "--name", "box", "--restart", "unless-stopped", "bb", "sleep", "1000")
      killDaemon()
      // It dies while no engine lives; its shim starts one.
      let process = Fixture.command(["pgrep", "-f", "^sleep 1000$"]).lines
      #expect(!process.isEmpty)
      let own = inspect("box", ".State.Pid")
      killDaemon()
      if let number = pid_t(own) { kill(number, SIGKILL) }
      #expect(
        Fixture.eventually { inspect("box", ".RestartCount") == "1" && inspect("box", ".State.Running") == "true" })
      // One that waits for its restart when the engine dies.
      fixture.succeed("run", "-d", "--name", "fails", "--restart", "always", "bb", "false")
      #expect(Fixture.eventually { inspect("fails", ".State.Status") == "restarting" })
      let count = Int(inspect("fails", ".RestartCount")) ?? 0
      killDaemon()
      #expect(Fixture.eventually { Int(inspect("fails", ".RestartCount")) ?? 0 > count })
      fixture.succeed("rm", "-f", "fails", "box")
    }

    @Test func updatesWhatRuns() {
      defer { fixture.end() }
      let id = fixture.succeed("run", "-d", "--name", "box", "-m", "64m", "bb", "sleep", "1000")
      #expect(
        fixture.succeed("update", "--cpus", "0.5", "-m", "100m", "--restart", "on-failure:3", "box") == "box")
      #expect(
        inspect("box", ".HostConfig.Memory") == "104857600" && inspect("box", ".HostConfig.NanoCpus") == "500000000")
      #expect(inspect("box", ".HostConfig.MemorySwap") == "134217728")
      #expect(inspect("box", "json .HostConfig.RestartPolicy") == #"{"Name":"on-failure","MaximumRetryCount":3}"#)
      let find = "cat $(find /sys/fs/cgroup -path '*\(id)/*' \\( -name cpu.cfs_quota_us -o -name cpu.max \\))"
      let quota = fixture.host(["sh", "-c", find]).output
      #expect(quota == "50000\n" || quota == "50000 100000\n", "\(quota)")
      let limit = "cat $(find /sys/fs/cgroup -path '*\(id)/*' \\( -name memory.limit_in_bytes -o -name memory.max \\))"
      #expect(fixture.host(["sh", "-c", limit]).output == "104857600\n")
      // It holds for the next start too, and for a new engine.
      for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
      Fixture.eventually { fixture.processes(named: "engined").isEmpty }
      fixture.succeed("restart", "-t", "0", "box")
      #expect(fixture.host(["sh", "-c", limit]).output == "104857600\n")
      for (flags, words) in [
        (["--cpu-period", "50000"], "CPU Period cannot be updated as NanoCPUs has already been set"),
        (["-m", "1m"], "Minimum memory limit allowed is 6MB"), ([], "you must provide one or more flags"),
        (["--restart", "never"], "unknown policy 'never'"),
      ] {
        let update = fixture.engine(["update"] + flags + ["box"])
        #expect(update.status != 0 && update.errors.contains(words), "\(flags): \(update)")
      }
      #expect(fixture.engine("update", "-m", "64m", "absent").errors.contains("No such container: absent"))
    }

    @Test func showsWhatIsUsed() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "busy", "-m", "64m", "bb", "sh", "-c", "while :; do :; done")
      fixture.succeed("run", "-d", "--name", "idle", "bb", "sleep", "1000")
      fixture.succeed("create", "--name", "made", "bb", "true")
      let lines = fixture.succeed("stats", "--no-stream").split(separator: "\n")
      #expect(lines.count == 3 && lines[0].hasPrefix("CONTAINER ID   NAME      CPU %"), "\(lines)")
      let text = fixture.succeed(
        "stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}", "busy")
      let words = text.split(separator: " ")
      #expect(words.count == 6 && words[0] == "busy" && words[4] == "64MiB" && words[5] == "1", "\(text)")
      #expect(words.count > 1 && Double(words[1].dropLast()) ?? 0 > 1, "\(text)")
      let traffic = fixture.succeed("stats", "--no-stream", "--format", "{{.NetIO}}", "busy")
      #expect(traffic.contains("B / "), "\(traffic)")
      #expect(fixture.succeed("stats", "-a", "--no-stream", "--format", "{{.Name}}").contains("made"))
      #expect(fixture.engine("stats", "--no-stream", "absent").errors.contains("No such container: absent"))
    }

    @Test func showsWhatIsDifferent() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "quiet", "bb", "sleep", "1000")
      #expect(fixture.succeed("diff", "quiet").isEmpty)
      let line = "echo x >>/data/page; rm /etc/group; mkdir -p /new/deep; echo y >/new/deep/file; chmod 700 /tmp"
      fixture.succeed("run", "--name", "box", "bb", "sh", "-c", line)
      let expected = """
        C /data
        C /data/page
        C /etc
        D /etc/group
        A /new
        A /new/deep
        A /new/deep/file
        C /tmp
        """
      #expect(fixture.succeed("diff", "box") == expected)
      // A directory that was removed and made anew: what it had is told by what it has.
      fixture.succeed("run", "--name", "anew", "bb", "sh", "-c", "rm -r /data; mkdir /data; echo z >/data/other")
      #expect(fixture.succeed("diff", "anew").contains("A /data/other"))
      #expect(fixture.engine("diff", "absent").errors.contains("No such container: absent"))
    }
  }
}
