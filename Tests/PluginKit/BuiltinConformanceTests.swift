import BindVolumePlugin
import BridgeNetworkPlugin
import CNINetworkPlugin
import Contracts
import DockerVolumePlugin
import Foundation
import Glibc
import HostNetworkPlugin
import JSONFileLogsPlugin
import Kernel
import LinuxSystem
import LocalVolumePlugin
import NoneNetworkPlugin
import OverlaySnapshotsPlugin
import Synchronization
import Testing
import TmpfsVolumePlugin

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
    for path in ["run/volume-tmpfs", "volume-local/volumes"] {
      for name in (try? Files.list("\(directory)/\(path)")) ?? [] {
        umount2("\(directory)/\(path)/\(name)", Int32(MNT_DETACH))
      }
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

/// What is asked of a stranger's driver is asked of ours.
@Suite("Conformance of the built-in drivers", .serialized, .enabled(if: geteuid() == 0, "needs root"))
struct BuiltinConformanceTests {
  static func examine(
    _ type: any Plugin.Type, role: String, driver: String? = nil, options: [String: String] = [:],
    configuration: [String: String] = [:]
  ) async throws {
    let subject = try await BuiltinSubject(type, configuration: configuration, driver: driver)
    let settings = ConformanceSettings(driver: driver ?? type.manifest.driver, options: options)
    let points = try await offThePool { try await Conformance.examine(subject, role: role, settings) }
    #expect(points.count >= 10)
    for point in points { #expect(point.fault == nil, "\(type.manifest.name): \(point)") }
    await subject.end()
  }

  @Test(arguments: [LocalVolumePlugin.self, TmpfsVolumePlugin.self] as [any Plugin.Type])
  func volumes(type: any Plugin.Type) async throws { try await Self.examine(type, role: "volume") }

  @Test func bindVolumes() async throws {
    let directory = NSTemporaryDirectory() + "bind-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    try await Self.examine(BindVolumePlugin.self, role: "volume", options: ["device": directory])
    try Files.removeTree(directory)
  }

  @Test func localVolumesThatAreMountedOnFirstUse() async throws {
    let directory = NSTemporaryDirectory() + "device-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    try await Self.examine(
      LocalVolumePlugin.self, role: "volume", options: ["type": "none", "o": "bind", "device": directory])
    try Files.removeTree(directory)
  }

  @Test(arguments: [NoneNetworkPlugin.self, HostNetworkPlugin.self] as [any Plugin.Type])
  func networks(type: any Plugin.Type) async throws { try await Self.examine(type, role: "network") }

  @Test func bridgeNetworks() async throws {
    let host = try TestNamespace()
    try await Self.examine(
      BridgeNetworkPlugin.self, role: "network",
      configuration: ["namespace": "/proc/\(getpid())/fd/\(host.descriptor.number)"])
  }

  /// Debian's containernetworking-plugins, in a network namespace of the test's own (the plugins work in that of the
  /// thread that starts them).
  @Test(.enabled(if: access("/usr/lib/cni/bridge", X_OK) == 0, "needs containernetworking-plugins"))
  func cniNetworks() async throws {
    let directory = NSTemporaryDirectory() + "cni-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    let binaries = directory + "/bin"
    try Files.makeDirectories(binaries)
    let host = try TestNamespace()
    for plugin in ["bridge", "host-local", "tuning"] {
      let script =
        "#!/bin/sh\nexec nsenter --net=/proc/\(getpid())/fd/\(host.descriptor.number) /usr/lib/cni/\(plugin)\n"
      try Files.replace("\(binaries)/\(plugin)", with: Array(script.utf8), mode: 0o755, durable: false)
    }
    let list = """
      {"cniVersion": "1.0.0", "name": "conformance", "plugins": [
        {"type": "bridge", "bridge": "cni-test", "isGateway": true,
         "ipam": {"type": "host-local", "dataDir": "\(directory)/leases", "subnet": "10.99.0.0/24",
                  "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]}
      """
    try Files.replace(directory + "/10-test.conflist", with: Array(list.utf8), durable: false)
    try await Self.examine(
      CNINetworkPlugin.self, role: "network",
      configuration: ["configuration_directories": directory, "binary_directories": binaries])
    // Every lease has been given back.
    let leases = try Files.list(directory + "/leases/conformance").filter { $0.hasPrefix("10.") }
    #expect(leases == [])
    try Files.removeTree(directory)
  }

  /// Through our adapter, somebody else's plugin of Docker's protocol passes too.
  @Test(arguments: [[], ["chunked"]])
  func dockerVolumes(mode: [String]) async throws {
    let directory = NSTemporaryDirectory() + "docker-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    let process = Process()
    process.executableURL = TestDrivers.directory.appendingPathComponent("docker-volume")
    process.arguments = [directory + "/them.sock", directory + "/volumes"] + mode
    try process.run()
    for _ in 0..<2000 where !Files.exists(directory + "/them.sock") { try await Task.sleep(for: .milliseconds(5)) }
    try await Self.examine(
      DockerVolumePlugin.self, role: "volume", driver: "them", configuration: ["directories": directory])
    // Not SIGTERM: a process inherits the blocked signals of the worker thread that started it.
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
    try Files.removeTree(directory)
  }

  @Test func logs() async throws { try await Self.examine(JSONFileLogsPlugin.self, role: "log") }

  @Test(arguments: ["auto", "classic"])
  func snapshots(mount: String) async throws {
    try await Self.examine(OverlaySnapshotsPlugin.self, role: "snapshot", configuration: ["mount": mount])
  }

  /// A driver that is added to the tree without its conformance test is noticed here.
  @Test func everyBuiltinDriverIsExamined() throws {
    let here = try String(contentsOf: URL(fileURLWithPath: #filePath), encoding: .utf8)
    let plugins = TestDrivers.checkout.appendingPathComponent("Plugins")
    var found: Set<String> = []
    let files = try #require(FileManager.default.enumerator(at: plugins, includingPropertiesForKeys: nil))
    for case let file as URL in files where file.lastPathComponent.hasSuffix("Plugin.swift") {
      let text = try String(contentsOf: file, encoding: .utf8)
      // Those of Docker's volume plugins have the names that they are found by.
      let isDriver = text.contains("answerAsDriver(") || text.contains("VolumeDriverCreate.self")
      guard isDriver, DriverRole.all.contains(where: { text.contains("role: \"\($0.name)\"") }) else { continue }
      let type = file.deletingPathExtension().lastPathComponent
      found.insert(type)
      #expect(here.contains("\(type).self"), "no conformance test examines \(type)")
    }
    #expect(found.count >= 10, "\(found.sorted())")
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
