import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// What is done to containers between their start and their removal.
  @Suite struct Life {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func state(_ name: String) -> String { fixture.engine("inspect", "-f", "{{.State.Status}}", name).text }

    private func fails(
      _ arguments: String..., status: Int32 = 1, words: String, sourceLocation: SourceLocation = #_sourceLocation
    ) {
      let outcome = fixture.engine(arguments)
      #expect(
        outcome.status == status && outcome.errors.contains(words), "\(arguments): \(outcome)",
        sourceLocation: sourceLocation)
    }

    @Test func pausedContainersStandStill() throws {
      defer { fixture.end() }
      let line = "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; done"
      let id = fixture.succeed("run", "-d", "--name", "box", "bb", "sh", "-c", line)
      #expect(fixture.succeed("pause", "box") == "box")
      #expect(state("box") == "paused")
      #expect(fixture.succeed("inspect", "-f", "{{.State.Running}} {{.State.Paused}}", "box") == "true true")
      #expect(fixture.succeed("ps", "--format", "{{.Status}}").hasSuffix("(Paused)"))
      let process = fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")
      let count = { try? String(contentsOfFile: "/proc/\(process)/root/tmp/n", encoding: .utf8) }
      let before = count()
      #expect(before != nil && count() == before)
      fails("pause", "box", words: "Container \(id) is already paused")
      fails("exec", "box", "true", words: "Container \(id) is paused, unpause the container before exec")
      fails("attach", "box", words: "You cannot attach to a paused container, unpause it first")
      fails("start", "box", words: "cannot start a paused container, try unpause instead")
      fails("rm", "box", words: "container is paused and must be unpaused first")
      // A new engine finds it as it is.
      for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
      Fixture.eventually { fixture.processes(named: "engined").isEmpty }
      #expect(state("box") == "paused" && count() == before)
      #expect(fixture.succeed("unpause", "box") == "box")
      #expect(state("box") == "running")
      #expect(Fixture.eventually { count() != before })
      #expect(fixture.succeed("exec", "box", "echo", "moves") == "moves")
      fails("unpause", "box", words: "Container \(id) is not paused")
      // What is to end has to move for it.
      fixture.succeed("pause", "box")
      #expect(fixture.succeed("stop", "-t", "1", "box") == "box")
      #expect(state("box") == "exited")
      fails("pause", "box", words: "container \(id) is not running")
      fixture.succeed("start", "box")
      fixture.succeed("pause", "box")
      #expect(fixture.succeed("kill", "box") == "box")
      #expect(fixture.succeed("wait", "box") == "137")
      fixture.succeed("start", "box")
      fixture.succeed("pause", "box")
      #expect(fixture.succeed("rm", "-f", "box") == "box")
      fails("pause", "absent", words: "No such container: absent")
    }

    @Test func restarts() {
      defer { fixture.end() }
      let line = "trap 'exit 0' TERM; echo begin; while :; do sleep 0.05; done"
      fixture.succeed("run", "-d", "--name", "box", "-p", "8080:80", "-v", "kept:/kept", "bb", "sh", "-c", line)
      let first = fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")
      #expect(fixture.succeed("restart", "box") == "box")
      #expect(state("box") == "running")
      #expect(fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box") != first)
      #expect(fixture.succeed("ps", "--format", "{{.Ports}}") == "0.0.0.0:8080->80/tcp")
      #expect(Fixture.eventually { fixture.engine("logs", "box").output == "begin\nbegin\n" })
      fixture.succeed("stop", "box")
      #expect(fixture.succeed("restart", "-t", "1", "box") == "box")
      #expect(state("box") == "running")
      // One that removes itself stays for its restart, and goes with its end.
      fixture.succeed("run", "-d", "--rm", "--name", "brief", "bb", "sh", "-c", line)
      #expect(fixture.succeed("restart", "brief") == "brief")
      #expect(state("brief") == "running")
      fixture.succeed("stop", "brief")
      #expect(fixture.succeed("ps", "-aq", "-f", "name=brief").isEmpty)
      let several = fixture.engine("restart", "-t", "0", "box", "absent")
      #expect(
        several.status == 1 && several.output == "box\n" && several.errors.contains("No such container: absent"),
        "\(several)")
    }

    @Test func renames() {
      defer { fixture.end() }
      let id = fixture.succeed("run", "-d", "--name", "old", "bb", "sleep", "1000")
      fixture.succeed("create", "--name", "other", "bb", "true")
      #expect(fixture.engine("rename", "old", "new").output.isEmpty)
      #expect(fixture.succeed("inspect", "-f", "{{.Name}} {{.Id}}", "new") == "/new \(id)")
      fails("inspect", "old", words: "old")
      fails("rename", "new", "other", words: "The container name \"/other\" is already in use by container")
      fails("rename", "new", "bad name", words: "Invalid container name (bad name)")
      fails("rename", "new", "new", words: "Renaming a container with the same name as its current name")
      // The old name is free at once, and a new engine knows the new one.
      fixture.succeed("rename", "other", "old")
      for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
      Fixture.eventually { fixture.processes(named: "engined").isEmpty }
      let names = fixture.succeed("ps", "-a", "--format", "{{.Names}}").split(separator: "\n")
      #expect(Set(names) == ["new", "old"])
      #expect(fixture.succeed("exec", "new", "echo", "found") == "found")
    }

    @Test func listsPorts() {
      defer { fixture.end() }
      fixture.succeed(
        "run", "-d", "--name", "box", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "5353:53/udp", "bb", "sleep",
        "9")
      #expect(
        fixture.succeed("port", "box")
          == "53/udp -> 0.0.0.0:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081")
      #expect(fixture.succeed("port", "box", "80") == "0.0.0.0:8080\n127.0.0.1:8081")
      #expect(fixture.succeed("port", "box", "53/udp") == "0.0.0.0:5353")
      fails("port", "box", "81", words: "Error: No public port '81/tcp' published for box")
      fails("port", "box", "x", words: "invalid port: x")
    }

    @Test func showsProcesses() {
      defer { fixture.end() }
      let id = fixture.succeed("run", "-d", "--name", "box", "bb", "sh", "-c", "sleep 1234; true")
      Fixture.eventually { fixture.engine("top", "box").lines.count == 3 }
      let full = fixture.succeed("top", "box").split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
      #expect(full.first == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"])
      let process = fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")
      #expect(full.dropFirst().first.map { [$0[0], $0[1]] } == ["root", process])
      #expect(full.last.map { [$0[2], $0[5]] + $0.suffix(2) } == [process, "?", "sleep", "1234"])
      let chosen = fixture.succeed("top", "box", "-o", "pid,comm").split(separator: "\n")
      #expect(chosen.first?.split(separator: " ") == ["PID", "COMMAND"])
      #expect(chosen.last?.hasSuffix("sleep") == true)
      #expect(fixture.succeed("top", "box", "aux").hasPrefix("USER"))
      fails("top", "box", "--nonsense", words: "--nonsense")
      fixture.succeed("stop", "-t", "0", "box")
      fails("top", "box", words: "container \(id) is not running")
    }

    @Test func showsWhereItsFilesAre() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "--hostname", "here", "bb", "sh", "-c", "echo line; sleep 1000")
      Fixture.eventually { fixture.engine("logs", "box").output == "line\n" }
      func content(_ field: String) -> String {
        let path = fixture.succeed("inspect", "-f", "{{.\(field)}}", "box")
        return (try? String(contentsOfFile: path, encoding: .utf8)) ?? "nothing at \(path)"
      }
      #expect(content("HostnamePath") == "here\n")
      #expect(content("HostsPath") == fixture.engine("exec", "box", "cat", "/etc/hosts").output)
      #expect(content("ResolvConfPath") == fixture.engine("exec", "box", "cat", "/etc/resolv.conf").output)
      #expect(content("LogPath").contains(#""log":"line\n""#))
      fixture.succeed("stop", "-t", "0", "box")
      #expect(fixture.succeed("inspect", "-f", "[{{.HostsPath}}]", "box") == "[]")
    }

    @Test func prunesWhatNobodyUses() {
      defer { fixture.end() }
      fixture.succeed("run", "--name", "done", "--label", "keep=no", "bb", "sh", "-c", "echo 12345 >/file")
      fixture.succeed("run", "--name", "kept", "--label", "keep=yes", "bb", "true")
      fixture.succeed("run", "-d", "--name", "live", "-v", "used:/x", "bb", "sleep", "1000")
      fixture.succeed("volume", "create", "unused")
      fixture.succeed("run", "--name", "temporary", "--label", "keep=no", "-v", "/anonymous", "bb", "true")
      fixture.succeed("network", "create", "empty")
      fixture.succeed("network", "create", "wanted")
      fixture.succeed("run", "-d", "--name", "member", "--network", "wanted", "bb", "sleep", "1000")
      let refusal = fixture.engine(["container", "prune"], input: "n\n")
      #expect(refusal.output.contains("WARNING! This will remove all stopped containers."), "\(refusal)")
      #expect(refusal.output.hasSuffix("Are you sure you want to continue? [y/N] "), "\(refusal)")
      #expect(fixture.succeed("ps", "-aq").split(separator: "\n").count == 5)
      let id = fixture.succeed("inspect", "-f", "{{.Id}}", "done")
      let filtered = fixture.engine(["container", "prune", "--filter", "label=keep=no"], input: "y\n")
      #expect(filtered.output.contains("Deleted Containers:\n") && filtered.output.contains(id), "\(filtered)")
      #expect(filtered.output.hasSuffix("Total reclaimed space: 6B\n"), "\(filtered)")
      #expect(fixture.succeed("ps", "-a", "--format", "{{.Names}}") == "member\nlive\nkept")
      let anonymous = fixture.engine("volume", "prune", "-f")
      #expect(anonymous.output.contains("Deleted Volumes:\n") && !anonymous.output.contains("unused"), "\(anonymous)")
      #expect(fixture.engine("volume", "prune", "-f").output == "Total reclaimed space: 0B\n")
      #expect(fixture.engine("volume", "prune", "-a", "-f").output.contains("Deleted Volumes:\nunused\n"))
      #expect(fixture.succeed("volume", "ls", "-q") == "used")
      #expect(fixture.engine("network", "prune", "-f").output == "Deleted Networks:\nempty\n\n")
      let system = fixture.engine("system", "prune", "-f")
      #expect(system.output.contains("Deleted Containers:\n"), "\(system)")
      #expect(fixture.succeed("ps", "-a", "--format", "{{.Names}}") == "member\nlive")
      #expect(fixture.succeed("images", "--format", "{{.Repository}}") == "bb")
      fixture.succeed("rm", "-f", "member")
      fixture.succeed("network", "rm", "wanted")
    }
  }
}
