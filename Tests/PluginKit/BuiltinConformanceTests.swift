import BindVolumePlugin
import BridgeNetworkPlugin
import Contracts
import Foundation
import Glibc
import HostNetworkPlugin
import JSONFileLogsPlugin
import Kernel
import LinuxSystem
import LocalVolumePlugin
import NoneNetworkPlugin
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

  init(_ type: any Plugin.Type, configuration: [String: String] = [:]) async throws {
    self.type = type
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

  private var bus: Bus {
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
    try await bus.request(request, driver: type.manifest.driver)
  }

  func ask<R: StreamRequest>(_ request: R) async throws(EngineError) -> R.Reply {
    try await Call(bus: bus).stream(request, driver: type.manifest.driver) { (_) async throws(EngineError) in }
  }

  func askAndCancel<R: Request>(_ request: R) async throws(EngineError) {
    let (bus, driver) = (try bus, type.manifest.driver)
    let task = Task { _ = try? await bus.request(request, driver: driver) }
    task.cancel()
    await task.value
  }

  /// A crash at each single step is what the crash tests make; here another engine takes over after the message.
  func askAndKill<R: Request>(_ request: R) async throws(EngineError) {
    _ = try? await ask(request)
    try await begin()
  }

  func restart() async throws(EngineError) {
    await life.withLock { $0 }?.plugin.stop()
    try await begin()
  }
}

/// What is asked of a stranger's driver is asked of ours.
@Suite("Conformance of the built-in drivers", .enabled(if: geteuid() == 0, "needs root"))
struct BuiltinConformanceTests {
  static func examine(
    _ type: any Plugin.Type, role: String, options: [String: String] = [:], configuration: [String: String] = [:]
  ) async throws {
    let subject = try await BuiltinSubject(type, configuration: configuration)
    let points = try await Conformance.examine(
      subject, role: role, ConformanceSettings(driver: type.manifest.driver, options: options))
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

  @Test func logs() async throws { try await Self.examine(JSONFileLogsPlugin.self, role: "log") }
}
