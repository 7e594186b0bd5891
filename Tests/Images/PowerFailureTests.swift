import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import ImagesPlugin

/// A pull is answered before the disk has the image; these hold it to what a power failure may do in between.
@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct PowerFailureTests {
  /// A snapshot driver's sync that takes as long as the test says, or fails.
  final class Gate: Sendable {
    private let state = Mutex<(isOpen: Bool, isBroken: Bool, syncs: Int)>((false, false, 0))

    init(_ bus: Bus) throws {
      try Registrar(
        bus: bus, manifest: PluginManifest(name: "slow-disk", role: "snapshot", driver: "slow-disk")
      ).answerAsDriver(SnapshotSync.self) { _, _ throws(EngineError) in
        if self.state.withLock({ $0.isBroken }) { throw EngineError(.internalFailure, "input/output error") }
        while !self.state.withLock({ $0.isOpen }) { usleep(1000) }
        self.state.withLock { $0.syncs += 1 }
        return Done()
      }
      bus.setDefaultDriver("slow-disk", for: [SnapshotSync.self])
    }

    func open(_ value: Bool = true) { state.withLock { $0.isOpen = value } }
    func fail(_ value: Bool = true) { state.withLock { $0.isBroken = value } }
    var syncs: Int { state.withLock { $0.syncs } }
  }

  private func unsynced(_ harness: ImagesHarness) -> Int {
    harness.records.records.withLock { ($0["image"] ?? [:]).values.count { $0.contains("\"unsynced\"") } }
  }

  /// What the disk has after the power came back: the records, and another boot.
  private func reboot(_ harness: ImagesHarness, _ registry: FakeRegistry) async throws -> ImagesHarness {
    let boot = try BootIdentity.read()
    harness.records.records.withLock { records in
      for (key, value) in records["image"] ?? [:] {
        let parts = value.split(separator: boot, omittingEmptySubsequences: false)
        records["image"]?[key] = parts.joined(separator: "another-boot")
      }
    }
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    try registry.register(again.bus)
    return again
  }

  @Test func aPullDoesNotWaitForTheDisk() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let gate = try Gate(harness.bus)
    try registry.image("library/demo:latest", PullTests.layers(3))
    #expect(try await harness.pulling("demo").map(\.isNew) == [true])
    #expect(gate.syncs == 0 && unsynced(harness) == 1)
    #expect(try await harness.resolve("demo").layers.count == 4)
    gate.open()
    try await waitUntil { self.unsynced(harness) == 0 }
    // What has no other copy waits.
    _ = try await harness.importing(memory(OverlayTests.base().finished), "imported")
    #expect(gate.syncs == 2 && unsynced(harness) == 0)
  }

  @Test func theEndOfTheEngineWaitsForTheDisk() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let gate = try Gate(harness.bus)
    try registry.image("library/demo:latest", PullTests.layers(1))
    _ = try await harness.pulling("demo")
    let ended = Mutex(false)
    let end = Task(executorPreference: harness.bus.executor) {
      await harness.plugin.stop()
      ended.withLock { $0 = true }
    }
    for _ in 0..<50 { await Task.yield() }
    #expect(!ended.withLock { $0 })
    gate.open()
    await end.value
    #expect(unsynced(harness) == 0)
  }

  @Test func aPowerFailureLosesAllOfAnImage() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let gate = try Gate(harness.bus)
    gate.open()
    let layers = PullTests.layers(4, size: 60_000)
    try registry.image("library/demo:latest", Array(layers[..<3]))
    _ = try await harness.pulling("demo")
    try await waitUntil { self.unsynced(harness) == 0 }
    let former = try await harness.resolve("demo")
    gate.open(false)
    let newer = try registry.image("library/demo:latest", layers)
    try registry.image("library/other:latest", [layers[0], layers[3]])
    _ = try await harness.pulling("demo")
    _ = try await harness.pulling("other")
    _ = try await harness.bus.request(ImageTag(source: "demo", target: "mine"))
    let lost = try await harness.resolve("demo")
    #expect(lost.id != former.id && unsynced(harness) == 2)

    // Files whose data were never written are empty, and one is not what it should be.
    let root = harness.base.root
    try shell("truncate -s 0 \(root)/images/blobs/sha256/\(lost.id.hex)")
    try shell("truncate -s 0 \(harness.base.layerDirectory)/\(lost.layers[4].hex)/layer")
    try shell("rm \(harness.base.tree(lost.layers[3]))/etc/last")
    let again = try await reboot(harness, registry)
    defer { gate.open() }
    #expect(try await again.resolve("demo").id == former.id)
    for name in ["mine", "other"] {
      let error = await #expect(throws: EngineError.self) { try await again.resolve(name) }
      #expect(error?.code == .notFound)
    }
    let mounted = try await again.base.mount(.random(), former.layers)
    #expect(try text(mounted, "etc/last") == "2")
    #expect(again.leftovers.isEmpty && again.base.names(again.base.layerDirectory).count == former.layers.count)

    // It comes back whole, and what was whole of its blobs is not fetched again.
    registry.state.withLock { $0.asked = [] }
    #expect(try await again.pulling("demo").map(\.digest) == [newer])
    #expect(try await again.resolve("demo").id == lost.id)
    let whole = try await again.base.mount(.random(), lost.layers)
    #expect(try text(whole, "etc/last") == "4")
    let fetched = registry.state.withLock { state in state.asked.filter { (state.blobs[$0.0]?.count ?? 0) > 10_000 } }
    #expect(fetched.isEmpty)
  }

  @Test func aKilledEngineKeepsWhatItPulled() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let gate = try Gate(harness.bus)
    try registry.image("library/demo:latest", PullTests.layers(2))
    _ = try await harness.pulling("demo")
    #expect(unsynced(harness) == 1)
    defer { gate.open() }
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    #expect(try await again.resolve("demo").layers.count == 3)
    try await waitUntil { self.unsynced(again) == 0 }
  }

  @Test func anImageThatCameAgainMeanwhileIsNotTakenForSafe() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let gate = try Gate(harness.bus)
    try registry.image("library/demo:latest", PullTests.layers(2))
    _ = try await harness.pulling("demo")
    _ = try await harness.bus.request(ImageRemove(reference: "demo", force: false))
    _ = try await harness.pulling("demo")
    gate.open()
    try await waitUntil { self.unsynced(harness) == 0 }
    // Once for the image that went, and once for the one that came.
    #expect(gate.syncs == 2)
  }

  @Test func aDiskThatFailsIsTriedAgain() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let gate = try Gate(harness.bus)
    gate.fail()
    try registry.image("library/demo:latest", PullTests.layers(1))
    try registry.image("library/other:latest", PullTests.layers(2))
    _ = try await harness.pulling("demo")
    await harness.plugin.stop()
    #expect(unsynced(harness) == 1)
    gate.fail(false)
    gate.open()
    _ = try await harness.pulling("other")
    try await waitUntil { self.unsynced(harness) == 0 }
  }
}
