import Foundation
import Testing

extension EndToEnd {
  @Suite struct Run {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    @Test func printsAndEndsAsTheCommandDoes() {
      defer { fixture.end() }
      let hello = fixture.engine("run", "--rm", "bb", "echo", "hello", "world")
      #expect(hello.output == "hello world\n" && hello.status == 0, "\(hello)")
      let both = fixture.engine("run", "--rm", "bb", "sh", "-c", "echo out; echo err >&2; exit 3")
      #expect(both.output == "out\n" && both.errors == "err\n" && both.status == 3, "\(both)")
      #expect(fixture.engine("run", "--rm", "bb", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").status == 137)
      #expect(fixture.engine("run", "--rm", "bb", "/bin/absent").status == 127)
      #expect(fixture.engine("run", "--rm", "bb", "absent").status == 127)
      #expect(fixture.engine("run", "--rm", "bb", "/etc").status == 126)
      #expect(fixture.engine("run", "--rm", "bb", "/etc/passwd").status == 126)
      #expect(fixture.engine("run", "--rm", "absent-image", "true").status == 125)
      #expect(fixture.succeed("ps", "-aq").isEmpty)
    }

    @Test func passesInputEnvironmentUserAndDirectory() {
      defer { fixture.end() }
      let input = fixture.engine(["run", "-i", "--rm", "bb", "cat"], input: "through\nand through\n")
      #expect(input.output == "through\nand through\n", "\(input)")
      #expect(
        fixture.succeed("run", "--rm", "-e", "A=1", "-e", "B=two words", "bb", "sh", "-c", "echo $A $B")
          == "1 two words")
      #expect(fixture.succeed("run", "--rm", "-w", "/made/here", "bb", "pwd") == "/made/here")
      #expect(
        fixture.succeed("run", "--rm", "-u", "web", "bb", "sh", "-c", "id -u; id -g; id -G; echo $HOME")
          == "1000\n1001\n1001 2000\n/data")
      #expect(fixture.succeed("run", "--rm", "-u", "5:6", "bb", "sh", "-c", "id -u; id -g") == "5\n6")
      #expect(fixture.succeed("run", "--rm", "--hostname", "box", "bb", "hostname") == "box")
      #expect(fixture.succeed("run", "--rm", "--entrypoint", "echo", "bb", "only", "this") == "only this")
      let unknown = fixture.engine("run", "--rm", "-u", "nobody-here", "bb", "true")
      #expect(unknown.status == 126 || unknown.status == 125)
      #expect(unknown.errors.contains("unable to find user nobody-here"), "\(unknown)")
    }

    @Test func aDetachedContainerLivesUntilItIsStopped() {
      defer { fixture.end() }
      let id = fixture.succeed("run", "-d", "--name", "box", "--init", "bb", "sh", "-c", "echo started; sleep 1000")
      #expect(id.count == 64)
      #expect(fixture.succeed("ps", "--format", "{{.Names}} {{.ID}}") == "box \(id.prefix(12))")
      Fixture.eventually { fixture.engine("logs", "box").output == "started\n" }
      #expect(fixture.succeed("logs", "box") == "started")
      #expect(fixture.succeed("exec", "box", "echo", "inside") == "inside")
      #expect(fixture.engine("exec", "box", "sh", "-c", "exit 5").status == 5)
      #expect(fixture.engine("exec", "box", "absent").status == 127)
      let again = fixture.engine("run", "-d", "--name", "box", "bb", "true")
      #expect(again.status == 125 && again.errors.contains("The container name \"/box\" is already in use"), "\(again)")
      let removal = fixture.engine("rm", "box")
      #expect(removal.status == 1 && removal.errors.contains("running"), "\(removal)")
      #expect(fixture.succeed("inspect", "--format", "{{.State.Status}}", String(id.prefix(6))) == "running")
      #expect(fixture.succeed("stop", "box") == "box")
      #expect(fixture.succeed("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "box") == "exited 143")
      #expect(fixture.succeed("logs", "box") == "started")
      #expect(fixture.succeed("start", "box") == "box")
      #expect(fixture.succeed("inspect", "--format", "{{.State.Running}}", "box") == "true")
      #expect(fixture.succeed("kill", "box") == "box")
      #expect(fixture.succeed("wait", "box") == "137")
      #expect(fixture.succeed("rm", "box") == "box")
      #expect(fixture.engine("inspect", "box").status == 1)
    }

    @Test func aPublishedPortAnswers() throws {
      defer { fixture.end() }
      fixture.succeed(
        "run", "-d", "--name", "web", "--init", "-p", "8080:80", "bb", "httpd", "-f", "-p", "80", "-h", "/data")
      var page = fixture.fetch("http://127.0.0.1:8080/page")
      Fixture.eventually {
        page = fixture.fetch("http://127.0.0.1:8080/page")
        return page.status == 0
      }
      #expect(page.output == "from the image\n", "\(page)")
      let address = fixture.succeed("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")
      #expect(fixture.fetch("http://\(address)/page").output == "from the image\n")
      #expect(fixture.succeed("ps", "--format", "{{.Ports}}") == "0.0.0.0:8080->80/tcp")
      let busy = fixture.engine("run", "-d", "--name", "other", "-p", "8080:80", "bb", "sleep", "1")
      #expect(busy.status == 125 && busy.errors.contains("port is already allocated"), "\(busy)")
      #expect(
        fixture.engine("ps", "-a", "--format", "{{.Names}} {{.Status}}").output.contains("other Created")
          || !fixture.engine("ps", "-a").output.contains("other"))
      // Hairpin: the container reaches its own published port by the host's address on the bridge.
      let gateway = fixture.succeed("inspect", "-f", "{{.NetworkSettings.Gateway}}", "web")
      let hairpin = fixture.engine(["exec", "web"] + Fixture.request(gateway, 8080, "/page"))
      #expect(hairpin.output == "from the image\n", "\(hairpin)")
      fixture.succeed("rm", "-f", "web")
      #expect(fixture.fetch("http://127.0.0.1:8080/page").status != 0)
      // The port is free at once.
      _ = fixture.engine("rm", "-f", "other")
      #expect(fixture.engine("run", "--rm", "-p", "8080:80", "bb", "true").status == 0)
    }

    @Test func dataOnAVolumeIsThereAfterTheContainer() {
      defer { fixture.end() }
      #expect(fixture.succeed("run", "--rm", "-v", "pages:/data", "bb", "cat", "/data/page") == "from the image")
      fixture.succeed("run", "--rm", "-v", "pages:/data", "bb", "sh", "-c", "echo kept >/data/kept")
      #expect(fixture.succeed("run", "--rm", "-v", "pages:/elsewhere:ro", "bb", "cat", "/elsewhere/kept") == "kept")
      #expect(fixture.engine("run", "--rm", "-v", "pages:/data:ro", "bb", "touch", "/data/x").status == 1)
      #expect(fixture.succeed("volume", "ls", "-q") == "pages")
      fixture.succeed("run", "-d", "--name", "user", "-v", "pages:/data", "bb", "sleep", "100")
      let removal = fixture.engine("volume", "rm", "pages")
      #expect(removal.status == 1 && removal.errors.contains("volume is in use"), "\(removal)")
      fixture.succeed("rm", "-f", "user")
      fixture.succeed("volume", "rm", "pages")
      // Anonymous volumes go with --rm.
      fixture.succeed("run", "--rm", "-v", "/data", "bb", "touch", "/data/x")
      #expect(fixture.succeed("volume", "ls", "-q").isEmpty)
    }

    @Test func bindsAndTemporaryFileSystems() throws {
      defer { fixture.end() }
      let shared = "\(fixture.directory)/shared"
      fixture.succeed("run", "--rm", "-v", "\(shared):/x", "bb", "sh", "-c", "echo bound >/x/file")
      #expect(try String(contentsOfFile: "\(shared)/file", encoding: .utf8) == "bound\n")
      let missing = fixture.engine(
        "run", "--rm", "--mount", "type=bind,src=\(fixture.directory)/absent,dst=/x", "bb", "true")
      #expect(missing.status == 125 && missing.errors.contains("bind source path does not exist"), "\(missing)")
      #expect(!FileManager.default.fileExists(atPath: "\(fixture.directory)/absent"))
      let mounted = fixture.succeed(
        "run", "--rm", "--tmpfs", "/scratch:size=1m", "bb", "sh", "-c", "mount | grep /scratch")
      #expect(mounted.contains("tmpfs") && mounted.contains("size=1024k") && mounted.contains("noexec"), "\(mounted)")
      #expect(fixture.engine("run", "--rm", "--read-only", "bb", "touch", "/x").status == 1)
    }
  }
}

/// Drives the built binaries as a user does. The suites run one after the other: each has daemons and containers.
@Suite("End to end", .serialized, .timeLimit(.minutes(10)))
struct EndToEnd {}
