import Foundation
import Glibc
import Testing

/// One definition of a container, unchanged, on every driver that there is: the configuration alone chooses.
@Suite("One container on many drivers", .enabled(if: geteuid() == 0, "needs root"))
struct DriverMatrixTests {
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
    try FileManager.default.createDirectory(atPath: "\(directory)/cni", withIntermediateDirectories: true)
    try """
    {"cniVersion": "1.0.0", "name": "theirs", "plugins": [
      {"type": "bridge", "bridge": "cni-e2e", "isGateway": true,
       "ipam": {"type": "host-local", "dataDir": "\(directory)/leases", "subnet": "10.88.7.0/24",
                "routes": [{"dst": "0.0.0.0/0"}]}},
      {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}
    """.write(toFile: "\(directory)/cni/10-theirs.conflist", atomically: true, encoding: .utf8)
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
        let ping = fixture.engine("exec", "web", "sh", "-c", "ping -c 1 -W 5 $(ip route | awk '/default/ {print $3}')")
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

  /// Broken drivers beside good ones: each harms only the container that asked, and says so.
  @Test func faultyDrivers() throws {
    let fixture = try Fixture()
    defer { fixture.end() }
    try fixture.importBusybox()
    let faulty = "\(Self.checkout)/Tests/Drivers/faulty-volume"
    func table(_ name: String, _ arguments: String...) -> String {
      let words = ([faulty] + arguments).map { "\"\($0)\"" }.joined(separator: ", ")
      return "[drivers.\(name)]\ncommand = [\(words)]\ndeadline_seconds = 2\n"
    }
    try Self.configure(
      fixture,
      table("liar", "lie", "volume.driver.mount") + table("dead", "exit")
        + table("crasher", "crash", "volume.driver.mount") + table("hanger", "hang", "volume.driver.mount")
        + table("flooder", "flood", "volume.driver.mount") + table("good"))
    let expected = [
      "liar": "the driver \"liar\" answered \"volume.driver.mount\" for the volume data with the path /nowhere/at/all",
      "crasher":
        "the driver crasher did not go on before it answered \"volume.driver.mount\": it ended with exit status 7",
      "hanger": "the driver hanger did not answer \"volume.driver.mount\" within 2.0 seconds",
      "flooder": "the driver flooder did not go on before it answered \"volume.driver.mount\": it sent 100 messages",
    ]
    for (driver, words) in expected.sorted(by: { $0.key < $1.key }) {
      let outcome = fixture.engine(
        "run", "--rm", "--mount", "type=volume,src=data,dst=/data,volume-driver=\(driver)", "bb", "true")
      #expect(outcome.status == 125, "\(driver): \(outcome)")
      #expect(outcome.errors.contains(words), "\(driver): \(outcome)")
      #expect(
        fixture.succeed(
          "run", "--rm", "--mount", "type=volume,src=fine,dst=/data,volume-driver=good", "bb", "echo", "ok")
          == "ok")
      // It may be on its way back from what it did.
      Fixture.eventually { fixture.engine("volume", "rm", "-f", "data").status == 0 }
    }
    let listing = fixture.succeed("plugin", "ls", "--format", "{{.Name}} {{.Restarts}} {{.State}}")
    #expect(listing.contains("good 0 running"), "\(listing)")
    #expect(listing.contains("failed: it ended with exit status 3; it said: no such luck"), "\(listing)")
    let inspected = fixture.succeed(
      "plugin", "inspect", "-f", "{{range .Messages}}{{.Message}}={{.Count}}/{{.Failures}} {{end}}", "liar")
    #expect(inspected.contains("volume.driver.mount=1/0"), "\(inspected)")
    let dead = fixture.engine("volume", "create", "--driver", "dead", "data")
    #expect(dead.status == 1, "\(dead)")
    #expect(dead.errors.contains("plugin \"dead\" not found (it ended with exit status 3; it said"), "\(dead)")
    fixture.succeed("volume", "rm", "fine")
    #expect(fixture.succeed("ps", "-aq") == "")
  }
}

/// What the platform shows of itself, and that the configuration file is one instance's.
@Suite("Platform", .enabled(if: geteuid() == 0, "needs root"))
struct PlatformTests {
  @Test func theConfigurationChoosesAndIsChecked() throws {
    let fixture = try Fixture()
    defer { fixture.end() }
    let file = "\(fixture.directory)/mine.toml"
    let standard = fixture.succeed("config", "default")
    try standard.write(toFile: file, atomically: true, encoding: .utf8)
    #expect(fixture.engine("config", "check", file).status == 0)
    try "[plugins.network-bridge]\nnmae = \"x\"\n".write(toFile: file, atomically: true, encoding: .utf8)
    let wrong = fixture.engine("config", "check", file)
    #expect(wrong.status == 1)
    #expect(
      wrong.errors.contains("\(file):2: unknown key \"nmae\" in [plugins.network-bridge]; did you mean \"name\"?"))
    let refused = fixture.engine("--config", file, "ps")
    #expect(refused.status != 0 && refused.errors.contains("\(file):2: unknown key"), "\(refused)")

    try "[plugins.network-bridge]\nname = \"mine0\"\npool = \"10.44.0.0/24\"\n[plugins.volume-tmpfs]\nenabled = false\n"
      .write(toFile: file, atomically: true, encoding: .utf8)
    #expect(fixture.engine("--config", file, "ps").status == 0)
    #expect(fixture.host(["ip", "-o", "-4", "addr", "show", "mine0"]).output.contains("10.44.0.1/24"))
    let listing = fixture.succeed("plugin", "ls", "--format", "{{.Name}}: {{.State}}")
    #expect(listing.contains("volume-tmpfs: skipped: the configuration disables it"))
    // Another file than that of the engine that runs.
    let other = fixture.engine("--config", "/dev/null", "ps")
    #expect(other.status == 125 && other.errors.contains("runs with the configuration \(file)"), "\(other)")
    // A new daemon keeps the file.
    fixture.succeed("system", "shutdown")
    #expect(fixture.succeed("plugin", "ls", "--format", "{{.Name}}: {{.State}}") == listing)
  }

  @Test func theBusCanBeWatched() throws {
    let fixture = try Fixture()
    defer { fixture.end() }
    try fixture.importBusybox()
    let output = "\(fixture.directory)/tap"
    let tap = try Fixture.spawn([
      "sh", "-c",
      "exec nsenter -t \(fixture.holderProcess) -n -m \(Fixture.binaries)/engine --root \(fixture.root) bus tap "
        + "--type volume.driver --type network.driver --container web --format json > \(output)",
    ])
    defer {
      kill(tap, SIGKILL)
      waitpid(tap, nil, 0)
    }
    var lines: [String] = []
    // The tap may come after the first run; then it sees the next.
    Fixture.eventually {
      _ = fixture.engine("run", "--rm", "--name", "other", "-v", "data:/data", "bb", "true")
      _ = fixture.engine("run", "--rm", "--name", "web", "-v", "data:/data", "bb", "true")
      lines = ((try? String(contentsOfFile: output, encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
      return lines.contains { $0.contains("\"message\":\"volume.driver.mount\"") }
        && lines.contains { $0.contains("\"message\":\"network.driver.attach\"") }
    }
    #expect(!lines.isEmpty)
    for line in lines {
      let value = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
      #expect((value["message"] as? String)?.contains(".driver.") == true)
      #expect((value["nanoseconds"] as? Int ?? 0) > 0)
    }
    fixture.succeed("volume", "rm", "data")
  }
}

/// A plan says what a run would do, and does none of it.
@Suite("Plan", .enabled(if: geteuid() == 0, "needs root"))
struct PlanTests {
  @Test func aPlanChangesNothing() throws {
    let fixture = try Fixture()
    defer { fixture.end() }
    try fixture.importBusybox()
    fixture.succeed("run", "-d", "--name", "other", "bb", "sleep", "1000")
    func state() -> String {
      let shell =
        "ip -o link | cut -d: -f2; nft list ruleset; find \(fixture.root) -not -name '*.sqlite*' | sort; ls /run/engine/\(fixture.runtimeHash)"
      return fixture.host(["sh", "-c", shell]).output
        + fixture.succeed("volume", "ls", "-q") + fixture.succeed("ps", "-aq") + fixture.succeed("network", "ls", "-q")
    }
    let before = state()
    let plan = fixture.succeed(
      "run", "--plan", "--name", "web", "-p", "8080:80", "-v", "data:/data", "-v", "\(fixture.directory)/new:/host:ro",
      "bb", "httpd", "-f")
    for words in [
      "image.resolve", "process: the container's engine-shim", "log.open@json-file", "volume.driver.create@local",
      "volume: data", "directory: \(fixture.directory)/new", "network.driver.attach@bridge",
      "port: 0.0.0.0:8080/tcp to 80", "snapshot.mount@overlay", "mount: volume data on /data",
      "on /host, read-only", "resource.create", "process: httpd -f", "record: container",
    ] { #expect(plan.contains(words), "\(words)\n\(plan)") }
    #expect(state() == before)
    // What would fail says so as the run would.
    let taken = fixture.engine("run", "--plan", "--name", "other", "bb", "true")
    #expect(taken.status == 125 && taken.errors.contains("is already in use by container"), "\(taken)")
    let missing = fixture.engine("run", "--plan", "--network", "nowhere", "bb", "true")
    #expect(missing.status == 125 && missing.errors.contains("network nowhere not found"), "\(missing)")
    let driver = fixture.engine(
      "run", "--plan", "--mount", "type=volume,src=v1,dst=/v,volume-driver=nosuch", "bb", "true")
    #expect(driver.status == 125 && driver.errors.contains("plugin \"nosuch\" not found"), "\(driver)")
    #expect(state() == before)
  }
}
