import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Clients that come to a container after it was started.
  @Suite struct Attach {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func detach(_ session: TerminalSession) {
      session.type("\u{10}\u{11}")
      #expect(session.status() == 0, "\(session.transcript)")
    }

    @Test func aTerminalIsTakenUpWhereItWasLeft() throws {
      defer { fixture.end() }
      let first = try TerminalSession(fixture, "run", "-it", "--name", "box", "-e", "PS1=box>", "bb", "sh")
      #expect(first.isPrompting("box>"), "\(first.transcript)")
      first.type("left=behind\n")
      #expect(first.shows("box>"), "\(first.transcript)")
      detach(first)
      let second = try TerminalSession(fixture, "attach", "box", rows: 33, columns: 99)
      // Nothing was asked for: the shell draws its prompt anew because the size has changed.
      #expect(second.isPrompting("box>"), "\(second.transcript)")
      // The size comes to rest at the client's own.
      second.type("while [ \"$(stty size)\" != '33 99' ]; do sleep 0.05; done; echo $left again\n")
      #expect(second.shows("\nbehind again\n"), "\(second.transcript)")
      second.type("exit 6\n")
      #expect(second.status() == 6, "\(second.transcript)")
      let third = try TerminalSession(fixture, "start", "-ai", "box")
      third.type("\n")
      #expect(third.shows("box>"), "\(third.transcript)")
      third.type("exit 8\n")
      #expect(third.status() == 8, "\(third.transcript)")
    }

    @Test func oneOfTwoClientsLetsGoAlone() throws {
      defer { fixture.end() }
      let first = try TerminalSession(fixture, "run", "-it", "--name", "box", "-e", "PS1=box>", "bb", "sh")
      #expect(first.isPrompting("box>"), "\(first.transcript)")
      let second = try TerminalSession(fixture, "attach", "box")
      let third = try TerminalSession(fixture, "attach", "--detach-keys", "ctrl-x", "box")
      second.type("echo to $((1+1))\n")
      third.type("\n")
      #expect(first.shows("to 2\n") && second.shows("to 2\n"), "\(first.transcript)")
      #expect(third.shows("box>"), "\(third.transcript)")
      kill(third.process, SIGKILL)
      #expect(third.status() == 137)
      detach(second)
      first.type("exit 5\n")
      #expect(first.status() == 5, "\(first.transcript)")
    }

    @Test func withoutATerminal() throws {
      defer { fixture.end() }
      let line = "trap 'exit 12' TERM; while read x; do echo got $x; echo err $x >&2; done; sleep 1000 & wait"
      fixture.succeed("run", "-d", "-i", "--name", "box", "bb", "sh", "-c", line)
      let pipe = Pipe()
      let client = try BackgroundCommand(fixture, "attach", "box", input: pipe.fileHandleForReading)
      pipe.fileHandleForWriting.write(Data("one\n".utf8))
      #expect(Fixture.eventually { client.output == "got one\n" && client.errors == "err one\n" })
      // The end of this client's input is not the end of the command's, which was not made for one client alone.
      try pipe.fileHandleForWriting.close()
      let second = try BackgroundCommand(fixture, "attach", "--no-stdin", "box")
      let third = Pipe()
      let writer = try BackgroundCommand(fixture, "attach", "box", input: third.fileHandleForReading)
      third.fileHandleForWriting.write(Data("two\n".utf8))
      #expect(Fixture.eventually { client.output == "got one\ngot two\n" })
      #expect(Fixture.eventually { writer.output == "got two\n" })
      kill(second.process, SIGTERM)
      #expect(second.status() == 12)
      #expect(client.status() == 12)
      #expect(writer.status() == 12)
    }

    @Test func theEndOfTheOnlyClientEndsTheInput() throws {
      defer { fixture.end() }
      let pipe = Pipe()
      let client = try BackgroundCommand(
        fixture, "run", "-i", "--name", "box", "bb", "sh", "-c", "echo ready; cat; exit 4",
        input: pipe.fileHandleForReading)
      #expect(Fixture.eventually { client.output == "ready\n" })
      kill(client.process, SIGKILL)
      #expect(client.status() == 137)
      #expect(fixture.succeed("wait", "box") == "4")
    }

    @Test func whatCannotBeAttachedToSaysWhy() {
      defer { fixture.end() }
      fixture.succeed("create", "--name", "box", "-it", "bb", "sh")
      let stopped = fixture.engine("attach", "box")
      #expect(
        stopped.status == 1 && stopped.errors == "You cannot attach to a stopped container, start it first\n",
        "\(stopped)")
      fixture.succeed("start", "box")
      let piped = fixture.engine("attach", "box")
      #expect(piped.status == 1 && piped.errors == "the input device is not a TTY\n", "\(piped)")
      let absent = fixture.engine("attach", "absent")
      #expect(absent.status == 1 && absent.errors.contains("No such container: absent"), "\(absent)")
    }
  }
}
