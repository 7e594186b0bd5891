import Composition
import Contracts
import Foundation
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import PluginKit

/// A built-in driver on a bus of its own, which a kit may end and start again on the same files.
final class BuiltinSubject: ConformanceSubject {
  private struct Life {
    let bus: Bus
    let plugin: any Plugin
  }

  private let type: any Plugin.Type
  private let configuration: [String: String]
  let directory = NSTemporaryDirectory() + "builtin-\(UUID().uuidString.prefix(8))"
  private let life = Mutex<Life?>(nil)

  private let driver: String

  init(_ type: any Plugin.Type, configuration: [String: String] = [:], driver: String? = nil) async throws {
    self.type = type
    self.driver = driver ?? type.manifest.driver
    self.configuration = configuration
    try Files.makeDirectories(directory)
    try await begin()
  }

  private func begin() async throws(EngineError) {
    let bus = Bus()
    let instance = Instance(
      root: directory, runtimeDirectory: directory + "/run", hash: "1234abcd", isDefault: false, daemonPath: "",
      shimPath: "", version: "test")
    let host = PluginHost(
      manifest: type.manifest, bus: bus, instance: instance, journal: try Journal(path: directory + "/journal"),
      configuration: configuration)
    let plugin = try type.init(host: host)
    try plugin.register(Registrar(bus: bus, manifest: type.manifest))
    try await plugin.start()
    life.withLock { $0 = Life(bus: bus, plugin: plugin) }
  }

  var bus: Bus {
    get throws(EngineError) {
      guard let bus = life.withLock({ $0?.bus }) else { throw EngineError(.unavailable, "the plugin has ended") }
      return bus
    }
  }

  func end() async {
    await life.withLock { $0 }?.plugin.stop()
    // What a plugin keeps mounted for another engine to come.
    let mounts = ((try? Files.readText("/proc/self/mountinfo")) ?? "").split(separator: "\n")
    for line in mounts.reversed() {
      let place = line.split(separator: " ")[4]
      if place.hasPrefix(directory + "/") { umount2(String(place), Int32(MNT_DETACH)) }
    }
    try? Files.removeTree(directory)
  }

  func ask<R: Request>(_ request: R) async throws(EngineError) -> R.Reply {
    try await bus.request(request, driver: driver)
  }

  func ask<R: StreamRequest>(_ request: R) async throws(EngineError) -> R.Reply {
    try await Call(bus: bus).stream(request, driver: driver) { (_) async throws(EngineError) in }
  }

  func askAndCancel<R: Request>(_ request: R) async throws(EngineError) {
    let (bus, driver) = (try bus, driver)
    let task = Task { _ = try? await bus.request(request, driver: driver) }
    task.cancel()
    await task.value
  }

  /// A crash at each single step is what the crash tests make; here another engine takes over after the message.
  func askAndKill<R: Request>(_ request: R) async throws(EngineError) {
    _ = try? await ask(request)
    try await drained()
    try await begin()
  }

  /// What a plugin still does in the background must not meet its successor in the same process.
  private func drained() async throws(EngineError) {
    let (bus, plugin) = (try bus, type.manifest.name)
    for _ in 0..<2000 {
      let check = PluginCheck(known: [], running: [], repair: false)
      let differences = (try? await bus.request(check, driver: plugin)) ?? []
      if !differences.contains(where: { $0.kind == .draining }) { return }
      await bus.timekeeper.sleep(.milliseconds(5))
    }
  }

  func restart() async throws(EngineError) {
    try await drained()
    await life.withLock { $0 }?.plugin.stop()
    try await begin()
  }
}

/// One way to examine one driver of the composition root.
struct BuiltinCase: Sendable, CustomTestStringConvertible {
  var type: any Plugin.Type
  var examination: Examination

  var testDescription: String { [type.manifest.name, examination.name].filter { !$0.isEmpty }.joined(separator: ", ") }

  static let builtin = (try? Composition.plugins()) ?? []

  /// Every driver there is. A driver that is added to the tree is here without a word about it.
  static let all = builtin.filter { DriverRole.named($0.manifest.role) != nil }.flatMap { type in
    type.examinations.map { BuiltinCase(type: type, examination: $0) }
  }
}

/// What is asked of a stranger's driver is asked of ours.
@Suite("Conformance of the built-in drivers", .serialized, .enabled(if: geteuid() == 0, "needs root"))
struct BuiltinConformanceTests {
  @Test(arguments: BuiltinCase.all)
  func examine(_ driver: BuiltinCase) async throws { try await Self.examine(driver) { _ in } }

  /// - Parameter look: is given the examination's directory before that is removed.
  static func examine(_ builtin: BuiltinCase, _ look: (String) throws -> Void) async throws {
    let (type, examination) = (builtin.type, builtin.examination)
    if let missing = examination.needs.first(where: { !Files.exists($0) }) {
      print("\(builtin.testDescription) is not examined: there is no \(missing)")
      return
    }
    let directory = NSTemporaryDirectory() + "examination-\(UUID().uuidString.prefix(8))"
    let namespace = try TestNamespace()
    func filled(_ text: String) -> String {
      text.replacingOccurrences(of: "{directory}", with: directory)
        .replacingOccurrences(of: "{namespace}", with: "/proc/\(getpid())/fd/\(namespace.descriptor.number)")
        .replacingOccurrences(of: "{programs}", with: TestDrivers.directory.path)
    }
    try Files.makeDirectories(directory)
    for (path, text) in examination.files.map({ (filled($0), filled($1)) }) {
      try Files.makeDirectories(path.hasSuffix("/") ? path : String(path.prefix(upTo: path.lastIndex(of: "/")!)))
      if path.hasSuffix("/") { continue }
      try Files.replace(path, with: Array(text.utf8), mode: text.hasPrefix("#!") ? 0o755 : 0o644, durable: false)
    }
    let process = Process()
    if let program = examination.program.first {
      process.executableURL = URL(fileURLWithPath: filled(program))
      process.arguments = examination.program.dropFirst().map(filled)
      try process.run()
      let file = filled(examination.programFile)
      for _ in 0..<2000 where !Files.exists(file) { try await Task.sleep(for: .milliseconds(5)) }
    }
    defer {
      // Not SIGTERM: a process inherits the blocked signals of the worker thread that started it.
      if !examination.program.isEmpty { kill(process.processIdentifier, SIGKILL) }
    }

    let driver = examination.driver.isEmpty ? type.manifest.driver : examination.driver
    let subject = try await BuiltinSubject(
      type, configuration: examination.configuration.mapValues(filled), driver: driver)
    let settings = ConformanceSettings(driver: driver, options: examination.options.mapValues(filled))
    let points = try await offThePool { try await Conformance.examine(subject, role: type.manifest.role, settings) }
    #expect(points.count >= 10)
    for point in points { #expect(point.fault == nil, "\(builtin.testDescription): \(point)") }
    await subject.end()
    try look(directory)
    try withExtendedLifetime(namespace) { try Files.removeTree(directory) }
  }

  /// Every lease of the addresses that Debian's plugins gave has been given back.
  @Test func cniGivesItsAddressesBack() async throws {
    let cni = try #require(BuiltinCase.all.first { $0.type.manifest.driver == "cni" })
    try await Self.examine(cni) { directory in
      let leases = try Files.list(directory + "/leases/conformance").filter { $0.hasPrefix("10.") }
      #expect(leases == [])
    }
  }

  /// None is passed over because of its role, and there is a kit for each.
  @Test func everyBuiltinDriverIsExamined() {
    for type in BuiltinCase.builtin where !type.manifest.driver.isEmpty {
      #expect(DriverRole.named(type.manifest.role) != nil, "no role \(type.manifest.role): \(type.manifest.name)")
    }
    for type in BuiltinCase.builtin { #expect(!type.examinations.isEmpty, "\(type.manifest.name)") }
    #expect(Set(BuiltinCase.all.map { $0.type.manifest.role }) == Set(DriverRole.all.map(\.name)))
  }
}

/// Drivers of the tests that are programs, and those of the examples.
enum TestDrivers {
  static let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  static let directory = checkout.appendingPathComponent("Tests/Drivers")
  static let examples = checkout.appendingPathComponent("Examples/drivers")
}

/// The examples of the author's guide.
@Suite("Conformance of the examples", .serialized, .enabled(if: geteuid() == 0, "needs root"))
struct ExampleConformanceTests {
  @Test(arguments: ["volume-python", "log-socket"])
  func example(name: String) async throws {
    let directory = NSTemporaryDirectory() + "example-\(UUID().uuidString.prefix(8))"
    let points = try await offThePool {
      let session = try DriverSession([TestDrivers.examples.appendingPathComponent(name).path], directory: directory)
      defer { session.end() }
      let description = try #require(session.description)
      return try await Conformance.examine(
        session, role: description.role, ConformanceSettings(driver: description.driver))
    }
    #expect(points.count >= 10)
    for point in points { #expect(point.fault == nil, "\(name): \(point)") }
    try Files.removeTree(directory)
  }
}

/// Runs what blocks on threads of its own: the other tests share a pool of one thread a core.
func offThePool<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
  try await Task(executorPreference: ElasticExecutor()) { try await body() }.value
}
