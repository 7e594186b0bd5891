import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Drivers whose files are deleted while there are things of theirs.
  @Suite struct DriverAbsence {
    @Test func whatAGoneDriverLeftCanBeRemoved() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let plugins = "\(fixture.root)/plugins"
      try FileManager.default.createDirectory(atPath: plugins, withIntermediateDirectories: true)
      for (example, name) in [("volume-python", "vol"), ("network-python", "net.py"), ("log-socket", "lg.py")] {
        try FileManager.default.copyItem(
          atPath: "\(DriverMatrix.checkout)/Examples/drivers/\(example)", toPath: "\(plugins)/\(name)")
      }
      try "text".write(toFile: "\(plugins)/README", atomically: true, encoding: .utf8)
      func listing() -> String { fixture.succeed("plugin", "ls", "--format", "{{.Name}}: {{.State}}") }
      // The engine runs already, and finds what was put there meanwhile.
      for name in ["vol", "net", "lg"] { #expect(listing().contains("\n\(name): running"), "\(listing())") }
      #expect(listing().contains("README: skipped: \(plugins)/README is not executable: chmod +x it"))
      let log = try String(contentsOfFile: "/run/engine/\(fixture.runtimeHash)/engined.log", encoding: .utf8)
      #expect(log.contains("the driver README is not started: \(plugins)/README is not executable"), "\(log)")

      fixture.succeed("network", "create", "-d", "net", "lab")
      fixture.succeed("volume", "create", "-d", "vol", "data")
      let mounts = [
        "--mount", "type=volume,src=data,dst=/data", "--mount", "type=volume,dst=/own,volume-driver=vol",
      ]
      for name in ["web", "old"] {
        let network = name == "web" ? "lab" : "none"
        let run = fixture.engine(
          ["run", "-d", "--name", name, "--network", network, "--log-driver", "lg"] + mounts + ["bb", "sleep", "1000"])
        #expect(run.status == 0, "\(run)")
      }
      fixture.succeed("stop", "-t", "0", "old")
      for name in ["vol", "net.py", "lg.py"] { unlink("\(plugins)/\(name)") }
      #expect(listing().contains("vol: running: its file is gone, so it is not started again"), "\(listing())")
      fixture.succeed("system", "shutdown")
      for name in ["vol:", "net:", "lg:"] { #expect(!listing().contains("\n\(name)"), "\(listing())") }

      // What runs goes on; what is to start says what is missing.
      #expect(fixture.succeed("exec", "web", "ls", "/data") == "page")
      let start = fixture.engine("start", "old")
      #expect(start.status == 1 && start.errors.contains("no driver \"vol\" answers"), "\(start)")
      fixture.succeed("rm", "-v", "old")
      fixture.succeed("rm", "-f", "web")
      #expect(fixture.succeed("ps", "-aq") == "")

      let refused = fixture.engine("volume", "rm", "data")
      #expect(refused.status == 1, "\(refused)")
      #expect(refused.errors.contains("'engine volume rm -f data' removes the engine's record"), "\(refused)")
      #expect(fixture.succeed("volume", "ls", "-q").contains("data"))
      let forced = fixture.engine("volume", "rm", "-f", "data", "no-such-volume")
      #expect(forced.status == 0 && forced.lines == ["data", "no-such-volume"], "\(forced)")
      #expect(forced.errors.contains("WARNING: the driver \"vol\" of the volume data is gone"), "\(forced)")
      #expect(forced.errors.contains("data may remain in \(fixture.root)/drivers/vol/volumes/data"), "\(forced)")
      // The containers' own volumes were kept, since nobody could remove them.
      for name in fixture.succeed("volume", "ls", "-q").split(separator: "\n") {
        fixture.succeed("volume", "rm", "-f", String(name))
      }
      #expect(fixture.succeed("volume", "ls", "-q") == "")

      // What cannot go is named, and keeps nothing else.
      fixture.succeed("network", "create", "other")
      let prune = fixture.engine("network", "prune", "-f")
      #expect(prune.status == 0 && prune.lines == ["Deleted Networks:", "other"], "\(prune)")
      let words = "WARNING: the network lab is kept: error while removing network: no driver \"net\" answers"
      #expect(prune.errors.contains(words) && prune.errors.contains("'engine network rm -f lab'"), "\(prune)")

      let network = fixture.engine("network", "rm", "lab")
      #expect(network.status == 1, "\(network)")
      #expect(network.errors.contains("'engine network rm -f lab' removes the engine's record"), "\(network)")
      let gone = fixture.engine("network", "rm", "-f", "lab")
      #expect(gone.status == 0 && gone.errors.contains("WARNING: the driver \"net\" of the network lab"), "\(gone)")
      #expect(!fixture.succeed("network", "ls").contains("lab"))
    }

    /// A driver that is only down keeps what it has.
    @Test func aVolumeOfADriverThatIsDownIsNotForgottenUnasked() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let mark = "\(fixture.directory)/mark"
      try DriverMatrix.configure(
        fixture,
        """
        [drivers.bad]
        command = ["\(DriverMatrix.checkout)/Tests/Drivers/faulty-volume", "crash", "volume.driver.remove", "\(mark)"]
        """)
      fixture.succeed("volume", "create", "-d", "bad", "data")
      let refused = fixture.engine("volume", "rm", "data")
      #expect(refused.status == 1, "\(refused)")
      #expect(
        refused.errors.contains("the driver bad failed at \"volume.driver.remove\": it ended with exit status 7"),
        "\(refused)")
      #expect(fixture.succeed("volume", "ls", "-q") == "data")
      Fixture.eventually { fixture.engine("volume", "rm", "data").status == 0 }
      #expect(fixture.succeed("volume", "ls", "-q") == "")
    }
  }
}
