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
      fixture.succeed("exec", container, "readlink", "/proc/self/ns/\(kind)")
    }

    @Test func portsOnTheHostsNetworkAreDiscardedWithAWarning() {
      defer { fixture.end() }
      let warning = "WARNING: Published ports are discarded when using host network mode\n"
      let run = fixture.engine(
        "run", "--rm", "--network", "host", "-p", "8080:80", "bb", "readlink", "/proc/self/ns/net")
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

    @Test func anotherContainersNetwork() throws {
      defer { fixture.end() }
      fixture.succeed(
        "run", "-d", "--name", "web", "--hostname", "server", "--add-host", "friend:10.1.2.3", "bb", "httpd", "-f",
        "-p",
        "80", "-h", "/data")
      let address = fixture.succeed("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")
      Fixture.eventually { fixture.fetch("http://\(address)/page").status == 0 }
      fixture.succeed("run", "-d", "--name", "side", "--network", "container:web", "bb", "sleep", "1000")
      // One that shares what is shared already.
      let page = fixture.engine(
        ["run", "--rm", "--network", "container:side", "bb"] + Fixture.request("127.0.0.1", 80, "/page"))
      #expect(page.output == "from the image\n", "\(page)")
      #expect(inside("side", "net") == inside("web", "net"))
      #expect(inside("side", "pid") != inside("web", "pid"))
      #expect(fixture.succeed("exec", "side", "hostname") == "server")
      #expect(
        fixture.succeed("exec", "side", "cat", "/etc/hosts") == fixture.succeed("exec", "web", "cat", "/etc/hosts"))
      let web = fixture.succeed("inspect", "-f", "{{.Id}}", "web")
      #expect(fixture.succeed("inspect", "-f", "{{.HostConfig.NetworkMode}}", "side") == "container:\(web)")
      for (flags, words) in [
        (["-p", "80:80"], "conflicting options: port publishing and the container type network mode"),
        (["-h", "x"], "conflicting options: hostname and the network mode"),
        (["--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
        (["--add-host", "x:1.1.1.1"], "conflicting options: custom host-to-IP mapping and the network mode"),
        (["--expose", "80"], "conflicting options: port exposing and the container type network mode"),
      ] {
        let run = fixture.engine(["run", "--rm", "--network", "container:web"] + flags + ["bb", "true"])
        #expect(run.status == 125 && run.errors.contains(words), "\(flags): \(run)")
      }
      fixture.succeed("stop", "-t", "0", "web")
      let late = fixture.engine("run", "--rm", "--network", "container:web", "bb", "true")
      #expect(
        late.status == 125 && late.errors.contains("cannot join network of a non running container: \(web)"), "\(late)")
      let absent = fixture.engine("run", "--rm", "--network", "container:absent", "bb", "true")
      #expect(absent.status == 125 && absent.errors.contains("No such container: absent"), "\(absent)")
    }

    @Test func anotherContainersProcesses() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1234")
      let seen = fixture.succeed("run", "--rm", "--pid", "container:box", "bb", "ps")
      #expect(seen.contains("sleep 1234"), "\(seen)")
      fixture.succeed("run", "-d", "--name", "side", "--pid", "container:box", "bb", "sleep", "1000")
      #expect(inside("side", "pid") == inside("box", "pid"))
      #expect(fixture.succeed("exec", "side", "pidof", "sleep").split(separator: " ").count == 2)
      // Its end is its own, and the other's ends it: PID 1 was the other's.
      fixture.succeed("stop", "-t", "0", "side")
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}}", "box") == "running")
      fixture.succeed("start", "side")
      fixture.succeed("stop", "-t", "0", "box")
      #expect(fixture.succeed("wait", "side") == "137")
      let box = fixture.succeed("inspect", "-f", "{{.Id}}", "box")
      let late = fixture.engine("start", "side")
      #expect(
        late.status == 1 && late.errors.contains("failed to join PID namespace: container \(box) is not running"),
        "\(late)")
    }

    @Test func anotherContainersSharedMemory() {
      defer { fixture.end() }
      fixture.succeed(
        "run", "-d", "--name", "donor", "--ipc", "shareable", "bb", "sh", "-c", "echo shared >/dev/shm/x; sleep 1000")
      Fixture.eventually { fixture.engine("exec", "donor", "cat", "/dev/shm/x").text == "shared" }
      #expect(fixture.succeed("run", "--rm", "--ipc", "container:donor", "bb", "cat", "/dev/shm/x") == "shared")
      fixture.succeed("run", "-d", "--name", "side", "--ipc", "container:donor", "bb", "sleep", "1000")
      #expect(inside("side", "ipc") == inside("donor", "ipc"))
      #expect(fixture.succeed("inspect", "-f", "{{.HostConfig.IpcMode}}", "donor") == "shareable")
      fixture.succeed("run", "-d", "--name", "private", "bb", "sleep", "1000")
      let refused = fixture.engine("run", "--rm", "--ipc", "container:private", "bb", "true")
      #expect(
        refused.status == 125
          && refused.errors.contains("non-shareable IPC (hint: use IpcMode:shareable for the donor container)"),
        "\(refused)")
      let none = fixture.engine("run", "--rm", "--ipc", "none", "bb", "sh", "-c", "mount | grep -c /dev/shm")
      #expect(none.text == "0", "\(none)")
      let own = fixture.engine("run", "--rm", "--ipc", "private", "bb", "sh", "-c", "mount | grep -c /dev/shm")
      #expect(own.text == "1", "\(own)")
      #expect(fixture.engine("run", "--rm", "--ipc", "sometimes", "bb", "true").status == 125)
    }

    @Test func theHosts() {
      defer { fixture.end() }
      for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")] {
        let line = ["run", "--rm", flag, "host", "bb", "readlink", "/proc/self/ns/\(kind)"]
        #expect(fixture.engine(line).text == own(kind), "\(flag)")
        let without = ["run", "--rm", "bb", "readlink", "/proc/self/ns/\(kind)"]
        #expect(fixture.engine(without).text != own(kind), "without \(flag)")
      }
      #expect(fixture.succeed("run", "--rm", "--uts", "host", "bb", "hostname") == fixture.host(["hostname"]).text)
      let conflict = fixture.engine("run", "--rm", "--uts", "host", "--hostname", "x", "bb", "true")
      #expect(
        conflict.status == 125 && conflict.errors.contains("conflicting options: hostname and the UTS mode"),
        "\(conflict)")
      // A command beside it, and the end of all of it though PID 1 is the host's.
      fixture.succeed("run", "-d", "--name", "box", "--pid", "host", "bb", "sh", "-c", "sleep 4321 & sleep 4321")
      #expect(fixture.engine("exec", "box", "readlink", "/proc/self/ns/pid").text == own("pid"))
      fixture.succeed("rm", "-f", "box")
      #expect(Fixture.eventually { Fixture.command(["pgrep", "-f", "^sleep 4321"]).status == 1 })
    }

    /// The host's hierarchies are the host's own mounts, copied: a unified one that is mounted anew in the host's
    /// namespace has lost its options (`nsdelegate`) there afterwards. Nothing mounted on them is seen by the host.
    @Test func theHostsCgroupsAsTheyAre() throws {
      defer { fixture.end() }
      func mounts(_ text: String, beneath place: String) -> [String: [Substring]] {
        var found: [String: [Substring]] = [:]
        for line in text.split(separator: "\n") {
          let words = line.split(separator: " ")
          if words.count > 4, words[4].hasPrefix(place) { found[String(words[4])] = words }
        }
        return found
      }
      let host = mounts(try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8), beneath: "/sys/fs/cgroup")
      let inside = mounts(
        fixture.succeed("run", "--rm", "--cgroupns", "host", "--ipc", "host", "bb", "cat", "/proc/self/mountinfo"),
        beneath: "/")
      for (place, words) in host {
        let copy = try #require(inside[place], "\(place)")
        #expect(copy[5].hasPrefix("ro,nosuid,nodev,noexec"), "\(copy)")
        // The file system, its root, its source and its options.
        guard words.contains(where: { $0.hasPrefix("cgroup") }) else { continue }
        #expect(copy[2] == words[2] && copy[3] == words[3] && copy.suffix(3) == words.suffix(3), "\(copy), \(words)")
        #expect(!copy.contains { $0.hasPrefix("shared:") || $0.hasPrefix("master:") }, "\(copy)")
      }
      let memory = try #require(inside["/dev/shm"])
      #expect(!memory.contains { $0.hasPrefix("shared:") || $0.hasPrefix("master:") }, "\(memory)")
      let group = fixture.succeed("run", "--rm", "--cgroupns", "host", "bb", "cat", "/proc/self/cgroup")
      #expect(group.contains(":/engine"), "\(group)")
    }
  }
}
