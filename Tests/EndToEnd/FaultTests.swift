import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// The daemon and the shim die at each step that names itself in the sources (`FaultPoint.reach`); the next command
  /// finds everything as if it had never been, or as it was.
  @Suite struct Faults {
    /// Steps that the commands do not come to, each with the reason.
    private static let unreached = [
      "bridge.create.foreign": "only where another program drops what is forwarded, and not in a fresh namespace",
      "images.pull.ingest": onPulls, "images.pull.fetched": onPulls, "images.pull.layer": onPulls,
      "images.pull.complete": onPulls, "images.sync.synced": onPulls,
      "network-cni.attach.recorded": onCNI, "network-cni.attach.added": onCNI, "network-cni.detach.deleted": onCNI,
    ]
    private static let onPulls = "needs a registry: the tests of images from one kill the daemon there"
    private static let onCNI = "needs CNI's plugins: the tests of faulty drivers kill the daemon there"
    /// Steps that they come to or not.
    private static let uncertain: Set = [
      // Only where a container's processes are not quite gone when its cgroup goes.
      "cgroups.remove.killed"
    ]

    @Test func nothingIsLeftWhicheverStepTheDaemonDiesAt() async throws {
      try await sweep(Self.points().filter { !$0.hasPrefix("shim.") }, atLeast: 80) { $0.killDaemon(at: $1, $2) }
    }

    @Test func nothingIsLeftWhicheverStepTheShimDiesAt() async throws {
      try await sweep(Self.points().filter { $0.hasPrefix("shim.") }, atLeast: 10) { $0.killShim(at: $1, $2) }
    }

    /// Tries each point in one of two engines, since starting an engine is what takes long.
    private func sweep(
      _ points: [String], atLeast minimum: Int, _ attempt: @escaping @Sendable (FaultSweep, String, Int) -> Bool
    ) async throws {
      #expect(points.count >= minimum, "only \(points.count) steps name themselves")
      let unreached = try await withThrowingTaskGroup(of: [String].self) { group in
        for half in 0..<2 {
          group.addTask {
            let sweep = try FaultSweep()
            defer { sweep.fixture.end() }
            return points.enumerated().filter { number, point in number % 2 == half && !attempt(sweep, point, number) }
              .map(\.element)
          }
        }
        return try await group.reduce(into: Set<String>()) { $0.formUnion($1) }
      }
      let missed = unreached.symmetricDifference(points.filter { Self.unreached[$0] != nil })
        .subtracting(Self.uncertain)
      #expect(missed.isEmpty, "reached or not, unlike the list: \(missed.sorted())")
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

/// An engine whose processes die at a step that they are told.
private final class FaultSweep {
  let fixture: Fixture
  private let archive: String
  /// What the containers of this engine sleep, by which their processes are known.
  private let seconds: String
  private var log: String { "\(fixture.directory)/reached" }

  init() throws {
    fixture = try Fixture()
    try fixture.importBusybox()
    archive = fixture.smallArchive()
    seconds = String(100_000 + (Int(fixture.runtimeHash, radix: 16) ?? 0) % 900_000)
  }

  /// - Returns: whether the commands came to the point.
  func killDaemon(at point: String, _ number: Int) -> Bool {
    unlink(log)
    // Every daemon that the commands start dies at the point; the commands may fail, as they like.
    fixture.killDaemons(SIGTERM)
    if point == "bridge.create.forwarding" {
      _ = fixture.host(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"])
    }
    let environment = ["ENGINE_FAULT": point, "ENGINE_FAULT_LOG": log]
    for command in commands(for: point, number) { _ = fixture.engine(command, environment: environment) }
    let isReached = access(log, F_OK) == 0
    fixture.killDaemons()
    expectNothingLeft(after: point, number)
    return isReached
  }

  /// - Returns: whether the commands came to the point.
  func killShim(at point: String, _ number: Int) -> Bool {
    unlink(log)
    fixture.killDaemons(SIGTERM)
    let environment = ["ENGINE_FAULT": point, "ENGINE_FAULT_LOG": log]
    func engine(_ command: String...) { _ = fixture.engine(command, environment: environment) }
    let gate = "\(fixture.directory)/gate\(number)"
    engine("run", "-d", "--name", "one\(number)", "-p", "80", "-v", "/x", "bb", "sleep", seconds)
    engine("exec", "one\(number)", "true")
    engine("stop", "-t", "0", "one\(number)")
    engine("rm", "-f", "-v", "one\(number)")
    engine("run", "--name", "two\(number)", "bb", "true")
    engine("run", "--rm", "bb", "/no/such/command")
    // This one ends while no engine is there.
    engine(
      "run", "-d", "--name", "four\(number)", "-v", "\(gate):/gate", "bb", "sh", "-c",
      "until [ -e /gate/open ]; do sleep 0.02; done; exit 7")
    let isThere = fixture.engine("inspect", "-f", "{{.State.Running}}", "four\(number)").text == "true"
    fixture.killDaemons()
    _ = FileManager.default.createFile(atPath: "\(gate)/open", contents: nil)
    let ended = Fixture.eventually {
      fixture.shims.isEmpty && access(log, F_OK) == 0
        || !fixture.succeed("ps", "-a", "--format", "{{.Names}} {{.State}}").contains("four\(number) running")
    }
    #expect(ended, "\(point): the end is not noticed")
    if isThere && point.hasPrefix("shim.exit.") {
      let told = fixture.engine("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "four\(number)").text
      // A shim that dies before it has recorded the exit takes the status along.
      let isKnown = point == "shim.exit.recorded" || point == "shim.exit.woken"
      #expect(told == (isKnown || point != "shim.exit.reaped" ? "exited 7" : "exited 137"), "\(point)")
    }
    engine("run", "-d", "--name", "five\(number)", "bb", "sleep", seconds)
    engine("rm", "-f", "five\(number)")
    let isReached = access(log, F_OK) == 0
    fixture.killDaemons()
    // What the shim of a container died of, the container did too.
    let listed = fixture.succeed("ps", "-a", "--format", "{{.Names}} {{.State}}")
    for name in ["one", "two", "four"] {
      #expect(!listed.contains("\(name)\(number) running"), "\(point): \(listed)")
    }
    expectNothingLeft(after: point, number)
    return isReached
  }

  /// Commands that come to the step, as far as its name tells; most are on the way of `run`, `stop` and `rm`.
  private func commands(for point: String, _ number: Int) -> [[String]] {
    let name = "victim\(number)"
    func has(_ prefixes: String...) -> Bool { prefixes.contains { point.hasPrefix($0) } }
    if has("images.", "overlay.apply.") {
      return [
        ["load", "-i", archive], ["import", "\(fixture.directory)/small/layer.tar", name], ["rmi", name, "small"],
      ]
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
    if has("containers.pause.", "containers.rename.", "containers.update.") {
      return [
        ["run", "-d", "--name", name, "-m", "64m", "bb", "sleep", seconds], ["pause", name], ["unpause", name],
        ["update", "-m", "32m", "--memory-swap", "64m", name], ["rename", name, "\(name)-renamed"],
        ["rm", "-f", name, "\(name)-renamed"],
      ]
    }
    if has("containers.create.", "containers.start.", "containers.kill.", "volumes.keep.") {
      return [
        ["create", "--name", name, "-v", "/x", "bb", "sleep", seconds], ["start", name], ["kill", name],
        ["rm", "-f"] + (has("volumes.keep.") ? [] : ["-v"]) + [name],
      ]
    }
    return [
      ["run", "-d", "--name", name, "-p", "80", "-v", "\(name):/data", "-m", "64m", "bb", "sleep", seconds],
      ["stop", "-t", "0", name], ["start", name], ["rm", "-f", "-v", name], ["run", "--rm", "-v", "/x", "bb", "true"],
      // Its record is stored when it runs already.
      ["run", "-d", "--rm", "--name", "\(name)-short", "-v", "/x", "bb", "sleep", seconds],
      ["rm", "-f", "\(name)-short"],
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
    let gone = Fixture.eventually { fixture.shims.isEmpty }
    #expect(gone, "\(point) leaves \(fixture.shims)")
    Fixture.eventually { !fixture.hasVirtualLinks }
    #expect(!fixture.hasVirtualLinks, "\(point) leaves links")
    #expect(Fixture.containersProcesses(sleeping: seconds).isEmpty, "\(point) leaves a container's process")
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
