import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// One definition of a container, unchanged, on every driver that there is: the configuration alone chooses.
  @Suite("One container on many drivers")
  struct DriverMatrix {
    static let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path
    static let container = [
      "run", "-d", "--name", "web", "-v", "data:/data", "bb", "httpd", "-f", "-p", "80", "-h", "/data",
    ]

    /// Ends the daemon, so that the next command starts one with this configuration.
    static func configure(_ fixture: Fixture, _ text: String) throws {
      #expect(fixture.engine("system", "shutdown").status == 0)
      try text.write(toFile: "\(fixture.root)/engine.toml", atomically: true, encoding: .utf8)
      let check = fixture.engine("config", "check", "\(fixture.root)/engine.toml")
      #expect(check.status == 0, "\(check)")
      _ = Fixture.command(["rm", "-f", "/run/engine/\(fixture.runtimeHash)/configuration"])
    }

    /// A CNI list of Debian's bridge with the subnet 10.88.SUBNET.0/24, and another plugin after it.
    static func writeList(
      _ fixture: Fixture, _ name: String, subnet: Int, then plugin: String? = nil, _ members: String = ""
    ) throws {
      let directory = "\(fixture.directory)/cni"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      try """
      {"cniVersion": "1.0.0", "name": "\(name)", \(members) "plugins": [
        {"type": "bridge", "bridge": "cni-e2e\(subnet)", "isGateway": true,
         "ipam": {"type": "host-local", "dataDir": "\(fixture.directory)/leases", "subnet": "10.88.\(subnet).0/24",
                  "routes": [{"dst": "0.0.0.0/0"}]}}\(plugin.map { ", " + $0 } ?? "")]}
      """.write(toFile: "\(directory)/\(name).conflist", atomically: true, encoding: .utf8)
    }

    static func run(_ fixture: Fixture, sourceLocation: SourceLocation = #_sourceLocation) {
      let outcome = fixture.engine(container)
      #expect(outcome.status == 0, "\(outcome)", sourceLocation: sourceLocation)
    }

    /// The page that the container serves to itself.
    static func ownPage(_ fixture: Fixture) -> String {
      var page = Outcome(status: -1, output: "", errors: "")
      Fixture.eventually {
        page = fixture.engine(["exec", "web"] + Fixture.request("127.0.0.1", 80, "/page"))
        return page.text == "from the image"
      }
      return page.text
    }

    @Test func volumes() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let directory = fixture.directory
      for path in ["bind/data", "sockets"] {
        try FileManager.default.createDirectory(atPath: "\(directory)/\(path)", withIntermediateDirectories: true)
      }
      let docker = try Fixture.spawn([
        "\(Self.checkout)/Tests/Drivers/docker-volume", "\(directory)/sockets/them.sock", "\(directory)/them",
      ])
      defer {
        kill(docker, SIGKILL)
        waitpid(docker, nil, 0)
      }
      Fixture.eventually { FileManager.default.fileExists(atPath: "\(directory)/sockets/them.sock") }
      let places = [
        "local": "\(fixture.root)/volume-local/volumes/data/_data", "bind": "\(directory)/bind/data",
        "python": "\(directory)/python/data", "swift": "\(directory)/swift/data", "them": "\(directory)/them/data",
      ]
      for (driver, place) in places.sorted(by: { $0.key < $1.key }) {
        try Self.configure(
          fixture,
          """
          [defaults]
          volume = "\(driver)"
          [plugins.volume-bind]
          directory = "\(directory)/bind"
          [plugins.volume-docker]
          directories = ["\(directory)/sockets"]
          [drivers.python]
          command = ["\(Self.checkout)/Examples/drivers/volume-python"]
          options.place = "\(directory)/python"
          [drivers.swift]
          command = ["\(Fixture.binaries)/example-volume-swift"]
          options.place = "\(directory)/swift"
          """)
        Self.run(fixture)
        #expect(Self.ownPage(fixture) == "from the image", "\(driver)")
        #expect(fixture.succeed("volume", "inspect", "-f", "{{.Driver}}", "data") == driver)
        fixture.succeed("exec", "web", "sh", "-c", "echo written > /data/note")
        // Another container, while the first one runs; then the host.
        #expect(fixture.succeed("run", "--rm", "-v", "data:/data", "bb", "cat", "/data/note") == "written", "\(driver)")
        #expect(try String(contentsOfFile: "\(place)/note", encoding: .utf8) == "written\n", "\(driver)")
        // A new engine with its new drivers, the container still running.
        fixture.succeed("system", "shutdown")
        #expect(fixture.succeed("exec", "web", "cat", "/data/note") == "written", "\(driver)")
        let refused = fixture.engine("volume", "rm", "data")
        #expect(refused.status == 1 && refused.errors.contains("volume is in use"), "\(driver): \(refused)")
        fixture.succeed("rm", "-f", "web")
        fixture.succeed("volume", "rm", "data")
        #expect(fixture.succeed("volume", "ls", "-q") == "")
        fixture.expectClean()
      }
    }

    @Test(.enabled(if: access("/usr/lib/cni/bridge", X_OK) == 0, "needs containernetworking-plugins"))
    func networks() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let directory = fixture.directory
      try Self.writeList(
        fixture, "theirs", subnet: 7, then: "{\"type\": \"tuning\", \"sysctl\": {\"net.core.somaxconn\": \"500\"}}")
      for (network, prefix) in [("bridge", "172."), ("none", ""), ("python", "10.213."), ("cni", "10.88.7.")] {
        try Self.configure(
          fixture,
          """
          [defaults]
          network = "\(network)"
          [plugins.network-cni]
          configuration_directories = ["\(directory)/cni"]
          [drivers.python]
          command = ["\(Self.checkout)/Examples/drivers/network-python"]
          """)
        Self.run(fixture)
        #expect(Self.ownPage(fixture) == "from the image", "\(network)")
        let address = fixture.succeed(
          "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "web")
        let links = fixture.succeed("exec", "web", "ip", "-o", "link")
        if prefix.isEmpty {
          #expect(address == "")
          #expect(links.split(separator: "\n").count == 1, "\(links)")
        } else {
          #expect(address.hasPrefix(prefix), "\(network): \(address)")
          #expect(links.contains("eth0"))
          let page = fixture.fetch("http://\(address)/page")
          #expect(page.text == "from the image", "\(network): \(page)")
          // And the other way: the container reaches its host through its default route.
          let ping = fixture.engine(
            "exec", "web", "sh", "-c", "ping -c 1 -W 5 $(ip route | awk '/default/ {print $3}')")
          #expect(ping.status == 0, "\(network): \(ping)")
        }
        fixture.succeed("system", "shutdown")
        #expect(Self.ownPage(fixture) == "from the image", "\(network), with a new engine")
        fixture.succeed("rm", "-f", "web")
        fixture.expectClean()
        let left = fixture.host(["ip", "-o", "link"]).output
        #expect(!left.contains("p2p"), "\(network): \(left)")
      }
      _ = fixture.engine("volume", "rm", "data")
    }

    /// Published ports by Debian's portmap, and CHECK by its other plugins: portmap's looks for rules of IPv6 that its
    /// ADD did not make, so its list says `disableCheck`.
    @Test(
      .enabled(
        if: access("/usr/lib/cni/portmap", X_OK) == 0 && access("/usr/sbin/iptables", X_OK) == 0,
        "needs containernetworking-plugins and iptables"))
    func publishedPortsOfCNI() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      try Self.writeList(
        fixture, "theirs", subnet: 7,
        then: "{\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}, \"snat\": true}",
        "\"disableCheck\": true,")
      try Self.writeList(
        fixture, "with-checks", subnet: 8, then: "{\"type\": \"tuning\", \"sysctl\": {\"net.core.somaxconn\": \"500\"}}"
      )
      let directory = fixture.directory
      try Self.configure(
        fixture, "[plugins.network-cni]\nconfiguration_directories = [\"\(directory)/cni\"]\n")
      let run = fixture.engine(
        [
          "run", "-d", "--name", "web", "--network", "cni", "-p", "8080:80", "bb", "httpd", "-f", "-p", "80", "-h",
          "/data",
        ])
      #expect(run.status == 0, "\(run)")
      #expect(fixture.succeed("port", "web") == "80/tcp -> 0.0.0.0:8080")
      var page = Outcome(status: -1, output: "", errors: "")
      Fixture.eventually {
        page = fixture.fetch("http://127.0.0.1:8080/page")
        return page.text == "from the image"
      }
      #expect(page.text == "from the image", "\(page)")
      fixture.succeed("network", "create", "-d", "cni", "-o", "config=with-checks", "lab")
      fixture.succeed("run", "-d", "--name", "other", "--network", "lab", "bb", "sleep", "1000")
      fixture.expectClean()
      fixture.succeed("exec", "--privileged", "other", "ip", "addr", "flush", "dev", "eth0")
      let check = fixture.engine("system", "check")
      #expect(check.status == 1 && check.output.contains("the CNI plugin \"bridge\" failed at CHECK"), "\(check)")
      fixture.succeed("rm", "-f", "web", "other")
      fixture.succeed("network", "rm", "lab")
      fixture.expectClean()
      let rules = fixture.host(["iptables-save", "-t", "nat"]).output
      #expect(!rules.contains("8080"), "\(rules)")
      for list in ["theirs", "with-checks"] {
        let leases = try FileManager.default.contentsOfDirectory(atPath: "\(directory)/leases/\(list)")
        #expect(!leases.contains { $0.hasPrefix("10.") }, "\(leases)")
      }
    }

    /// The engine's own logs and somebody else's, of one container definition.
    @Test func logs() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let (directory, received) = (fixture.directory, "\(fixture.directory)/received")
      let script =
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n"
        + "while True:\n c = s.accept()[0]\n while data := c.recv(4096):\n  open(sys.argv[2], 'ab').write(data)\n"
      let collector = try Fixture.spawn(["python3", "-c", script, "\(directory)/collector.sock", received])
      defer {
        kill(collector, SIGKILL)
        waitpid(collector, nil, 0)
      }
      Fixture.eventually { FileManager.default.fileExists(atPath: "\(directory)/collector.sock") }
      for driver in ["json-file", "forward"] {
        try Self.configure(
          fixture,
          """
          [defaults]
          log = "\(driver)"
          [drivers.forward]
          command = ["\(Self.checkout)/Examples/drivers/log-socket"]
          options.address = "unix://\(directory)/collector.sock"
          """)
        fixture.succeed("run", "-d", "--name", "web", "bb", "sh", "-c", "echo one; echo two >&2; sleep 1000")
        #expect(fixture.succeed("inspect", "-f", "{{.HostConfig.LogConfig.Type}}", "web") == driver)
        var logs = Outcome(status: -1, output: "", errors: "")
        Fixture.eventually {
          logs = fixture.engine("logs", "web")
          return logs.output == "one\n" && logs.errors == "two\n"
        }
        #expect(logs.output == "one\n" && logs.errors == "two\n", "\(driver): \(logs)")
        let id = fixture.succeed("ps", "-q")
        let isForwarded = {
          let text = (try? String(contentsOfFile: received, encoding: .utf8)) ?? ""
          return text.contains("\(id) one\n") && text.contains("\(id) two\n")
        }
        if driver == "forward" { #expect(Fixture.eventually(isForwarded)) } else { #expect(!isForwarded()) }
        fixture.succeed("rm", "-f", "web")
        fixture.expectClean()
      }
      // One container may have another driver than the default.
      fixture.succeed("run", "--rm", "--log-driver", "json-file", "bb", "true")
      let unknown = fixture.engine("run", "--log-driver", "forward", "--log-opt", "colour=red", "bb", "true")
      #expect(unknown.status == 125 && unknown.errors.contains("unknown log opt \"colour\""), "\(unknown)")
    }
  }
}
