import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Processes of the engine die at the worst moment; nothing stays behind.
  @Suite struct Crash {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func killDaemon() {
      let daemons = fixture.processes(named: "engined")
      #expect(daemons.count == 1)
      fixture.killDaemons()
    }

    @Test func containersServeOnWithoutTheDaemon() {
      defer { fixture.end() }
      fixture.succeed(
        "run", "-d", "--name", "web", "--init", "-p", "8080:80", "bb", "httpd", "-f", "-p", "80", "-h", "/data")
      Fixture.eventually { fixture.fetch("http://127.0.0.1:8080/page").status == 0 }
      killDaemon()
      #expect(fixture.fetch("http://127.0.0.1:8080/page").output == "from the image\n")
      #expect(fixture.succeed("ps", "--format", "{{.Names}} {{.Ports}}") == "web 0.0.0.0:8080->80/tcp")
      #expect(fixture.succeed("exec", "web", "echo", "adopted") == "adopted")
      let busy = fixture.engine("run", "--rm", "-p", "8080:80", "bb", "true")
      #expect(busy.errors.contains("port is already allocated"), "\(busy)")
      #expect(fixture.succeed("stop", "web") == "web")
      #expect(fixture.fetch("http://127.0.0.1:8080/page").status != 0)
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}}", "web") == "exited")
    }

    @Test func anExitWhileNoDaemonLivesIsReported() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "short", "bb", "sh", "-c", "sleep 2; exit 7")
      fixture.succeed("run", "-d", "--rm", "--name", "gone", "bb", "sh", "-c", "sleep 2")
      killDaemon()
      // The shim starts a daemon when its container ends; nobody has to type anything.
      Fixture.eventually { !fixture.processes(named: "engined").isEmpty }
      Fixture.eventually { fixture.succeed("ps", "-a", "--format", "{{.Names}}") == "short" }
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "short") == "exited 7")
      #expect(fixture.succeed("ps", "-a", "--format", "{{.Names}}") == "short")
    }

    @Test func aKilledShimIsNoticed() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let process = fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")
      let status = try String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
      let shim = try #require(pid_t(status.split(separator: " ")[3]))
      kill(shim, SIGKILL)
      Fixture.eventually { fixture.engine("inspect", "-f", "{{.State.Status}}", "box").text == "exited" }
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box") == "exited 137")
      #expect(fixture.succeed("inspect", "-f", "{{.State.Error}}", "box").contains("shim"))
      // An orphan's zombie counts as gone: only its new parent can reap it.
      let ended = Fixture.eventually {
        let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
        return status?.contains(") Z ") ?? true
      }
      #expect(ended)
      #expect(fixture.succeed("start", "box") == "box")
    }

    /// A daemon that ends before it has greeted is started anew, a few times; then there is one line that names its log.
    @Test func aDaemonThatDiesAtEachConnectionIsGivenUp() {
      defer { fixture.end() }
      fixture.killDaemons()
      let outcome = fixture.engine(["ps"], environment: ["ENGINE_FAULT": "kernel.connection.accepted"])
      #expect(outcome.status == 1)
      #expect(
        outcome.errors
          == "the engine ended before it answered, 5 times; see /run/engine/\(fixture.runtimeHash)/engined.log\n")
      #expect(fixture.succeed("ps", "-q") == "")
    }
  }
}
