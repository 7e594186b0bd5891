import Contracts
import Foundation
import LinuxSystem
import Testing

@testable import PluginKit

/// The kits name what is wrong, go on with the next point, and leave nothing in the driver.
@Suite("The kits on faulty drivers", .serialized)
struct FaultyDriverTests {
  /// - Returns: the points, and what is left where the driver keeps its volumes.
  static func examine(
    _ arguments: String..., deadlines: DriverSession.Deadlines = .init()
  ) async throws -> (points: [ConformancePoint], left: [String]) {
    let directory = NSTemporaryDirectory() + "faulty-\(UUID().uuidString.prefix(8))"
    let place = directory + "/place"
    try Files.makeDirectories(place)
    let points = try await offThePool {
      let session = try DriverSession(
        [TestDrivers.directory.appendingPathComponent("faulty-volume").path] + arguments, directory: directory,
        options: ["place": place], deadlines: deadlines)
      defer { session.end() }
      return try await Conformance.examine(session, role: "volume", ConformanceSettings(driver: "faulty-volume"))
    }
    let left = try Files.list(place)
    try Files.removeTree(directory)
    return (points, left)
  }

  static let always = ["remove in use", "unknown option", "oversized reply"]
  static let mounting = [
    "mount", "mount twice", "unmount", "unknown name", "crash in the middle", "restart with state",
  ]

  @Test func findsWhatIsWrong() async throws {
    let (points, left) = try await Self.examine()
    #expect(points.filter { $0.fault != nil }.map(\.name) == Self.always)
    #expect(left == [])
  }

  @Test(arguments: [
    (
      "crash",
      "the driver crashed (exit status 7) before it answered \"volume.driver.mount\"; it is started again"
    ),
    (
      "garbage",
      "what the driver sent instead of an answer to \"volume.driver.mount\": the bytes \"GET / HT\" are no frame"
    ), ("nojson", "what the driver sent instead of an answer to \"volume.driver.mount\""),
    ("wrong", "the driver answered \"volume.driver.mount\" with what is no answer to it"),
  ])
  func aFaultIsThePointsAlone(fault: String, words: String) async throws {
    let (points, left) = try await Self.examine(fault, "volume.driver.mount")
    let failed = points.filter { $0.fault != nil }
    #expect(Set(failed.map(\.name)) == Set(Self.always + Self.mounting))
    for point in failed where Self.mounting.contains(point.name) || point.name == "remove in use" {
      #expect(point.fault?.hasPrefix(words) == true, "\(point)")
    }
    #expect(left == [])
  }

  @Test func oneThatHangsIsNotAskedForEver() async throws {
    let (points, left) = try await Self.examine(
      "hang", "volume.driver.mount", deadlines: .init(first: 4000, later: 2000))
    func fault(_ name: String) -> String { points.first { $0.name == name }?.fault ?? "" }
    #expect(
      fault("mount").hasPrefix("the driver hangs: no answer to \"volume.driver.mount\" within 4.0 seconds"),
      "\(points)")
    #expect(fault("mount").hasSuffix("; it is started again"))
    #expect(fault("mount twice").contains("within 2.0 seconds"))
    #expect(fault("restart with state").contains("\"volume.driver.mount\" is no longer sent"))
    #expect(points.contains { $0.name == "create" && $0.fault == nil })
    #expect(left == [])
  }

  @Test(arguments: [
    ("exit 0", "the driver ended (exit status 0) before it answered \"plugin.describe\""),
    ("exit 3", "the driver crashed (exit status 3) before it answered \"plugin.describe\""),
  ])
  func oneThatIsNoDriverSaysHowItEnded(script: String, words: String) async throws {
    let directory = NSTemporaryDirectory() + "faulty-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    try Files.replace(directory + "/mine", with: Array("#!/bin/sh\n\(script)\n".utf8), mode: 0o755, durable: false)
    let error = #expect(throws: EngineError.self) {
      _ = try DriverSession([directory + "/mine"], directory: directory)
    }
    #expect(error?.message == words)
    let itself = #expect(throws: EngineError.self) { _ = try DriverSession([directory], directory: directory) }
    #expect(itself?.message.hasSuffix("; it is a directory") == true, "\(String(describing: itself))")
    try Files.removeTree(directory)
  }

  @Test func whatCannotBeRemovedIsNamed() async throws {
    let (points, left) = try await Self.examine("refuse", "volume.driver.remove")
    #expect(!left.isEmpty)
    let last = try #require(points.last)
    #expect(last.name == "clean up")
    for name in left { #expect(last.fault?.contains("the volume \(name) (not today)") == true, "\(last)") }
  }

  @Test func anInterruptionEndsAWaitAndStillCleansUp() async throws {
    let directory = NSTemporaryDirectory() + "faulty-\(UUID().uuidString.prefix(8))"
    let place = directory + "/place"
    try Files.makeDirectories(place)
    let interruption = try OneTimeEvent()
    let points = try await offThePool {
      let session = try DriverSession(
        [
          TestDrivers.directory.appendingPathComponent("faulty-volume").path, "hang", "volume.driver.mount",
        ], directory: directory, options: ["place": place], deadlines: .init(first: 600_000, later: 10_000),
        interruption: interruption)
      defer { session.end() }
      return try await Conformance.examine(session, role: "volume", ConformanceSettings(driver: "faulty-volume")) {
        // The next point hangs; it is over long before its deadline.
        if $0.name == "create twice" { interruption.raise() }
      }
    }
    #expect(points.map(\.name) == ["create", "create twice"])
    #expect(try Files.list(place) == [])
    try Files.removeTree(directory)
  }

  @Test(arguments: [
    ("chmod", "make it executable: chmod +x"), ("line", "a script begins with a line that names its interpreter"),
    ("interpreter", "the interpreter that its first line names is not there"),
  ])
  func oneThatCannotBeStartedSaysTheWayOut(fault: String, words: String) async throws {
    let directory = NSTemporaryDirectory() + "faulty-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    let text = fault == "interpreter" ? "#!/no/such/interpreter\n" : "print(1)\n"
    try Files.replace(
      directory + "/mine", with: Array(text.utf8), mode: fault == "chmod" ? 0o644 : 0o755, durable: false)
    let error = #expect(throws: EngineError.self) {
      _ = try DriverSession([directory + "/mine"], directory: directory)
    }
    #expect(error?.message.contains(words) == true, "\(String(describing: error))")
    try Files.removeTree(directory)
  }
}
