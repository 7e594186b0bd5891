import Foundation
import Testing

extension EndToEnd {
  /// What a process in a container cannot reach, tried from inside.
  @Suite struct Isolation {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    @Test func theHostsLoopbackIsOutOfReach() throws {
      defer { fixture.end() }
      let server = try Fixture.spawn([
        "nsenter", "-t", try holderProcess(), "-n", "/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:9000", "-h", "/etc",
      ])
      defer {
        kill(server, SIGKILL)
        waitpid(server, nil, 0)
      }
      Fixture.eventually { fixture.fetch("http://127.0.0.1:9000/hostname").status == 0 }
      #expect(fixture.fetch("http://127.0.0.1:9000/hostname").status == 0)
      fixture.succeed("run", "-d", "--name", "box", "-p", "8080:80", "bb", "sleep", "1000")
      let gateway = fixture.succeed("inspect", "-f", "{{.NetworkSettings.Gateway}}", "box")
      for address in ["127.0.0.1", gateway] {
        let attempt = fixture.engine(["exec", "box"] + Fixture.request(address, 9000, "/hostname"))
        #expect(attempt.output.isEmpty, "\(address): \(attempt)")
      }
      // The way that route_localnet opens and the engine's rule closes: a packet for 127.0.0.1 sent to the gateway.
      let line =
        "ip link set lo down; ip route add 127.0.0.1/32 via \(gateway) dev eth0; "
        + (Fixture.request("127.0.0.1", 9000, "/hostname").last ?? "")
      let route = fixture.engine("run", "--rm", "--cap-add", "NET_ADMIN", "bb", "sh", "-c", line)
      #expect(route.output.isEmpty, "\(route)")
    }

    @Test func otherBridgesAreOutOfReach() {
      defer { fixture.end() }
      fixture.succeed("network", "create", "apart")
      fixture.succeed(
        "run", "-d", "--name", "web", "--network", "apart", "bb", "httpd", "-f", "-p", "80", "-h", "/data")
      let inspected = fixture.succeed(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "web")
      Fixture.eventually { fixture.fetch("http://\(inspected)/page").status == 0 }
      #expect(fixture.fetch("http://\(inspected)/page").status == 0)
      let attempt = fixture.engine(["run", "--rm", "bb"] + Fixture.request(inspected, 80, "/page"))
      #expect(attempt.output.isEmpty, "\(attempt)")
      let neighbour = fixture.engine(
        ["run", "--rm", "--network", "apart", "bb"] + Fixture.request(inspected, 80, "/page"))
      #expect(neighbour.output == "from the image\n", "\(neighbour)")
      let removal = fixture.engine("network", "rm", "apart")
      #expect(removal.status == 1 && removal.errors.contains("has active endpoints"), "\(removal)")
      fixture.succeed("rm", "-f", "web")
      fixture.succeed("network", "rm", "apart")
    }

    @Test func noDescriptorOfTheEngineIsInside() {
      defer { fixture.end() }
      // ls has one of its own for the directory it reads.
      let listed = fixture.succeed("run", "--rm", "bb", "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '")
      #expect(listed == "0 1 2 3")
      #expect(
        fixture.succeed("run", "--rm", "bb", "sh", "-c", "ls /proc | grep -c '^[0-9]'; true") == "4"
          || fixture.succeed("run", "--rm", "bb", "sh", "-c", "ls /proc | grep '^[0-9]' | wc -l").count == 1)
      let socket = fixture.engine("run", "--rm", "bb", "ls", "/run/engine")
      #expect(socket.status != 0)
      let mounts = fixture.succeed("run", "--rm", "bb", "cat", "/proc/self/mountinfo")
      #expect(!mounts.contains(fixture.root + "/engine.sock"))
    }

    @Test func whatAContainerMayDoIsWhatDockerAllows() {
      defer { fixture.end() }
      // The 14 default capabilities, in every set but the inheritable and ambient ones.
      let status = fixture.succeed(
        "run", "--rm", "bb", "grep", "-E", "CapEff|CapBnd|Seccomp:|NoNewPrivs", "/proc/self/status")
      #expect(status.contains("CapEff:\t00000000a80425fb"), "\(status)")
      #expect(status.contains("CapBnd:\t00000000a80425fb"), "\(status)")
      #expect(status.contains("Seccomp:\t2"), "\(status)")
      #expect(status.contains("NoNewPrivs:\t0"), "\(status)")
      let strict = fixture.succeed(
        "run", "--rm", "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "bb", "cat", "/proc/self/status")
      #expect(strict.contains("NoNewPrivs:\t1") && strict.contains("CapEff:\t0000000000000000"), "\(strict)")
      #expect(fixture.engine("run", "--rm", "bb", "mount", "-t", "tmpfs", "none", "/tmp").status != 0)
      #expect(fixture.engine("run", "--rm", "bb", "unshare", "-m", "true").status != 0)
      #expect(fixture.engine("run", "--rm", "bb", "sh", "-c", "echo 1 >/proc/sys/kernel/sysrq").status != 0)
      #expect(fixture.succeed("run", "--rm", "bb", "sh", "-c", "cat /proc/kcore 2>/dev/null | wc -c") == "0")
      let host = fixture.engine("run", "--rm", "--privileged", "bb", "mount", "-t", "tmpfs", "none", "/tmp")
      #expect(host.status == 0, "\(host)")
    }

    @Test func aWorkingDirectoryThatLeadsOutIsRefused() {
      defer { fixture.end() }
      for directory in ["/proc/self/fd/7", "/proc/self/fd/8/../../..", "/proc/self/fd/3"] {
        let run = fixture.engine("run", "--rm", "-w", directory, "bb", "sh", "-c", "pwd; ls")
        #expect(run.status != 0, "\(directory): \(run)")
      }
    }

    private func holderProcess() throws -> String {
      // The daemon lives in the fixture's namespaces.
      let daemon = try #require(fixture.processes(named: "engined").first)
      return "\(daemon)"
    }

    /// The process is set up beside its network; what depends on that must not come before it.
    @Test func whatDependsOnTheNetworkWaitsForIt() throws {
      defer { fixture.end() }
      for _ in 0..<5 {
        let control = "net.ipv4.conf.eth0.rp_filter"
        let script = "cat /proc/sys/net/ipv4/conf/eth0/rp_filter; ip -4 addr show eth0; cat /etc/hosts"
        let run = fixture.engine("run", "--rm", "--sysctl", "\(control)=2", "-h", "box", "bb", "sh", "-c", script)
        #expect(run.status == 0 && run.text.hasPrefix("2\n"), "\(run)")
        let address = run.text.split(separator: "\n").first { $0.contains("inet ") }?.split(separator: " ")
          .dropFirst().first?.split(separator: "/").first
        let own = try #require(address)
        #expect(run.text.contains("\n\(own)\tbox"), "\(run)")
      }
      let wrong = fixture.engine("run", "--rm", "--sysctl", "net.ipv4.conf.eth7.rp_filter=2", "bb", "true")
      #expect(wrong.status == 125 && wrong.errors.contains("net.ipv4.conf.eth7.rp_filter"), "\(wrong)")
      #expect(fixture.succeed("ps", "-aq").isEmpty)
    }

    /// More than one message to a shim takes, and all of them are given back.
    @Test func fiveHundredPorts() throws {
      defer { fixture.end() }
      let ports = ["-p", "30000-30499:1000-1499"]
      for _ in 0..<2 {
        let many = fixture.engine(["run", "-d", "--name", "many"] + ports + ["bb", "sleep", "1000"])
        #expect(many.status == 0, "\(many)")
        #expect(fixture.succeed("port", "many").split(separator: "\n").count == 500)
        let taken = fixture.engine("run", "--rm", "-p", "30450:80", "bb", "true")
        #expect(taken.status == 125 && taken.errors.contains("port is already allocated"), "\(taken)")
        fixture.succeed("rm", "-f", "many")
      }
      // They are free when the command has ended, also where the shim serves another container then.
      for _ in 0..<10 {
        let run = fixture.engine(["run", "--rm"] + ports + ["bb", "true"])
        #expect(run.status == 0, "\(run)")
      }
    }
  }
}
