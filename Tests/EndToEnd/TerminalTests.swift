import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Containers in the foreground: the terminal, the keys, the signals and how each of them ends.
  @Suite struct Foreground {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func state(_ name: String) -> String { fixture.engine("inspect", "-f", "{{.State.Status}}", name).text }

    @Test func aShellAtATerminal() throws {
      defer { fixture.end() }
      let session = try TerminalSession(
        fixture, "run", "-it", "--rm", "--name", "box", "-e", "PS1=box>", "bb", "sh", rows: 31, columns: 97)
      #expect(session.isPrompting("box>"), "\(session.transcript)")
      #expect(!session.isCooked)
      session.type("stty size; tty; echo $TERM\n")
      #expect(session.shows("31 97\n/dev/pts/0\nxterm\n"), "\(session.transcript)")
      session.resize(rows: 44, columns: 120)
      // The kernel tells the client, which tells the container: until then the shell says the old size.
      session.type("while [ \"$(stty size)\" != '44 120' ]; do sleep 0.05; done; echo resized\n")
      #expect(session.shows("\nresized\n"), "\(session.transcript)")
      // The terminal's own keys belong to the container.
      session.type("sleep 1000\n")
      #expect(Fixture.eventually { fixture.engine("exec", "box", "pidof", "sleep").status == 0 })
      session.type("\u{3}")
      session.type("echo status=$?\n")
      #expect(session.shows("status=130\n"), "\(session.transcript)")
      session.type("exit 7\n")
      #expect(session.status() == 7)
      #expect(session.isCooked)
      #expect(fixture.succeed("ps", "-aq").isEmpty)
    }

    @Test func endOfInputEndsAShell() throws {
      defer { fixture.end() }
      let session = try TerminalSession(fixture, "run", "-it", "--rm", "-e", "PS1=box>", "bb", "sh")
      #expect(session.isPrompting("box>"), "\(session.transcript)")
      session.type("false\n\u{4}")
      #expect(session.status() == 1, "\(session.transcript)")
    }

    @Test func theDetachKeysLeaveTheContainerRunning() throws {
      defer { fixture.end() }
      let session = try TerminalSession(fixture, "run", "-it", "--name", "box", "-e", "PS1=box>", "bb", "sh")
      #expect(session.isPrompting("box>"), "\(session.transcript)")
      // The first of the two keys alone is passed on once the next one is not the second.
      session.type("echo a\u{10}b\n")
      #expect(session.shows("box>"), "\(session.transcript)")
      session.type("\u{10}\u{11}")
      #expect(session.status() == 0, "\(session.transcript)")
      #expect(session.shows("read escape sequence"), "\(session.transcript)")
      #expect(session.isCooked)
      #expect(state("box") == "running")
      #expect(fixture.succeed("exec", "box", "pidof", "sh").contains("1"))
    }

    @Test func otherDetachKeysMayBeChosen() throws {
      defer { fixture.end() }
      let session = try TerminalSession(
        fixture, "run", "-it", "--name", "box", "--detach-keys", "ctrl-x,x", "-e", "PS1=box>", "bb", "sh")
      #expect(session.isPrompting("box>"), "\(session.transcript)")
      session.type("\u{18}x")
      #expect(session.status() == 0, "\(session.transcript)")
      #expect(state("box") == "running")
      let refused = fixture.engine("run", "--detach-keys", "ctrl-", "bb", "true")
      #expect(refused.status == 125 && refused.errors.contains("detach"), "\(refused)")
    }

    @Test func anExecAtATerminal() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let session = try TerminalSession(fixture, "exec", "-it", "-e", "PS1=box>", "box", "sh", rows: 31, columns: 97)
      #expect(session.isPrompting("box>"), "\(session.transcript)")
      session.type("stty size; tty\n")
      #expect(session.shows("31 97\n/dev/pts/0\n"), "\(session.transcript)")
      session.type("exit 9\n")
      #expect(session.status() == 9)
      let other = try TerminalSession(fixture, "exec", "-it", "-e", "PS1=box>", "box", "sh")
      #expect(other.isPrompting("box>"), "\(other.transcript)")
      other.type("\u{10}\u{11}")
      #expect(other.status() == 0, "\(other.transcript)")
      // The shell that was left goes on beside the container's own command.
      #expect(fixture.succeed("exec", "box", "pidof", "sh").isEmpty == false)
    }

    @Test func aTerminalNeedsOneOnlyForTyping() {
      defer { fixture.end() }
      let typing = fixture.engine("run", "--rm", "-it", "bb", "true")
      #expect(typing.status == 1 && typing.errors == "the input device is not a TTY\n", "\(typing)")
      #expect(fixture.succeed("ps", "-aq").isEmpty)
      let output = fixture.engine("run", "--rm", "-t", "bb", "sh", "-c", "test -t 1 && echo terminal")
      #expect(output.status == 0 && output.output == "terminal\r\n", "\(output)")
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let exec = fixture.engine("exec", "-it", "box", "true")
      #expect(exec.status == 1 && exec.errors == "the input device is not a TTY\n", "\(exec)")
      #expect(fixture.engine("exec", "-t", "box", "tty").output == "/dev/pts/0\r\n")
    }

    @Test(arguments: [(SIGTERM, "TERM"), (SIGINT, "INT"), (SIGUSR1, "USR1"), (SIGHUP, "HUP")])
    func signalsReachTheCommand(number: Int32, name: String) throws {
      defer { fixture.end() }
      let line = "trap 'echo got \(name); exit 3' \(name); echo ready; while :; do sleep 0.1; done"
      let client = try BackgroundCommand(fixture, "run", "--rm", "bb", "sh", "-c", line)
      #expect(Fixture.eventually { client.output == "ready\n" })
      kill(client.process, number)
      #expect(client.status() == 3)
      #expect(client.output == "ready\ngot \(name)\n" && client.errors.isEmpty, "\(client.output) \(client.errors)")
    }

    @Test func signalsReachAnExec() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let line = "trap 'echo got TERM; exit 4' TERM; echo ready; while :; do sleep 0.1; done"
      let client = try BackgroundCommand(fixture, "exec", "box", "sh", "-c", line)
      #expect(Fixture.eventually { client.output == "ready\n" })
      kill(client.process, SIGTERM)
      #expect(client.status() == 4)
      #expect(client.output == "ready\ngot TERM\n")
    }

    @Test func signalsThatAreNotProxiedEndTheClientAlone() throws {
      defer { fixture.end() }
      let client = try TerminalSession(
        fixture, "run", "--sig-proxy=false", "--name", "box", "bb", "sh", "-c", "echo ready; sleep 1000")
      #expect(client.shows("ready\n"))
      kill(client.process, SIGTERM)
      #expect(client.status() == 128 + SIGTERM)
      #expect(state("box") == "running")
    }

    @Test(arguments: [["-it"], ["-i"], []])
    func aKilledClientLeavesTheContainerAndNothingElse(flags: [String]) throws {
      defer { fixture.end() }
      let line = "echo ready; while :; do echo more; sleep 0.01; done"
      let session = try TerminalSession(fixture, ["run", "--name", "box"] + flags + ["bb", "sh", "-c", line])
      #expect(session.shows("ready\n"), "\(session.transcript)")
      kill(session.process, SIGKILL)
      #expect(session.status() == 137)
      #expect(state("box") == "running")
      // The shim has let go of the client's terminal, and the command is not held up by it.
      let shim = try #require(shimOf("box"))
      #expect(Fixture.eventually { !holds(shim, session.terminalPath) })
      func bytesLogged() -> Int { fixture.engine("logs", "box").output.utf8.count }
      let before = bytesLogged()
      #expect(Fixture.eventually { bytesLogged() > before })
      #expect(fixture.succeed("stop", "-t", "0", "box") == "box")
    }

    @Test func aClientThatIsKilledOrGoneStillRemovesWithRM() throws {
      defer { fixture.end() }
      let client = try BackgroundCommand(
        fixture, "run", "--rm", "--name", "box", "bb", "sh", "-c", "echo ready; sleep 1000")
      #expect(Fixture.eventually { client.output == "ready\n" })
      kill(client.process, SIGKILL)
      #expect(client.status() == 137)
      #expect(state("box") == "running")
      #expect(fixture.succeed("stop", "-t", "0", "box") == "box")
      #expect(fixture.succeed("ps", "-aq").isEmpty)
    }

    @Test func inputEndsWhereTheClientsDoes() throws {
      defer { fixture.end() }
      let pipe = Pipe()
      let client = try BackgroundCommand(
        fixture, "run", "-i", "--rm", "bb", "sh", "-c", "cat; echo end", input: pipe.fileHandleForReading)
      pipe.fileHandleForWriting.write(Data("one\n".utf8))
      #expect(Fixture.eventually { client.output == "one\n" })
      pipe.fileHandleForWriting.write(Data("two\n".utf8))
      #expect(Fixture.eventually { client.output == "one\ntwo\n" })
      try pipe.fileHandleForWriting.close()
      #expect(client.status() == 0)
      #expect(client.output == "one\ntwo\nend\n")
      // Without -i nothing is read, and the command's input is at its end at once.
      #expect(fixture.engine(["run", "--rm", "bb", "cat"], input: "unread").output.isEmpty)
    }

    /// The process beside the container's first one.
    private func shimOf(_ name: String) -> pid_t? {
      let process = fixture.succeed("inspect", "-f", "{{.State.Pid}}", name)
      let status = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
      let fields = status.split(separator: " ")
      return fields.count > 3 ? pid_t(fields[3]) : nil
    }

    /// Whether one of a process's descriptors is the file at `path`.
    private func holds(_ process: pid_t, _ path: String) -> Bool {
      var wanted = stat()
      guard stat(path, &wanted) == 0 else { return false }
      let directory = "/proc/\(process)/fd"
      let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
      return names.contains { name in
        var found = stat()
        return stat("\(directory)/\(name)", &found) == 0 && found.st_dev == wanted.st_dev
          && found.st_ino == wanted.st_ino
      }
    }
  }
}
