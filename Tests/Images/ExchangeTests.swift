import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import ImagesPlugin

/// Images go to other tools and come back with every byte the same.
@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct ExchangeTests {
  private func save(_ harness: ImagesHarness, _ references: [String], to path: String) async throws {
    let flags = Files.isDirectory(path) ? O_RDONLY | O_DIRECTORY : O_WRONLY | O_CREAT | O_TRUNC
    let output = Descriptor(adopting: try Files.open(path, flags, mode: 0o600).release())
    _ = try await harness.streaming(ImageSave(references: references, output: output))
  }

  private func open(_ path: String) throws -> Descriptor {
    Descriptor(adopting: try Files.open(path, O_RDONLY).release())
  }

  @Test(arguments: ["gzip", "zstd -q"], [false, true])
  func savesWhatSkopeoReadsDigestForDigest(_ compression: String, docker: Bool) async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let digest = try registry.image(
      "library/demo:one", PullTests.layers(3), compression: compression, docker: docker)
    _ = try await harness.pulling("demo:one")
    let image = try await harness.resolve("demo:one")
    let path = "\(harness.base.root)/saved"
    try await save(harness, ["demo:one"], to: "\(path).tar")
    try Files.makeDirectory(path)
    try await save(harness, ["demo:one"], to: path)
    // The same digest, whether it is read as an archive or as a directory.
    for source in ["oci-archive:\(path).tar", "oci:\(path)"] {
      let raw = try shell("skopeo inspect --raw \(source)")
      #expect(try SHA256.digest(of: Array(raw.utf8)) == digest, "\(source)")
    }
    let identifier = try shell("skopeo inspect --config --raw docker-archive:\(path).tar")
    #expect(try SHA256.digest(of: Array(identifier.utf8)) == image.id)
    // And back, into an engine that knows nothing of it.
    for source in ["\(path).tar", path] {
      let other = try await ImagesHarness()
      #expect(try await other.loading(try open(source)) == ["demo:one"])
      #expect(try await other.resolve("demo:one").id == image.id)
      let back = FakeRegistry()
      try back.register(other.bus)
      let pushed = try await other.streaming(ImagePush(reference: "demo:one"))
      #expect(pushed.map(\.digest) == [digest])
      #expect(try await other.resolve("demo@\(digest)").id == image.id)
      #expect(other.leftovers.isEmpty)
    }
  }

  @Test func podmanReadsAndWrites() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    _ = try registry.image("library/demo:one", PullTests.layers(2))
    _ = try await harness.pulling("demo:one")
    let id = try await harness.resolve("demo:one").id
    let path = "\(harness.base.root)/saved.tar"
    try await save(harness, ["demo:one"], to: path)
    let podman =
      "podman --root \(harness.base.root)/podman --runroot \(harness.base.root)/podman-run --storage-driver vfs"
    try shell("\(podman) load -q -i \(path)")
    #expect(try shell("\(podman) images --no-trunc --format '{{.ID}}'").contains(id.description))
    for format in ["docker-archive", "oci-archive"] {
      let back = "\(harness.base.root)/back-\(format).tar"
      try shell("\(podman) save -q --format \(format) -o \(back) docker.io/library/demo:one")
      let other = try await ImagesHarness()
      _ = try await other.loading(try open(back))
      let image = try await other.resolve(format == "docker-archive" ? "demo:one" : "docker.io/library/demo:one")
      let root = try await other.base.mount(.random(), image.layers)
      #expect(try text(root, "etc/last") == "2")
      #expect(other.leftovers.isEmpty)
    }
    try shell("\(podman) rmi -fa >/dev/null; rm -rf \(harness.base.root)/podman*")
  }

  @Test func loadsTheRightPlatformOfALayout() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    _ = try registry.image("library/demo:one", PullTests.layers(1), note: "right")
    _ = try await harness.pulling("demo:one")
    let path = "\(harness.base.root)/saved"
    try Files.makeDirectory(path)
    try await save(harness, ["demo:one"], to: path)
    // A layout as buildx writes it: an index in the index, platforms that are not there, and an attestation.
    let inner = try shell("skopeo inspect --raw oci:\(path)")
    let manifest = try SHA256.digest(of: Array(inner.utf8))
    func entry(_ digest: String, _ platform: String, _ size: Int) -> String {
      "{\"mediaType\":\"\(MediaType.ociManifest)\",\"digest\":\"\(digest)\",\"size\":\(size),\"platform\":\(platform)}"
    }
    let absent = "sha256:\(String(repeating: "b", count: 64))"
    let index =
      "{\"schemaVersion\":2,\"manifests\":["
      + entry(absent, "{\"os\":\"linux\",\"architecture\":\"s390x\"}", 9) + ","
      + entry(manifest.description, "{\"os\":\"linux\",\"architecture\":\"amd64\"}", inner.utf8.count) + ","
      + entry(absent, "{\"os\":\"unknown\",\"architecture\":\"unknown\"}", 9) + "]}"
    let digest = try SHA256.digest(of: Array(index.utf8))
    try Files.replace("\(path)/blobs/sha256/\(digest.hex)", with: Array(index.utf8), durable: false)
    let outer =
      "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"\(MediaType.ociIndex)\",\"digest\":\"\(digest)\","
      + "\"size\":\(index.utf8.count),\"annotations\":{\"io.containerd.image.name\":\"docker.io/x/multi:two\"}}]}"
    try Files.replace("\(path)/index.json", with: Array(outer.utf8), durable: false)
    let other = try await ImagesHarness()
    #expect(try await other.loading(try open(path)) == ["x/multi:two"])
    #expect(try await other.resolve("x/multi:two").configuration.author == "right")
    #expect(other.leftovers.isEmpty)
    // A layout whose blobs are links to elsewhere is not followed.
    try shell("mv \(path)/blobs \(path)/elsewhere && ln -s elsewhere \(path)/blobs")
    await #expect(throws: EngineError.self) { try await other.loading(try open(path)) }
  }

  private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }
    func set(_ new: [String]) { lines.withLock { $0 = new } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
  }

  private static func push(
    _ bus: Bus, _ lines: Lines, _ reference: String, all: Bool = false
  ) async throws -> [PushedImage] {
    lines.set([])
    return try await Task(executorPreference: bus.executor) {
      try await Call(bus: bus).stream(ImagePush(reference: reference, allTags: all)) { line in
        if line.current == nil { lines.add(line.status) }
      }
    }.value
  }

  @Test func pushesOnceAndMountsAcrossRepositories() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    let id = try await harness.importing(try memory(OverlayTests.base().finished), "reg.example/a/one:v1")
    let lines = Lines()
    let first = try await Self.push(harness.bus, lines, "reg.example/a/one:v1")
    #expect(
      lines.all == [
        "The push refers to repository [reg.example/a/one]", "Preparing", "Pushed",
        "v1: digest: \(first[0].digest) size: \(first[0].size)",
      ])
    #expect(
      try await harness.resolve("reg.example/a/one:v1").repositoryDigests == ["reg.example/a/one@\(first[0].digest)"])
    _ = try await Self.push(harness.bus, lines, "reg.example/a/one:v1")
    #expect(lines.all.contains("Layer already exists"))
    for name in ["reg.example/b/two:x", "reg.example/b/two:y"] {
      _ = try await harness.bus.request(ImageTag(source: "reg.example/a/one:v1", target: name))
    }
    let all = try await Self.push(harness.bus, lines, "reg.example/b/two", all: true)
    #expect(all.map(\.tag) == ["x", "y"] && all.allSatisfy { $0.digest == first[0].digest })
    #expect(lines.all.contains("Mounted from a/one"))
    let error = await #expect(throws: EngineError.self) {
      try await Self.push(harness.bus, lines, "reg.example/none:v1")
    }
    #expect(error?.message == "An image does not exist locally with the tag: reg.example/none")
    #expect(try await harness.resolve("reg.example/b/two:y").id == id)
    // What was pushed can be pulled as it is.
    let other = try await ImagesHarness()
    try registry.register(other.bus)
    #expect(try await other.pulling("reg.example/b/two:x").map(\.id) == [id])
    let history = try await other.bus.request(ImageHistory(reference: "reg.example/b/two:x"))
    #expect(history.map(\.id) == [id] && history.map(\.size) == [9])
  }

  @Test func removalsOfSeveralNamesAtOnceLeaveNothing() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    _ = try registry.image("library/demo:one", PullTests.layers(2))
    _ = try await harness.pulling("demo:one")
    let names = ["demo:one"] + (1...8).map { "reg\($0).example/x:y" }
    for name in names.dropFirst() {
      _ = try await harness.bus.request(ImageTag(source: "demo:one", target: name))
      _ = try await harness.streaming(ImagePush(reference: name))
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for name in names {
        group.addTask { _ = try await harness.bus.request(ImageRemove(reference: name, force: false)) }
      }
      try await group.waitForAll()
    }
    #expect(try await harness.bus.request(ImageList()).isEmpty)
    #expect(harness.leftovers.isEmpty && harness.base.names("\(harness.base.root)/images/blobs/sha256").isEmpty)
  }

  @Test func prunesWhatNobodyUses() async throws {
    let (harness, registry) = try await FakeRegistry.make()
    _ = try registry.image("library/demo:one", PullTests.layers(2, size: 5000), note: "old")
    let old = try await harness.pulling("demo:one")[0]
    _ = try registry.image("library/demo:one", PullTests.layers(2, size: 5000, seed: 9), note: "new")
    let new = try await harness.pulling("demo:one")[0]
    #expect(new.isNew && old.id != new.id)
    #expect(try await harness.resolve(old.id.hex).references.isEmpty)
    let kept = try await harness.bus.request(ImagePrune(all: false, until: Timestamp("2020-01-01T00:00:00Z")))
    #expect(kept.steps.isEmpty && kept.reclaimed == 0)
    let reply = try await harness.bus.request(ImagePrune(all: false))
    #expect(reply.steps.contains(.deleted(old.id)) && !reply.steps.contains(.deleted(new.id)))
    #expect(reply.reclaimed > 20_000)
    harness.users.users.withLock { $0 = [.init(id: .random(), containerName: "c", isRunning: false)] }
    #expect(try await harness.bus.request(ImagePrune(all: true)).steps.isEmpty)
    harness.users.users.withLock { $0 = [] }
    #expect(try await harness.bus.request(ImagePrune(all: true)).steps.contains(.deleted(new.id)))
    #expect(harness.leftovers.isEmpty && harness.base.names("\(harness.base.root)/images/blobs/sha256").isEmpty)
  }
}
