import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Namespaces that a container shares with the host or with another container.
  @Suite struct SharedNamespaces {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func own(_ kind: String) -> String { fixture.host(["readlink", "/proc/self/ns/\(kind)"]).text }

    private func inside(_ container: String, _ kind: String) -> String {
      fixture.succeed("exec", container, "readlink", "/proc/1/ns/\(kind)")
    }

    @Test func portsOnTheHostsNetworkAreDiscardedWithAWarning() {
      defer { fixture.end() }
      let warning = "WARNING: Published ports are discarded when using host network mode\n"
      let run = fixture.engine("run", "--rm", "--network", "host", "-p", "8080:80", "bb", "readlink", "/proc/self/ns/net")
      #expect(run.errors == warning && run.text == own("net"), "\(run)")
      let create = fixture.engine("create", "--name", "box", "--network", "host", "-p", "8080:80", "bb", "true")
      #expect(create.errors == warning && create.status == 0, "\(create)")
      let bindings = fixture.succeed("inspect", "-f", "{{json .HostConfig.PortBindings}}", "box")
      #expect(bindings == #"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#)
      #expect(fixture.engine("start", "box").errors.isEmpty)
      #expect(fixture.succeed("inspect", "-f", "{{json .NetworkSettings.Ports}}", "box") == "{}")
      let silent = fixture.engine("run", "--rm", "--network", "host", "bb", "true")
      #expect(silent.errors.isEmpty, "\(silent)")
      fixture.succeed("network", "create", "--internal", "closed")
      let closed = fixture.engine("run", "--rm", "--network", "closed", "-p", "8080:80", "bb", "true")
      #expect(
        closed.status == 0
          && closed.errors == "WARNING: Published ports are discarded when all networks are internal\n", "\(closed)")
      fixture.succeed("network", "rm", "closed")
    }
  }
}
