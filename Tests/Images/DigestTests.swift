import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing
import Wire

@testable import ImagesPlugin

/// One configuration under several manifests: each name has its own.
@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct DigestTests {
  /// The same image twice, once compressed with gzip and once with zstd.
  private func variants(_ registry: FakeRegistry) throws -> (gzip: Digest, zstd: Digest) {
    let layers = PullTests.layers(2, size: 5000)
    return (
      try registry.image("library/demo:gz", layers),
      try registry.image("library/demo:zst", layers, compression: "zstd -q")
    )
  }

  private func blobs(_ harness: ImagesHarness) -> Set<String> {
    Set(harness.base.names("\(harness.base.root)/images/blobs/sha256"))
  }

  private func remove(_ name: String, _ harness: ImagesHarness) async throws {
    _ = try await harness.bus.request(ImageRemove(reference: name, force: false))
  }

  private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }
    func clear() { lines.withLock { $0 = [] } }
    func add(_ line: ImageProgress) {
      lines.withLock { $0.append(line.item.isEmpty ? line.status : "\(line.item): \(line.status)") }
    }
  }

  private static func pull(_ name: String, _ bus: Bus, _ lines: Lines) async throws -> PulledImage {
    lines.clear()
    let pulled = try await Task(executorPreference: bus.executor) {
      try await Call(bus: bus).stream(ImagePull(reference: name)) { line in lines.add(line) }
    }.value
    return try #require(pulled.first)
  }

  @Test func eachTagHasTheDigestOfItsManifest() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let (gzip, zstd) = try variants(registry)
    #expect(gzip != zstd)
    let first = try await harness.pulling("demo:gz")[0]
    let ofGzip = blobs(harness)
    let second = try await harness.pulling("demo:zst")[0]
    #expect(first.id == second.id && first.digest == gzip && second.digest == zstd)
    _ = try await harness.bus.request(ImageTag(source: "demo:gz", target: "reg.example/a:gz"))
    _ = try await harness.bus.request(ImageTag(source: "demo:zst", target: "reg.example/a:zst"))
    _ = try await harness.bus.request(ImageTag(source: "demo:zst", target: "demo:same"))
    // It is the same in a new engine.
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    try registry.register(again.bus)
    for harness in [harness, again] {
      let image = try await harness.resolve("demo:gz")
      #expect(image.repositoryDigests == ["demo@\(gzip)", "demo@\(zstd)"])
      #expect(image.referenceDigests == ["demo:gz": gzip, "demo:zst": zstd, "demo:same": zstd])
      #expect(try await harness.resolve("demo@\(gzip)").id == image.id)
      #expect(try await harness.resolve("demo@\(zstd)").id == image.id)
      #expect(try await harness.pulling("demo:gz", policy: .missing).map(\.digest) == [gzip])
      #expect(try await harness.pulling("demo:zst", policy: .missing).map(\.digest) == [zstd])
      #expect(harness.leftovers.isEmpty)
    }
    // What is pushed is what was pulled, under each name, and it is known then.
    #expect(try await again.streaming(ImagePush(reference: "reg.example/a:gz")).map(\.digest) == [gzip])
    #expect(try await again.streaming(ImagePush(reference: "reg.example/a:zst")).map(\.digest) == [zstd])
    let digests = try await again.resolve("demo:gz").referenceDigests
    #expect(digests?["reg.example/a:gz"] == gzip && digests?["reg.example/a:zst"] == zstd)
    // What is saved too, in one archive with both.
    let path = "\(harness.base.root)/both.tar"
    let output = Descriptor(adopting: try Files.open(path, O_WRONLY | O_CREAT, mode: 0o600).release())
    _ = try await again.streaming(ImageSave(references: ["demo:gz", "demo:zst"], output: output))
    let other = try await ImagesHarness()
    let back = FakeRegistry()
    try back.register(other.bus)
    let names = try await other.loading(Descriptor(adopting: try Files.open(path, O_RDONLY).release()))
    #expect(names == ["demo:gz", "demo:zst"])
    #expect(try await other.streaming(ImagePush(reference: "demo:zst")).map(\.digest) == [zstd])
    #expect(try await other.streaming(ImagePush(reference: "demo:gz")).map(\.digest) == [gzip])

    // With its last name a manifest goes, and only what is its own.
    try await remove("demo:zst", again)
    try await remove("demo:same", again)
    #expect(blobs(again) != ofGzip)
    try await remove("reg.example/a:zst", again)
    #expect(try await again.resolve("demo:gz").repositoryDigests.contains("demo@\(zstd)"))
    try await remove("demo@\(zstd)", again)
    try await remove("reg.example/a@\(zstd)", again)
    #expect(blobs(again) == ofGzip)
    #expect(try await again.streaming(ImagePush(reference: "demo:gz")).map(\.digest) == [gzip])
    try await remove("reg.example/a:gz", again)
    try await remove("demo:gz", again)
    #expect(try await again.bus.request(ImageList()).isEmpty && blobs(again).isEmpty && again.leftovers.isEmpty)
  }

  @Test func aTagThatMovesToAnotherVariantTakesTheOldOneAlong() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let layers = PullTests.layers(2, size: 5000)
    let gzip = try registry.image("library/demo:latest", layers)
    _ = try await harness.pulling("demo")
    let zstd = try registry.image("library/demo:latest", layers, compression: "zstd -q")
    // The image is the same: Docker calls that up to date.
    #expect(try await harness.pulling("demo").map(\.isNew) == [false])
    let image = try await harness.resolve("demo")
    #expect(image.referenceDigests == ["demo:latest": zstd] && image.repositoryDigests.count == 2)
    try await remove("demo@\(gzip)", harness)
    #expect(try await harness.resolve("demo").repositoryDigests == ["demo@\(zstd)"])
    #expect(try await harness.streaming(ImagePush(reference: "demo")).map(\.digest) == [zstd])
    // The digest's name goes, the tag leads on to its manifest.
    try await remove("demo@\(zstd)", harness)
    #expect(try await harness.resolve("demo").referenceDigests == [:])
    #expect(try await harness.streaming(ImagePush(reference: "demo")).map(\.digest) == [zstd])
    // A load under the same name brings a manifest of its own, and that of the pull is not needed any more.
    try await remove("demo@\(zstd)", harness)
    let path = "\(harness.base.root)/in.tar"
    let output = Descriptor(adopting: try Files.open(path, O_WRONLY | O_CREAT, mode: 0o600).release())
    _ = try await harness.streaming(ImageSave(references: ["demo"], output: output))
    try shell("skopeo --insecure-policy copy -q docker-archive:\(path) docker-archive:\(path).plain:demo:latest")
    let before = blobs(harness)
    _ = try await harness.loading(Descriptor(adopting: try Files.open("\(path).plain", O_RDONLY).release()))
    #expect(blobs(harness) != before && blobs(harness).count == before.count)
    #expect(harness.leftovers.isEmpty)
    #expect(try await harness.streaming(ImagePush(reference: "demo")).map(\.digest) != [zstd])
    #expect(harness.leftovers.isEmpty)
  }

  @Test func indexesAreKeptWithTheDigestsThatNameThem() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let manifest = try registry.image("library/demo:direct", PullTests.layers(1), compression: "cat")
    let entry =
      "{\"mediaType\":\"\(MediaType.ociManifest)\",\"digest\":\"\(manifest)\",\"size\":1,"
      + "\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}}"
    let index = try registry.put(
      manifest: "{\"schemaVersion\":2,\"manifests\":[\(entry)]}", type: MediaType.ociIndex, as: "library/demo:index")
    let lines = Lines()
    func pull(_ name: String) async throws -> PulledImage { try await Self.pull(name, harness.bus, lines) }
    #expect(try await pull("demo:index").digest == index)
    #expect(try await pull("demo:direct").digest == manifest)
    // The image was here: Docker shows no layers then.
    #expect(
      lines.all == [
        "direct: Pulling from library/demo", "Digest: \(manifest)", "Status: Downloaded newer image for demo:direct",
      ])
    #expect(try await pull("demo:index").isNew == false)
    #expect(
      lines.all == [
        "index: Pulling from library/demo", "Digest: \(index)", "Status: Image is up to date for demo:index",
      ])
    // Of another image, what it shares is shown as here, and nothing else of it.
    _ = try registry.image("library/demo:more", PullTests.layers(2), compression: "cat", note: "more")
    _ = try await pull("demo:more")
    let shown = lines.all.filter { $0.contains(": Pulling fs layer") || $0.contains(": Already exists") }
    #expect(
      shown.map { $0.split(separator: " ").dropFirst().joined(separator: " ") } == [
        "Already exists", "Already exists", "Pulling fs layer",
      ])
    #expect(lines.all.filter { $0.contains(": Pull complete") }.count == 1)
    try await remove("demo:more", harness)
    let image = try await harness.resolve("demo:index")
    #expect(image.referenceDigests == ["demo:index": index, "demo:direct": manifest])
    #expect(blobs(harness).contains(index.hex) && harness.leftovers.isEmpty)
    try await remove("demo@\(index)", harness)
    #expect(!blobs(harness).contains(index.hex) && blobs(harness).contains(manifest.hex))
    #expect(try await harness.streaming(ImagePush(reference: "demo:index")).map(\.digest) == [manifest])
    #expect(harness.leftovers.isEmpty)
    let differences = try await harness.bus.request(
      PluginCheck(known: [], running: [], repair: false), driver: "images")
    #expect(differences.isEmpty)
  }

  /// Records as they were before each name had its manifest.
  @Test func recordsOfOldAreRead() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let digest = try registry.image("library/demo:latest", PullTests.layers(1))
    let id = try await harness.pulling("demo")[0].id
    harness.records.records.withLock { records in
      for (key, value) in records["image"] ?? [:] {
        guard let start = value.firstRange(of: ",\"digests\":{")?.lowerBound else { continue }
        let end = value[start...].firstRange(of: "}}")?.upperBound ?? value.endIndex
        records["image"]?[key] = String(value[..<start] + value[end...])
      }
      for key in (records["image-reference"] ?? [:]).keys {
        records["image-reference"]?[key] = "{\"image\":\"\(id)\"}"
      }
    }
    #expect(harness.records.records.withLock { !"\($0)".contains("digests") })
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    try registry.register(again.bus)
    #expect(try await again.resolve("demo").referenceDigests == ["demo:latest": digest])
    #expect(try await again.pulling("demo", policy: .missing).map(\.digest) == [digest])
    #expect(try await again.streaming(ImagePush(reference: "demo")).map(\.digest) == [digest])
    let zstd = try registry.image("library/demo:zst", PullTests.layers(1), compression: "zstd -q")
    _ = try await again.pulling("demo:zst")
    #expect(try await again.resolve("demo").referenceDigests?["demo:zst"] == zstd)
    #expect(try await again.streaming(ImagePush(reference: "demo")).map(\.digest) == [digest])
    try await remove("demo:latest", again)
    try await remove("demo:zst", again)
    #expect(blobs(again).isEmpty && again.leftovers.isEmpty)
  }

  @Test func sizesThatManifestsSayAreChecked() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    _ = try registry.image("library/demo:one", PullTests.layers(1))
    _ = try await harness.pulling("demo:one")
    let path = "\(harness.base.root)/saved"
    try Files.makeDirectory(path)
    let output = Descriptor(adopting: try Files.open(path, O_RDONLY | O_DIRECTORY).release())
    _ = try await harness.streaming(ImageSave(references: ["demo:one"], output: output))
    let raw = try shell("skopeo inspect --raw oci:\(path)")
    let manifest = try JSON.decode(ImageManifest.self, Array(raw.utf8))
    for part in [manifest.config, manifest.layers[0], manifest.layers[1]] {
      let lie = raw.replacing(
        "\(part.digest)\",\"size\":\(part.size)", with: "\(part.digest)\",\"size\":\(part.size + 1)")
      #expect(lie != raw)
      let digest = try SHA256.digest(of: Array(lie.utf8))
      try Files.replace("\(path)/blobs/sha256/\(digest.hex)", with: Array(lie.utf8), durable: false)
      let index =
        "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"\(MediaType.ociManifest)\",\"digest\":\"\(digest)\","
        + "\"size\":\(lie.utf8.count)}]}"
      try Files.replace("\(path)/index.json", with: Array(index.utf8), durable: false)
      let other = try await ImagesHarness()
      let layout = Descriptor(adopting: try Files.open(path, O_RDONLY | O_DIRECTORY).release())
      let error = await #expect(throws: EngineError.self) { try await other.loading(layout) }
      #expect(
        error?.message.contains("has \(part.size) bytes, not \(part.size + 1)") == true, "\(String(describing: error))")
      #expect(other.leftovers.isEmpty)
      // A pull is not told otherwise either.
      _ = try registry.put(manifest: lie, type: MediaType.ociManifest, as: "library/lie:latest")
      let refused = await #expect(throws: EngineError.self) { try await harness.pulling("lie") }
      #expect(refused?.message.contains("it says that \(part.digest) has") == true, "\(String(describing: refused))")
      #expect(harness.leftovers.isEmpty)
    }
  }

  @Test func platformsAreAskedFor() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    _ = try registry.image("library/demo:arm", PullTests.layers(1), architecture: "arm64", note: "arm")
    _ = try await harness.pulling("demo:arm")
    func resolve(_ platform: String?) async throws -> ImageDescription {
      try await harness.bus.request(ImageResolve(reference: "demo:arm", platform: platform))
    }
    for text in [nil, "", "linux/arm64", "arm64", "linux/arm64/v8"] {
      #expect(try await resolve(text).configuration.author == "arm")
    }
    let message =
      "image with reference demo:arm was found but does not match the specified platform: wanted linux/amd64, "
      + "actual: linux/arm64"
    let wrong = await #expect(throws: EngineError.self) { try await resolve("linux/amd64") }
    #expect(wrong?.code == .notFound && wrong?.message == message)
    // What is here for another platform is not enough for a pull that would else ask nobody.
    #expect(try await harness.pulling("demo:arm", platform: "arm64", policy: .missing).count == 1)
    await #expect(throws: EngineError.self) {
      try await harness.pulling("demo:arm", platform: "amd64", policy: .missing)
    }
    let path = "\(harness.base.root)/arm.tar"
    for platform in ["arm64", "amd64"] {
      let output = Descriptor(adopting: try Files.open(path, O_WRONLY | O_CREAT, mode: 0o600).release())
      let save = ImageSave(references: ["demo:arm"], output: output, platform: platform)
      if platform == "arm64" {
        _ = try await harness.streaming(save)
      } else {
        let error = await #expect(throws: EngineError.self) { try await harness.streaming(save) }
        #expect(error?.message == message)
      }
      let other = try await ImagesHarness()
      let archive = Descriptor(adopting: try Files.open(path, O_RDONLY).release())
      let load = ImageLoad(archive: archive, platform: platform)
      if platform == "arm64" {
        #expect(try await other.streaming(load) == ["demo:arm"])
      } else {
        await #expect(throws: EngineError.self) { try await other.streaming(load) }
      }
      #expect(other.leftovers.isEmpty)
    }
  }
}
