import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// `system check` names what somebody broke behind the engine's back, and repairs what it can.
  @Suite struct Check {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private struct Finding: Equatable {
      var kind: String
      var plugin: String
      var object: String
    }

    /// What the check finds, without what is on its way out.
    private func findings(repair: Bool = false) -> (status: Int32, all: [Finding]) {
      let format = "{{.Kind}}|{{.Plugin}}|{{.Object}}"
      let outcome = fixture.engine(["system", "check", "--format", format] + (repair ? ["--repair"] : []))
      let all = outcome.lines.map { line -> Finding in
        let parts = line.split(separator: "|", maxSplits: 2).map(String.init)
        guard parts.count == 3 else { return Finding(kind: "unreadable", plugin: "", object: "\(outcome)") }
        return Finding(kind: parts[0], plugin: parts[1], object: parts[2])
      }
      return (outcome.status, all.filter { $0.kind != "draining" })
    }

    /// Expects that the check names exactly one thing, twice the same, and ends with 1; then repairs it.
    private func expect(
      _ kind: String, _ plugin: String, _ object: String, staysAfterRepair: Bool = false,
      sourceLocation: SourceLocation = #_sourceLocation
    ) {
      for repairs in [false, true] {
        let (status, all) = findings(repair: repairs)
        #expect(status == (repairs ? 0 : 1), "repair \(repairs)", sourceLocation: sourceLocation)
        #expect(
          all.count == 1 && all.first?.kind == kind && all.first?.plugin == plugin
            && all.first?.object.contains(object) == true,
          "\(all) instead of \(kind) \(plugin) \(object)", sourceLocation: sourceLocation)
      }
      let after = findings()
      #expect(after.status == (staysAfterRepair ? 1 : 0), "\(after.all)", sourceLocation: sourceLocation)
      #expect(after.all.isEmpty == !staysAfterRepair, "\(after.all)", sourceLocation: sourceLocation)
    }

    @discardableResult
    private func host(_ line: String, sourceLocation: SourceLocation = #_sourceLocation) -> String {
      let outcome = fixture.host(["sh", "-c", line])
      #expect(outcome.status == 0, "\(line): \(outcome)", sourceLocation: sourceLocation)
      return outcome.text
    }

    @Test func networks() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--init", "-p", "8080:80", "--name", "web", "bb", "httpd", "-f", "-h", "/data")
      #expect(findings().all.isEmpty)
      let table = "inet engine-\(fixture.runtimeHash)"

      // The element of a published port: made again.
      host("nft flush map \(table) published")
      expect("missing", "network-bridge", "published port")
      Fixture.eventually { fixture.fetch("http://127.0.0.1:8080/page").status == 0 }
      #expect(fixture.fetch("http://127.0.0.1:8080/page").output == "from the image\n")

      // A port that nobody published.
      host(
        "nft add element \(table) published "
          + "{ $(nft list map \(table) published | sed -n 's/.*elements = { \\(tcp [^}]*\\) }.*/\\1/p' | sed 's/8080/8081/') }"
      )
      expect("leftover", "network-bridge", "8081")

      // The whole table.
      host("nft delete table \(table)")
      let broken = findings()
      #expect(broken.status == 1)
      #expect(broken.all.contains { $0.kind == "missing" && $0.object == "table \(table)" }, "\(broken.all)")
      _ = findings(repair: true)
      #expect(findings().all.isEmpty)
      #expect(fixture.fetch("http://127.0.0.1:8080/page").output == "from the image\n")

      // A link of ours that belongs to no container, and one of another program, which is none of our business.
      let bridge = host("ip -o link show type bridge | head -n 1 | cut -d: -f2")
      host("ip link add veth0123456789a type veth peer name peer0 && ip link set veth0123456789a master \(bridge)")
      host("ip link add veth0abcdef type veth peer name peer1 && ip link set veth0abcdef master \(bridge)")
      expect("leftover", "network-bridge", "link veth0123456789a")
      #expect(host("ip -o link | grep -c 'veth0123456789a\\|peer0' || true") == "0")
      #expect(host("ip -o link | grep -c veth0abcdef || true") != "0")

      // The container's own link: nothing can give it back while the container runs.
      host("ip link delete $(ip -o link show type veth | grep -o 'veth[0-9a-f]\\{11\\}' | head -n 1)")
      expect("missing", "network-bridge", "link veth", staysAfterRepair: true)
      fixture.succeed("rm", "-f", "web")
      #expect(findings().all.isEmpty)

      // A bridge of a user's network, and the setting without which nothing is forwarded.
      fixture.succeed("network", "create", "mine")
      let other = host("ip -o link show type bridge | grep -v ' \(bridge):' | cut -d: -f2")
      host("ip link delete \(other)")
      expect("missing", "network-bridge", "of network mine")
      host("echo 0 >/proc/sys/net/ipv4/ip_forward")
      expect("missing", "network-bridge", "ip_forward")
      fixture.succeed("network", "rm", "mine")
    }

    /// An engine that ends takes its networks, rules and groups along, and those of what runs on stay.
    @Test func whatAnEngineThatEndsLeaves() {
      defer { fixture.end() }
      func host() -> String {
        fixture.host([
          "sh", "-c",
          "ip -o link | cut -d: -f2 | cut -d@ -f1; nft list tables; cat /proc/sys/net/ipv4/ip_forward;"
            + "ls -d /sys/fs/cgroup/*/engine-\(fixture.runtimeHash)* /sys/fs/cgroup/engine-\(fixture.runtimeHash)* 2>/dev/null",
        ]).output
      }
      #expect(fixture.engine("system", "shutdown").status == 0)
      #expect(host() == " lo\n0\n")
      fixture.succeed("network", "create", "own")
      fixture.succeed("run", "-d", "--name", "web", "--network", "own", "-p", "8080:80", "bb", "sleep", "1000")
      let address = fixture.succeed("inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", "web")
      let running = host()
      #expect(running.contains("table inet engine"))
      #expect(fixture.engine("system", "shutdown").status == 0)
      #expect(host() == running)
      fixture.succeed("stop", "-t", "0", "web")
      #expect(fixture.engine("system", "shutdown").status == 0)
      #expect(host() == " lo\n0\n")
      // The next engine has them again.
      fixture.succeed("start", "web")
      #expect(fixture.succeed("inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", "web") == address)
      #expect(host().split(separator: "\n").count == running.split(separator: "\n").count)
      fixture.succeed("rm", "-f", "web")
    }

    @Test func cgroups() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "-m", "64m", "bb", "sleep", "1000")
      let paths = host(
        "find /sys/fs/cgroup -maxdepth 3 -type d -path '*\(fixture.runtimeHash)*' -mindepth 2 | grep '\(fixture.runtimeHash)./*.'"
      ).split(separator: "\n").map(String.init)
      guard let group = paths.first(where: { $0.contains("/memory/") }) ?? paths.first,
        let parent = group.range(of: "/", options: .backwards).map({ String(group[..<$0.lowerBound]) })
      else {
        Issue.record("no cgroup of the container: \(paths)")
        return
      }
      // Somebody moves the container's processes and removes its group in one hierarchy.
      host(
        "for p in $(cat \(group)/cgroup.procs); do echo $p >\(parent)/cgroup.procs; done; rmdir \(group)")
      let (status, all) = findings()
      #expect(status == 1)
      #expect(all == [Finding(kind: "missing", plugin: "resources-cgroups", object: "cgroup \(group)")], "\(all)")
      fixture.succeed("rm", "-f", "box")
      #expect(findings().all.isEmpty)

      // A group that nobody recorded, beneath the engine's own.
      host("mkdir \(parent)/0123456789abcdef")
      expect("leftover", all.first?.plugin ?? "", "\(parent)/0123456789abcdef")
      #expect(access("\(parent)/0123456789abcdef", F_OK) != 0)
    }

    @Test func processes() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "first", "bb", "sleep", "1000")
      fixture.succeed("run", "-d", "--name", "second", "bb", "sleep", "1000")
      func pid(_ name: String) -> pid_t { pid_t(fixture.succeed("inspect", "-f", "{{.State.Pid}}", name)) ?? 0 }
      func shim(_ process: pid_t) throws -> pid_t {
        let status = try String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
        return try #require(pid_t(status.split(separator: " ")[3]))
      }
      let processes = [pid("first"), pid("second")]
      let second = try shim(processes[1])
      kill(processes[0], SIGKILL)
      Fixture.eventually { fixture.succeed("inspect", "-f", "{{.State.Status}}", "first") == "exited" }
      // Shim and process at once, so that nobody tells anybody.
      fixture.killDaemons()
      kill(second, SIGKILL)
      kill(processes[1], SIGKILL)
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "first") == "exited 137")
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}}", "second") == "exited")
      fixture.expectClean()
      // A runtime directory that no journal names.
      host("mkdir -p /run/engine/\(fixture.runtimeHash)/runtime-linux/0123456789abcdef")
      expect("leftover", "runtime-linux", "0123456789abcdef")
    }

    @Test func filesAndRecords() throws {
      defer { fixture.end() }
      fixture.succeed("volume", "create", "kept")
      fixture.succeed("run", "--name", "old", "-v", "/anonymous", "bb", "sh", "-c", "echo x >/written")
      let id = fixture.succeed("inspect", "-f", "{{.Id}}", "old")
      fixture.expectClean()

      // A volume's directory: made again, empty.
      let mountpoint = fixture.succeed("volume", "inspect", "-f", "{{.Mountpoint}}", "kept")
      host("rm -r \(mountpoint)")
      expect("missing", "volume-local", mountpoint)
      #expect(fixture.succeed("run", "--rm", "-v", "kept:/v", "bb", "ls", "/v") == "")

      // A directory of a volume that no record names.
      let stray = mountpoint.replacingOccurrences(of: "/kept/", with: "/stray/")
      host("mkdir -p \(stray)")
      expect("leftover", "volume-local", "/stray")

      // The writable layer of a container that has ended: what it wrote is lost, and it starts again.
      let layer = host("find \(fixture.root) -type d -name \(id) | grep /containers/")
      host("rm -r \(layer)")
      expect("missing", "snapshots-overlay", layer)
      #expect(fixture.engine("start", "-a", "old").status == 0)
      // One of a container that nobody knows.
      host("mkdir \(layer.dropLast(4))0000")
      expect("leftover", "snapshots-overlay", "0000")

      // A record that does not read: named, left alone at the start, dropped with what belongs to it when asked for.
      fixture.killDaemons()
      try corrupt(kind: "container", key: id)
      let outcome = fixture.engine("system", "check")
      #expect(outcome.status == 1)
      #expect(outcome.output.contains("the record container/\(id) is corrupt"), "\(outcome)")
      #expect(access(layer, F_OK) == 0, "what a record is lost for must not be removed unasked")
      _ = fixture.engine("system", "check", "--repair")
      fixture.expectClean()
      #expect(access(layer, F_OK) != 0)
      #expect(fixture.succeed("ps", "-aq") == "")
      // The anonymous volume may hold the only copy of something.
      let volumes = fixture.succeed("volume", "ls", "-q").split(separator: "\n").map(String.init)
      #expect(volumes.count == 2, "\(volumes)")
    }

    @Test func aStateThatDoesNotReadStopsNoContainer() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let id = fixture.succeed("inspect", "-f", "{{.Id}}", "box")
      fixture.killDaemons()
      try corrupt(kind: "container-state", key: id)
      #expect(fixture.succeed("inspect", "-f", "{{.State.Status}}", "box") == "running")
      expect("missing", "containers", "container-state/\(id) is corrupt")
      fixture.killDaemons()
      #expect(fixture.succeed("exec", "box", "echo", "alive") == "alive")

      // Without its record a container cannot be managed, yet nobody ends it unasked.
      let process = try #require(pid_t(fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")))
      fixture.killDaemons()
      try corrupt(kind: "container", key: id)
      #expect(fixture.engine("system", "check").output.contains("container/\(id) is corrupt"))
      #expect(kill(process, 0) == 0)
      _ = fixture.engine("system", "check", "--repair")
      fixture.expectClean()
      #expect(!fixture.shims.contains { $0 == process })
      let ended = Fixture.eventually {
        let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
        return status?.contains(") Z ") ?? true
      }
      #expect(ended)
    }

    private func corrupt(kind: String, key: String) throws {
      let database = host(
        "find \(fixture.root) -name '*.db' -o -name '*.sqlite*' | grep -v -e -wal -e -shm | head -n 1")
      let script = """
        import sqlite3, sys
        c = sqlite3.connect(sys.argv[1])
        t = [r[0] for r in c.execute("select name from sqlite_master where type='table'")]
        n = 0
        for name in t:
          columns = [r[1] for r in c.execute(f"pragma table_info({name})")]
          if {"kind", "key", "value"} <= set(columns):
            n += c.execute(f"update {name} set value = '{{' where kind = ? and key = ?", sys.argv[2:4]).rowcount
        c.commit()
        sys.exit(0 if n == 1 else 1)
        """
      let outcome = fixture.host(["python3", "-c", script, database, kind, key])
      #expect(outcome.status == 0, "\(outcome)")
    }
  }
}
