import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// The daemon and the shim die at each step that names itself in the sources (`FaultPoint.reach`); the next command
  /// finds everything as if it had never been, or as it was.
  @Suite struct Faults {
    let fixture: Fixture
    private let archive: String

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
      archive = fixture.smallArchive()
    }

    /// Steps that the commands below do not come to, each with the reason.
    private static let unreached: [String: String] = [:]

    private var log: String { "\(fixture.directory)/reached" }

    @Test func nothingIsLeftWhicheverStepTheDaemonDiesAt() throws {
      defer { fixture.end() }
      let points = try Self.points().filter { !$0.hasPrefix("shim.") }
      #expect(points.count > 80, "only \(points.count) steps name themselves")
      var unreached: Set<String> = []
      for (number, point) in points.enumerated() {
        unlink(log)
        // Every daemon that the commands start dies at the point; the commands may fail, as they like.
        fixture.killDaemons(SIGTERM)
        let environment = ["ENGINE_FAULT": point, "ENGINE_FAULT_LOG": log]
        for command in commands(for: point, number) { _ = fixture.engine(command, environment: environment) }
        if access(log, F_OK) != 0 { unreached.insert(point) }
        fixture.killDaemons()
        expectNothingLeft(after: point, number)
      }
      let missed = unreached.symmetricDifference(Self.unreached.keys.filter { !$0.hasPrefix("shim.") })
      #expect(missed.isEmpty, "reached or not, unlike the list: \(missed.sorted())")
    }

    @Test func nothingIsLeftWhicheverStepTheShimDiesAt() throws {
      defer { fixture.end() }
      let points = try Self.points().filter { $0.hasPrefix("shim.") }
      #expect(points.count > 10, "only \(points) name themselves")
      var unreached: Set<String> = []
      for (number, point) in points.enumerated() {
        unlink(log)
        fixture.killDaemons(SIGTERM)
        let environment = ["ENGINE_FAULT": point, "ENGINE_FAULT_LOG": log]
        func engine(_ command: String...) { _ = fixture.engine(command, environment: environment) }
        engine("run", "-d", "--name", "one\(number)", "-p", "80", "-v", "/x", "bb", "sleep", "98765")
        engine("exec", "one\(number)", "true")
        engine("stop", "-t", "0", "one\(number)")
        engine("rm", "-f", "one\(number)")
        engine("run", "--name", "two\(number)", "bb", "true")
        engine("run", "--rm", "--name", "three\(number)", "bb", "/no/such/command")
        // This one ends while no engine is there, or is ended by the engine's own end.
        engine("run", "-d", "--name", "four\(number)", "bb", "sh", "-c", "sleep 0.2; exit 7")
        engine("run", "-d", "--rm", "--name", "five\(number)", "bb", "sleep", "98765")
        fixture.killDaemons()
        let ended = Fixture.eventually {
          fixture.succeed("ps", "-a", "--filter", "name=four", "--format", "{{.State}}") != "running"
        }
        #expect(ended, "\(point): the end is not noticed")
        engine("rm", "-f", "five\(number)")
        if access(log, F_OK) != 0 { unreached.insert(point) }
        fixture.killDaemons()
        // What the shim of a container died of, the container did too.
        let listed = fixture.succeed("ps", "-a", "--format", "{{.Names}} {{.State}}")
        #expect(!listed.contains("one\(number) running"), "\(point): \(listed)")
        #expect(!listed.contains("two\(number) running"), "\(point): \(listed)")
        expectNothingLeft(after: point, number)
      }
      let missed = unreached.symmetricDifference(Self.unreached.keys.filter { $0.hasPrefix("shim.") })
      #expect(missed.isEmpty, "reached or not, unlike the list: \(missed.sorted())")
    }

    /// Commands that come to the step, as far as its name tells; most are on the way of `run`, `stop` and `rm`.
    private func commands(for point: String, _ number: Int) -> [[String]] {
      let name = "victim\(number)"
      func has(_ prefixes: String...) -> Bool { prefixes.contains { point.hasPrefix($0) } }
      if has("images.", "overlay.apply.") {
        return [["load", "-i", archive], ["import", "\(fixture.directory)/small/layer.tar", name], ["rmi", name, "small"]]
      }
      if has("networks.create.", "networks.remove.", "bridge.remove.") {
        return [["network", "create", name], ["network", "rm", name]]
      }
      if has("volume-tmpfs.") {
        return [
          ["volume", "create", "-d", "tmpfs", name], ["run", "--rm", "-v", "\(name):/v", "bb", "true"],
          ["volume", "rm", name],
        ]
      }
      if has("volume-local.mount.", "volume-local.unmount.") {
        return [
          ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", name],
          ["run", "--rm", "-v", "\(name):/v", "bb", "true"], ["volume", "rm", name],
        ]
      }
      if has("containers.create.", "containers.start.", "containers.kill.", "volumes.keep.") {
        return [
          ["create", "--name", name, "-v", "/x", "bb", "sleep", "98765"], ["start", name], ["kill", name],
          ["rm", "-f", name],
        ]
      }
      return [
        ["run", "-d", "--name", name, "-p", "80", "-v", "\(name):/data", "-m", "64m", "bb", "sleep", "98765"],
        ["stop", "-t", "0", name], ["start", name], ["rm", "-f", name], ["run", "--rm", "-v", "/x", "bb", "true"],
        ["volume", "rm", name],
      ]
    }

    /// The next commands repair; afterwards everything goes its usual way.
    private func expectNothingLeft(after point: String, _ number: Int) {
      let listed = fixture.engine("ps", "-aq")
      #expect(listed.status == 0, "\(point): \(listed)")
      if !listed.lines.isEmpty {
        let removal = fixture.engine(["rm", "-f", "-v"] + listed.lines)
        #expect(removal.status == 0, "\(point): \(removal)")
      }
      let name = "victim\(number)"
      for command in [["rmi", name], ["rmi", "small"], ["network", "rm", name], ["volume", "rm", name]] {
        if ["images.", "overlay.apply"].contains(where: { point.hasPrefix($0) }) == (command[0] == "rmi") {
          _ = fixture.engine(command)
        }
      }
      fixture.expectClean()
      // A volume of the container that `rm` left on purpose, but none of a `run` that never was.
      let volumes = fixture.succeed("volume", "ls", "-q").split(separator: "\n").map(String.init)
      #expect(volumes.count <= (point == "volumes.keep.recorded" ? 1 : 0), "\(point) leaves the volumes \(volumes)")
      if !volumes.isEmpty { _ = fixture.engine(["volume", "rm"] + volumes) }
      #expect(fixture.engine("run", "--rm", "bb", "true").status == 0, "after \(point)")
      let gone = Fixture.eventually { fixture.processes(named: "engine-shim").isEmpty }
      #expect(gone, "\(point) leaves \(fixture.processes(named: "engine-shim"))")
      Fixture.eventually { !fixture.hasVirtualLinks }
      #expect(!fixture.hasVirtualLinks, "\(point) leaves links")
      #expect(Fixture.containersProcesses(sleeping: "98765").isEmpty, "\(point) leaves a container's process")
    }

    /// Every name that is given to `FaultPoint.reach` in the sources.
    private static func points() throws -> [String] {
      let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path
      let found = Fixture.command([
        "grep", "-rhoE", "FaultPoint\\.reach\\(\"[a-z.-]+\"\\)", "\(checkout)/Plugins", "\(checkout)/Sources",
      ])
      return Set(found.lines.compactMap { $0.split(separator: "\"").dropFirst().first.map(String.init) }).sorted()
    }
  }
}

extension Fixture {
  /// Whether a veth is in the fixture's network namespace.
  var hasVirtualLinks: Bool { host(["sh", "-c", "grep -q veth /proc/net/dev"]).status == 0 }

  /// PIDs of `sleep SECONDS` that are no zombies.
  static func containersProcesses(sleeping seconds: String) -> [pid_t] {
    ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { entry in
      guard let process = pid_t(entry), let data = FileManager.default.contents(atPath: "/proc/\(entry)/cmdline")
      else { return nil }
      return data == Data("sleep\0\(seconds)\0".utf8) ? process : nil
    }
  }
}
