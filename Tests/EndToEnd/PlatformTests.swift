import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// What the platform shows of itself, and that the configuration file is one instance's.
  @Suite struct Platform {
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

      try
        "[plugins.network-bridge]\nname = \"mine0\"\npool = \"10.44.0.0/24\"\n[plugins.volume-tmpfs]\nenabled = false\n"
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

    /// Starts `bus tap` inside the fixture.
    private static func tap(_ fixture: Fixture, _ options: String, into file: String) throws -> pid_t {
      try Fixture.spawn([
        "sh", "-c",
        "exec nsenter -t \(fixture.holderProcess) -n -m \(Fixture.binaries)/engine --root \(fixture.root) bus tap "
          + "\(options) > \(file)",
      ])
    }

    @Test func theBusCanBeWatched() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let output = "\(fixture.directory)/tap"
      let tap = try Self.tap(
        fixture, "--type volume.driver --type network.driver --container web --format json", into: output)
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
      let role = fixture.engine("bus", "tap", "--role", "volum")
      #expect(role.status == 1 && role.errors.contains("the role \"volum\"; did you mean \"volume\"?"), "\(role)")
      let type = fixture.engine("bus", "tap", "--type", "volume.*", "--type", "nosuch")
      #expect(type.status == 1 && type.errors.contains("there is no message \"nosuch\""), "\(type)")
    }

    /// A driver that comes after the tap is seen too.
    @Test func aDriverThatComesLaterIsWatched() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      let output = "\(fixture.directory)/tap"
      fixture.succeed("version")
      let tap = try Self.tap(fixture, "--role volume", into: output)
      defer {
        kill(tap, SIGKILL)
        waitpid(tap, nil, 0)
      }
      func isSeen(_ text: String) -> Bool {
        ((try? String(contentsOfFile: output, encoding: .utf8)) ?? "").contains(text)
      }
      Fixture.eventually {
        fixture.succeed("volume", "create", "first")
        fixture.succeed("volume", "rm", "first")
        return isSeen("volume.driver.remove@local")
      }
      try FileManager.default.createDirectory(atPath: "\(fixture.root)/plugins", withIntermediateDirectories: true)
      try FileManager.default.copyItem(
        atPath: "\(DriverMatrix.checkout)/Examples/drivers/volume-python", toPath: "\(fixture.root)/plugins/mine")
      fixture.succeed("volume", "create", "-d", "mine", "second")
      #expect(Fixture.eventually { isSeen("volume.driver.create@mine") })
      fixture.succeed("volume", "rm", "second")
    }
  }

  /// A plan says what a run would do, and does none of it.
  @Suite struct Plan {
    @Test func aPlanChangesNothing() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      fixture.succeed("run", "-d", "--name", "other", "bb", "sleep", "1000")
      func state() -> String {
        let shell =
          "ip -o link | cut -d: -f2; nft list ruleset; find \(fixture.root) -not -name '*.sqlite*' | sort; ls /run/engine/\(fixture.runtimeHash)"
        return fixture.host(["sh", "-c", shell]).output
          + fixture.succeed("volume", "ls", "-q") + fixture.succeed("ps", "-aq")
          + fixture.succeed("network", "ls", "-q")
      }
      let before = state()
      let plan = fixture.succeed(
        "run", "--plan", "--name", "web", "-p", "8080:80", "-v", "data:/data", "-v",
        "\(fixture.directory)/new:/host:ro",
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
}
