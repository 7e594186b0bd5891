import Foundation
import Glibc
import Testing

extension EndToEnd {
  @Suite struct Events {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func told(_ arguments: String...) -> [String] {
      fixture.engine(["events", "--since", "10m", "--until", "0s"] + arguments).lines
    }

    @Test func tellsWhatHappened() {
      defer { fixture.end() }
      let id = fixture.succeed(
        "run", "-d", "--name", "box", "--label", "tier=web", "bb", "sh", "-c", "sleep 1000; exit 3")
      fixture.succeed("exec", "box", "true")
      fixture.succeed("pause", "box")
      fixture.succeed("unpause", "box")
      fixture.succeed("rename", "box", "case")
      fixture.succeed("stop", "-t", "0", "case")
      fixture.succeed("rm", "case")
      fixture.succeed("volume", "create", "data")
      fixture.succeed("volume", "rm", "data")
      fixture.succeed("network", "create", "net")
      fixture.succeed("network", "rm", "net")
      let all = told("--format", "{{.Type}} {{.Action}}").filter { $0.hasPrefix("container ") }
      #expect(
        all.map { $0.dropFirst(10) } == [
          "create", "start", "exec_create: true", "exec_start: true", "exec_die", "pause", "unpause", "rename", "kill",
          "kill", "die", "stop", "destroy",
        ])
      let die = told("-f", "event=die")
      #expect(
        die.count == 1
          && die[0].hasSuffix(" container die \(id) (execDuration=0, exitCode=137, image=bb, name=case, tier=web)")
          || die.first?.contains("exitCode=137, image=bb, name=case, tier=web)") == true, "\(die)")
      #expect(told("-f", "type=network", "--format", "{{.Action}}") == ["connect", "disconnect", "create", "destroy"])
      #expect(told("-f", "volume=data", "--format", "{{.Action}} {{.Actor.ID}}") == ["create data", "destroy data"])
      #expect(told("-f", "container=\(id)", "-f", "event=exec_start").count == 1)
      #expect(told("-f", "label=tier=other").isEmpty)
      let json = told("-f", "event=start", "--format", "json").first ?? ""
      #expect(
        json.hasPrefix(#"{"status":"start","id":"\#(id)","from":"bb","Type":"container","Action":"start","#), "\(json)")
      #expect(fixture.engine("events", "-f", "nonsense=1").errors.contains("invalid filter 'nonsense'"))
    }

    @Test func tellsWhatHappens() throws {
      defer { fixture.end() }
      fixture.succeed("ps")
      let client = try BackgroundCommand(fixture, "events", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
      // Until it listens nothing is told to it: something happens again and again.
      let hears = Fixture.eventually {
        _ = fixture.engine("volume", "create", "some")
        _ = fixture.engine("volume", "rm", "some")
        return !client.output.isEmpty
      }
      #expect(hears)
      #expect(fixture.engine("run", "--rm", "--name", "brief", "bb", "sh", "-c", "exit 2").status == 2)
      #expect(Fixture.eventually { client.output.contains("destroy brief\n") })
      let own = client.output.split(separator: "\n").filter { $0.hasSuffix(" brief") }
      #expect(own == ["create brief", "start brief", "die brief", "destroy brief"])
      kill(client.process, SIGKILL)
      #expect(client.status() == 137)
      // One that is over by itself.
      let bounded = fixture.engine("events", "--until", "1s")
      #expect(bounded.status == 0)
    }
  }
}
