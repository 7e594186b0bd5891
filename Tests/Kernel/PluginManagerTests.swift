import Contracts
import Foundation
import LinuxSystem
import Testing

@testable import Kernel

@Suite("Plugin lifecycle")
struct PluginManagerTests {
  static func manifest(_ name: String, _ role: String = "", needs: [String] = []) -> PluginManifest {
    PluginManifest(name: name, role: role.isEmpty ? name : role, dependencies: needs)
  }

  @Test func startsDependenciesFirst() throws {
    let manifests = [
      Self.manifest("containers", needs: ["network", "image"]),
      Self.manifest("images", "image", needs: ["records"]),
      Self.manifest("bridge", "network"),
      Self.manifest("none", "network"),
      Self.manifest("records"),
    ]
    let order = try PluginManager.order(manifests).map { manifests[$0].name }
    #expect(order == ["bridge", "none", "records", "images", "containers"])
  }

  @Test(arguments: [
    (
      [manifest("a", needs: ["b"]), manifest("b", needs: ["c"]), manifest("c", needs: ["a"])],
      EngineError.Code.invalidArgument, "a -> b -> c -> a"
    ),
    ([manifest("a", needs: ["a"])], .invalidArgument, "a -> a"),
    ([manifest("a", needs: ["z"])], .notFound, "needs \"z\""),
    ([manifest("a"), manifest("a")], .conflict, "two plugins of the name a"),
  ])
  func refusesASetThatCannotStart(manifests: [PluginManifest], code: EngineError.Code, text: String) {
    do {
      _ = try PluginManager.order(manifests)
      Issue.record("expected \(code)")
    } catch {
      #expect(error.code == code)
      #expect(error.message.contains(text), "\(error)")
    }
  }

  class Recording: @unchecked Sendable {
    // Unchecked: one test at a time uses it.
    static let events = Recorder<String>()
  }

  final class Good: Plugin {
    static let manifest = PluginManifest(name: "good", role: "good")
    let name: String
    init(host: PluginHost) throws(EngineError) { name = host.manifest.name }
    func register(_ registrar: Registrar) throws(EngineError) {
      try registrar.answer(Echo.self) { (request, _) async throws(EngineError) in request }
    }
    func start() async throws(EngineError) { Recording.events.append("start \(name)") }
    func stop() async { Recording.events.append("stop \(name)") }
  }

  final class Bad: Plugin {
    static let manifest = PluginManifest(name: "bad", role: "bad")
    init(host: PluginHost) throws(EngineError) {}
    func register(_ registrar: Registrar) throws(EngineError) {
      try registrar.answer(Nobody.self) { (_, _) async throws(EngineError) in Done() }
    }
    func start() async throws(EngineError) { throw EngineError(.unsupported, "the kernel lacks it") }
  }

  static func manager(_ bus: Bus) throws -> PluginManager {
    let directory = NSTemporaryDirectory() + "plugins-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    let instance = Instance(
      root: directory, runtimeDirectory: directory, hash: "00000000", isDefault: false, daemonPath: "", shimPath: "",
      version: "test")
    let journal = try Journal(path: directory + "/journal")
    // Nothing here makes a directory of its own, and the journal has its file open.
    try Files.removeTree(directory)
    return PluginManager(bus: bus, instance: instance, journal: journal)
  }

  @Test func aPluginThatMayBeSkippedIsAndSaysWhy() async throws {
    let bus = Bus()
    let manager = try Self.manager(bus)
    manager.add(Good.self)
    var manifest = Bad.manifest
    manifest.onFailure = .skip
    manager.add(Bad.self, manifest: manifest)
    manager.add(
      Good.self, manifest: PluginManifest(name: "needy", role: "needy", dependencies: ["bad"], onFailure: .skip))
    try await manager.start()
    #expect(
      manager.statuses.map(\.state) == [
        .running, .skipped(reason: "the kernel lacks it"), .skipped(reason: "it needs \"bad\", which is not running"),
      ])
    #expect(try await bus.request(Echo(text: "a")).text == "a")
    await expectError(.unavailable, containing: "the kernel lacks it") { try await bus.request(Nobody()) }
    await manager.stop()
    #expect(manager.statuses[0].state == .stopped)
    await expectError(.unavailable, containing: "stopped") { try await bus.request(Echo(text: "a")) }
  }

  @Test func aPluginThatMustRunStopsTheOthersWhenItDoesNot() async throws {
    let bus = Bus()
    let manager = try Self.manager(bus)
    manager.add(Good.self)
    manager.add(Bad.self)
    await expectError(.unsupported, containing: "the plugin bad did not start") { try await manager.start() }
    #expect(Recording.events.values.contains("stop good"))
  }
}

@Suite("Journal")
struct JournalTests {
  let path = NSTemporaryDirectory() + "journal-\(UUID().uuidString.prefix(8))"

  @Test func keepsWhatIsOpenAcrossEngines() throws {
    defer { try? Files.remove(path) }
    var journal: Journal? = try Journal(path: path)
    let numbers = try journal?.begin(
      plugin: "bridge", container: "c1", [("link", "veth1"), ("address", "10.0.0.2\twith\ttabs\nand \\ lines")])
    try journal?.begin(plugin: "other", [("cgroup", "/x")])
    try journal?.end([numbers?.first ?? 0])
    journal = nil
    let reopened = try Journal(path: path)
    let open = reopened.entries(plugin: "bridge")
    #expect(open.map(\.object) == ["10.0.0.2\twith\ttabs\nand \\ lines"])
    #expect(open.map(\.container) == ["c1"])
    #expect(reopened.entries(plugin: "other").map(\.object) == ["/x"])
    // Numbers are never used twice while an entry is open.
    #expect(try reopened.begin(plugin: "bridge", [("link", "veth2")]).first ?? 0 > open.first?.number ?? .max)
  }

  @Test func dropsALastLineThatACrashCutShort() throws {
    defer { try? Files.remove(path) }
    let journal = try Journal(path: path)
    try journal.begin(plugin: "p", [("link", "a"), ("link", "b")])
    var bytes = try Files.read(path)
    bytes.removeLast(4)
    try Files.replace(path, with: bytes, durable: false)
    #expect(try Journal(path: path).entries(plugin: "p").map(\.object) == ["a"])
  }

  @Test func saysWhereItIsCorrupt() throws {
    defer { try? Files.remove(path) }
    try Files.replace(path, with: Array("+\t1\tp\tlink\ta\t\nnonsense\n".utf8), durable: false)
    #expect(throws: EngineError(.corrupt, "the journal \(path) does not read at line 2")) { try Journal(path: path) }
  }

  @Test func staysBounded() throws {
    defer { try? Files.remove(path) }
    let journal = try Journal(path: path, compactionThreshold: 64)
    let kept = try journal.begin(plugin: "p", [("link", "kept")])
    for number in 0..<1000 { try journal.end(try journal.begin(plugin: "p", [("link", "l\(number)")])) }
    #expect(try Files.readText(path).split(separator: "\n").count < 80)
    #expect(try Journal(path: path).entries(plugin: "p").map(\.number) == kept)
  }
}
