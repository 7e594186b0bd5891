import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import ImagesPlugin

@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct PullTests {
  /// `count` layers over `OverlayTests.base`, each with a file of `size` bytes that do not compress.
  static func layers(_ count: Int, size: Int = 1000, seed: UInt64 = 1) -> [[UInt8]] {
    var state = seed
    return [OverlayTests.base().finished]
      + (1...count).map { number in
        var tar = TarWriter()
        var bytes: [UInt8] = []
        while bytes.count < size {
          state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
          bytes.append(UInt8(truncatingIfNeeded: state >> 33))
        }
        tar.directory("etc")
        tar.add(Array("etc/file\(number)".utf8), data: bytes)
        tar.add(Array("etc/last".utf8), data: Array("\(number)".utf8))
        return tar.finished
      }
  }

  @Test(arguments: ["cat", "gzip", "zstd -q", "xz"], [false, true])
  func pullsEveryCompression(_ program: String, docker: Bool) async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let digest = try registry.image("library/demo:latest", Self.layers(5), compression: program, docker: docker)
    let lines = Mutex<[String]>([])
    let call = Call(bus: harness.bus)
    let pulled = try await Task(executorPreference: harness.bus.executor) {
      try await call.stream(ImagePull(reference: "demo")) { line in
        lines.withLock { $0.append(line.item.isEmpty ? line.status : "\(line.item): \(line.status)") }
      }
    }.value
    let image = try await harness.resolve("demo")
    #expect(pulled == [PulledImage(reference: "demo:latest", digest: digest, id: image.id, isNew: true)])
    #expect(image.repositoryDigests == ["demo@\(digest)"] && image.layers.count == 6)
    let root = try await harness.base.mount(.random(), image.layers)
    #expect(try text(root, "etc/last") == "5" && text(root, "bin/same") == "tool")
    let seen = lines.withLock { $0 }
    #expect(seen.first == "latest: Pulling from library/demo")
    #expect(seen.filter { $0.hasSuffix(": Pulling fs layer") }.count == 6)
    #expect(seen.filter { $0.hasSuffix(": Pull complete") }.count == 6)
    #expect(seen.suffix(2) == ["Digest: \(digest)", "Status: Downloaded newer image for demo:latest"])
    #expect(harness.leftovers.isEmpty && harness.base.names("\(harness.base.root)/images/ingest").isEmpty)
    // Again: nothing is fetched but the manifest.
    let before = registry.state.withLock { $0.asked.count }
    #expect(try await harness.pulling("demo").map(\.isNew) == [false])
    #expect(registry.state.withLock { $0.asked.count } == before)
    #expect(try await harness.resolve("demo@\(digest)").id == image.id)
    #expect(try await harness.pulling("docker.io/library/demo@\(digest)").map(\.isNew) == [false])
    // A new engine finds it as it was.
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    #expect(try await again.resolve("demo").repositoryDigests == ["demo@\(digest)"])
    let removal = try await again.bus.request(ImageRemove(reference: "demo", force: false))
    #expect(removal.prefix(2) == [.untagged("demo:latest"), .untagged("demo@\(digest)")])
    #expect(again.leftovers.isEmpty && again.base.names("\(harness.base.root)/images/blobs/sha256").isEmpty)
  }

  @Test func choosesThePlatform() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let amd = try registry.image("x/multi:amd", Self.layers(1), note: "amd")
    let arm = try registry.image("x/multi:arm", Self.layers(2), architecture: "arm64", note: "arm")
    func entry(_ digest: Digest, _ os: String, _ architecture: String, _ variant: String? = nil) -> String {
      let more = variant.map { ",\"variant\":\"\($0)\"" } ?? ""
      return "{\"mediaType\":\"\(MediaType.ociManifest)\",\"digest\":\"\(digest)\",\"size\":1,"
        + "\"platform\":{\"os\":\"\(os)\",\"architecture\":\"\(architecture)\"\(more)}}"
    }
    let entries = [
      entry(arm, "linux", "arm64", "v8"), entry(amd, "unknown", "unknown"), entry(amd, "linux", "amd64"),
      entry(amd, "windows", "amd64"),
    ]
    let index = try registry.put(
      manifest: "{\"schemaVersion\":2,\"manifests\":[\(entries.joined(separator: ","))]}", type: MediaType.ociIndex,
      as: "x/multi:latest")
    let host = try await harness.pulling("reg.example/x/multi")
    #expect(host.first?.digest == index)
    #expect(try await harness.resolve("reg.example/x/multi").configuration.author == "amd")
    #expect(try await harness.resolve("reg.example/x/multi").repositoryDigests == ["reg.example/x/multi@\(index)"])
    for text in ["linux/arm64", "arm64", "linux/aarch64/v8"] {
      _ = try await harness.pulling("reg.example/x/multi", platform: text)
      #expect(try await harness.resolve("reg.example/x/multi").configuration.author == "arm", "\(text)")
    }
    for (text, message) in [
      ("linux/s390x", "no matching manifest for linux/s390x in the manifest list entries"),
      ("windows/amd64", "image operating system \"windows\" cannot be used on this platform"),
      ("bad platform", "\"bad platform\": platform specifier component must match \"^[A-Za-z0-9_-]+$\""),
    ] {
      let error = await #expect(throws: EngineError.self) {
        try await harness.pulling("reg.example/x/multi", platform: text)
      }
      #expect(error?.message == message)
    }
    #expect(harness.leftovers.isEmpty)
  }

  @Test func overlappingPullsShareTheirLayers() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let shared = Self.layers(6, size: 300_000)
    for name in ["a", "b", "c"] {
      var own = TarWriter()
      own.add("own", text: name)
      try registry.image("library/\(name):latest", shared + [own.finished])
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for name in ["a", "b", "c", "a", "b"] { group.addTask { _ = try await harness.pulling(name) } }
      try await group.waitForAll()
    }
    for name in ["a", "b", "c"] {
      let image = try await harness.resolve(name)
      let root = try await harness.base.mount(.random(), image.layers)
      #expect(try text(root, "own") == name && text(root, "etc/last") == "6")
    }
    let layers = registry.state.withLock { state in
      state.asked.filter { ask in (state.blobs[ask.0]?.count ?? 0) > 2000 }
    }
    #expect(Set(layers.map(\.0)).count == layers.count, "a layer was fetched twice")
    #expect(harness.leftovers.isEmpty)
  }

  @Test func theSameBlobTwiceInOneImage() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    var empty = TarWriter()
    empty.add("again", text: "again")
    let layers = [OverlayTests.base().finished, empty.finished, Self.layers(1)[1], empty.finished, empty.finished]
    try registry.image("library/demo:latest", layers)
    _ = try await harness.pulling("demo")
    #expect(try await harness.resolve("demo").layers.count == 5)
    #expect(harness.leftovers.isEmpty)
  }

  @Test func aBrokenConnectionIsResumedByALaterCommand() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let layers = Self.layers(3, size: 400_000)
    try registry.image("library/demo:latest", layers)
    let victim = try #require(registry.state.withLock { $0.blobs.first { $0.value.count > 300_000 }?.key })
    registry.state.withLock { $0.faults[victim] = .breaks(after: 150_000) }
    let error = await #expect(throws: EngineError.self) { try await harness.pulling("demo") }
    #expect(error?.message == "connection reset by peer")
    await #expect(throws: EngineError.self) { try await harness.resolve("demo") }
    #expect(harness.leftovers.isEmpty)
    try await waitUntil { harness.base.names(harness.base.layerDirectory).isEmpty }
    // A new engine goes on where the old one was.
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    try registry.register(again.bus)
    registry.state.withLock {
      $0.faults = [:]
      $0.asked = []
    }
    _ = try await again.pulling("demo")
    let asked = registry.state.withLock { $0.asked.first { $0.0 == victim }?.1 }
    #expect(asked == 150_000)
    #expect(again.leftovers.isEmpty && again.base.names("\(harness.base.root)/images/ingest").isEmpty)
  }

  @Test func whatWasBegunWithOtherBytesIsFetchedAnew() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    try registry.image("library/demo:latest", Self.layers(1, size: 100_000))
    let victim = try #require(registry.state.withLock { $0.blobs.first { $0.value.count > 90_000 }?.key })
    try Files.replace(
      "\(harness.base.root)/images/ingest/\(victim.hex)", with: [UInt8](repeating: 7, count: 50_000), durable: false)
    _ = try await harness.pulling("demo")
    #expect(registry.state.withLock { $0.asked.filter { $0.0 == victim }.map(\.1) } == [50_000, 0])
    #expect(harness.leftovers.isEmpty)
  }

  @Test func lyingRegistriesLeaveNothing() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    try registry.image("library/demo:latest", Self.layers(2, size: 50_000))
    let faults: [FakeRegistry.Fault] = [.lies, .flips(at: 20_000), .flips(at: 49_000)]
    let victims = registry.state.withLock { $0.blobs.filter { $0.value.count > 40_000 }.map(\.key) }
    for (victim, fault) in victims.flatMap({ victim in faults.map { (victim, $0) } }) {
      registry.state.withLock { $0.faults = [victim: fault] }
      // What came well of the other layers would not be asked for again.
      try shell("rm -f \(harness.base.root)/images/ingest/*")
      let harness = try await ImagesHarness(root: harness.base.root, records: harness.records)
      try registry.register(harness.bus)
      let error = await #expect(throws: EngineError.self) { try await harness.pulling("demo") }
      #expect(error?.code == .invalidArgument, "\(fault): \(String(describing: error))")
      #expect(!harness.base.names("\(harness.base.root)/images/ingest").contains(victim.hex), "\(fault)")
      #expect(harness.leftovers.isEmpty)
    }
    registry.state.withLock { $0.faults = [:] }
    // From a registry that tells the truth it comes then; what was begun with other bytes is begun anew.
    try shell("rm -f \(harness.base.root)/images/ingest/*")
    for fault in faults + [.breaks(after: 30_000)] {
      registry.state.withLock { $0.faults = [victims[0]: fault] }
      await #expect(throws: EngineError.self) { try await harness.pulling("demo") }
      let ingested = "\(harness.base.root)/images/ingest/\(victims[0].hex)"
      if case .breaks = fault {
        #expect(Files.exists(ingested))
        try shell("printf x | dd of=\(ingested) bs=1 seek=20000 conv=notrunc 2>/dev/null")
      }
      registry.state.withLock { $0.faults = [:] }
      #expect(try await harness.pulling("demo").count == 1, "\(fault)")
      _ = try await harness.bus.request(ImageRemove(reference: "demo", force: true))
      #expect(harness.leftovers.isEmpty)
    }
    // Layers that are not what the configuration says.
    let other = try SHA256.digest(of: [1])
    let first = try SHA256.digest(of: OverlayTests.base().finished)
    try registry.image("library/demo:other", Self.layers(1), differences: [first, other])
    let error = await #expect(throws: EngineError.self) { try await harness.pulling("demo:other") }
    #expect(error?.message.contains("not \(other) as the image says") == true)
    try registry.image("library/demo:count", Self.layers(2), differences: [other])
    let count = await #expect(throws: EngineError.self) { try await harness.pulling("demo:count") }
    #expect(count?.message == "invalid manifest, layers length mismatch: expected 1, got 3")
    #expect(harness.leftovers.isEmpty)
  }

  @Test func aPullThatIsGivenUpEndsAtOnce() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    try registry.image("library/demo:latest", Self.layers(4, size: 200_000))
    let victims = registry.state.withLock { $0.blobs.filter { $0.value.count > 150_000 }.map(\.key) }
    registry.state.withLock { state in for victim in victims { state.faults[victim] = .stalls(after: 100_000) } }
    let bus = harness.bus
    // Two who wait for the same layers: the first to leave takes nothing from the second.
    let pulls = (0..<2).map { _ in
      Task(executorPreference: bus.executor) {
        try await Call(bus: bus).stream(ImagePull(reference: "demo")) { _ throws(EngineError) in }
      }
    }
    try await waitUntil { registry.state.withLock { $0.asked.count } >= 4 }
    for pull in pulls {
      pull.cancel()
      let error = await #expect(throws: EngineError.self) { try await pull.value }
      #expect(error?.code == .cancelled)
    }
    #expect(harness.leftovers.isEmpty)
    registry.state.withLock { $0.faults = [:] }
    _ = try await harness.pulling("demo")
    #expect(try await harness.resolve("demo").layers.count == 5)
  }

  @Test func aBombIsRefused() async throws {
    let registry = FakeRegistry()
    let harness = try await ImagesHarness(configuration: ["layer-limit": "10000000"])
    try registry.register(harness.bus)
    var tar = TarWriter()
    tar.add(Array("zeros".utf8), data: [UInt8](repeating: 0, count: 20_000_000))
    try registry.image("library/bomb:latest", [tar.finished])
    let error = await #expect(throws: EngineError.self) { try await harness.pulling("bomb") }
    #expect(error?.message.contains("unpacks to more than the 10000000 bytes allowed") == true)
    #expect(harness.leftovers.isEmpty)
  }

  @Test func pullsEveryTag() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    for tag in ["one", "two"] { try registry.image("library/demo:\(tag)", Self.layers(1), note: tag) }
    #expect(try await harness.pulling("demo", allTags: true).map(\.reference) == ["demo:one", "demo:two"])
    let error = await #expect(throws: EngineError.self) { try await harness.pulling("demo:one", allTags: true) }
    #expect(error?.message == "tag can't be used with --all-tags/-a")
    #expect(try await harness.pulling("demo:one", policy: .missing).map(\.isNew) == [false])
  }

  @Test func schemaOneAndStrangeManifestsAreRefused() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let digest = "sha256:\(String(repeating: "a", count: 64))"
    for (text, words) in [
      ("{\"schemaVersion\":1,\"fsLayers\":[]}", "schema 1"), ("{}", "neither a manifest nor an index"),
      ("[1]", "does not read"), ("{\"schemaVersion\":2,\"manifests\":[]}", "no matching manifest"),
      (
        "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.cncf.helm.config.v1+json\","
          + "\"digest\":\"\(digest)\",\"size\":1},\"layers\":[]}", "is not an image"
      ),
      (
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"\(digest)\",\"size\":99999999999},\"layers\":[]}",
        "it says it has 99999999999 bytes"
      ), ("{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:xyz\",\"size\":1},\"layers\":[]}", "does not read"),
    ] {
      _ = try registry.put(manifest: text, type: MediaType.ociManifest, as: "library/odd:latest")
      let error = await #expect(throws: EngineError.self) { try await harness.pulling("odd") }
      #expect(error?.description.contains(words) == true, "\(text): \(String(describing: error))")
    }
    #expect(harness.leftovers.isEmpty)
  }
}
