import Contracts
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import VolumeCatalogPlugin

/// A driver that fails while it gives a volume, and again when it is told that the container does without it.
@Suite struct OwedTests {
  /// The driver `frail`, which is down as long as it is told to be.
  final class Frail: Sendable {
    let isDown = Mutex(true)
    let told = Mutex<[ObjectID]>([])

    init(_ fixture: VolumeFixture) throws {
      let registrar = Registrar(
        bus: fixture.bus, manifest: PluginManifest(name: "frail", role: "volume", driver: "frail"))
      try registrar.answerAsDriver(VolumeDriverCreate.self) { (_, _) in .init(mountpoint: "") }
      try registrar.answerAsDriver(VolumeDriverRemove.self) { (_, _) in Done() }
      try registrar.answerAsDriver(VolumeDriverMount.self) { [self] (_, _) async throws(EngineError) in
        try refuseWhileDown()
        return .init(mount: nil, path: fixture.directory)
      }
      try registrar.answerAsDriver(VolumeDriverUnmount.self) { [self] (request, _) async throws(EngineError) in
        try refuseWhileDown()
        told.withLock { $0.append(request.container) }
        return Done()
      }
    }

    private func refuseWhileDown() throws(EngineError) {
      if isDown.withLock({ $0 }) { throw EngineError(.unavailable, "the driver frail is not running") }
    }
  }

  static func failToMount(_ fixture: VolumeFixture) async throws -> (Frail, ObjectID) {
    let frail = try Frail(fixture)
    _ = try await fixture.create("vol", driver: "frail")
    let container = ObjectID.random()
    await #expect(throws: EngineError.self) {
      _ = try await fixture.mount(
        [MountRequest(kind: .volume, source: "vol", target: "/data")], container: container,
        root: fixture.scratch("root"))
    }
    return (frail, container)
  }

  @Test func theCheckSaysItAndRepairsIt() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let (frail, container) = try await Self.failToMount(fixture)
    let object = "use of the volume vol by the container \(container.short)"
    let leftover = SystemDifference(kind: .leftover, plugin: "volumes", object: object)
    #expect(try await fixture.check() == [leftover])
    frail.isDown.withLock { $0 = false }
    #expect(try await fixture.check(repair: true) == [leftover])
    #expect(frail.told.withLock { $0 } == [container])
    #expect(try await fixture.check() == [])
    #expect(fixture.journal.entries(plugin: "volumes") == [])
  }

  @Test(arguments: [false, true])
  func theDriverIsToldWhenItIsWantedAgain(byItsRemoval: Bool) async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let (frail, container) = try await Self.failToMount(fixture)
    frail.isDown.withLock { $0 = false }
    if byItsRemoval {
      _ = try await fixture.bus.request(VolumeRemove(volume: "vol", force: false))
    } else {
      let mounts = [MountRequest(kind: .volume, source: "vol", target: "/data")]
      let other = ObjectID.random()
      _ = try await fixture.mount(mounts, container: other, root: fixture.scratch("root"))
      #expect(frail.told.withLock { $0 } == [container])
      _ = try await fixture.bus.request(VolumeUnmount(container: other))
    }
    #expect(frail.told.withLock { $0.first } == container)
    #expect(fixture.journal.entries(plugin: "volumes") == [])
    #expect(try await fixture.check() == [])
  }

  /// A container that tries again ends what it owed together with what it has now, and not while it has it.
  @Test func theSameContainerMayTryAgain() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let (frail, container) = try await Self.failToMount(fixture)
    frail.isDown.withLock { $0 = false }
    let mounts = [MountRequest(kind: .volume, source: "vol", target: "/data")]
    _ = try await fixture.mount(mounts, container: container, root: fixture.scratch("root"))
    #expect(frail.told.withLock { $0 } == [])
    #expect(try await fixture.check() == [])
    _ = try await fixture.bus.request(VolumeUnmount(container: container))
    #expect(frail.told.withLock { $0 } == [container])
    #expect(fixture.journal.entries(plugin: "volumes") == [])
  }
}
