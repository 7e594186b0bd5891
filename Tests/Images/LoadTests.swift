import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

/// Makes docker-archives, good and bad ones.
struct ArchiveBuilder {
  var layers: [[UInt8]] = []
  var tags: [String] = ["demo:one"]
  /// Changes the members before they are written.
  var members: [(name: String, bytes: [UInt8])] = []

  /// Two layers over `OverlayTests.base`.
  static func standard(note: String = "note", tags: [String] = ["demo:one"]) throws -> ArchiveBuilder {
    var second = TarWriter()
    second.directory("etc")
    second.add("etc/note", text: note)
    var builder = ArchiveBuilder(layers: [OverlayTests.base().finished, second.finished], tags: tags)
    try builder.fill()
    return builder
  }

  mutating func fill(compress: Bool = false) throws {
    let digests = try layers.map { try SHA256.digest(of: $0) }
    let differences = digests.map { "\"\($0)\"" }.joined(separator: ",")
    let configuration = Array(
      """
      {"architecture":"amd64","os":"linux","created":"2024-05-01T10:00:00Z","unknown":{"x":[1]},
      "config":{"Env":["A=b"],"Cmd":["/sh"],"Labels":null},"rootfs":{"type":"layers","diff_ids":[\(differences)]}}
      """.utf8)
    let name = "\(try SHA256.digest(of: configuration).hex).json"
    members = digests.enumerated().map { ("\($1.hex)/layer.tar", layers[$0]) }
    members.append((name, configuration))
    let names = digests.map { "\"\($0.hex)/layer.tar\"" }.joined(separator: ",")
    let repositoryTags = tags.isEmpty ? "null" : "[\(tags.map { "\"\($0)\"" }.joined(separator: ","))]"
    members.append(
      ("manifest.json", Array("[{\"Config\":\"\(name)\",\"RepoTags\":\(repositoryTags),\"Layers\":[\(names)]}]".utf8)))
  }

  var bytes: [UInt8] {
    var tar = TarWriter()
    for (name, bytes) in members { tar.add(Array(name.utf8), data: bytes) }
    return tar.finished
  }
}

@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct LoadTests {
  @Test func loadsAndFindsAgainAfterARestart() async throws {
    let harness = try await ImagesHarness()
    let archive = try ArchiveBuilder.standard(tags: ["demo:one", "registry.example:5000/team/app:v1"])
    #expect(
      try await harness.loading(try pipeline(archive.bytes)) == ["demo:one", "registry.example:5000/team/app:v1"])
    let again = try await ImagesHarness(root: harness.base.root, records: harness.records)
    for harness in [harness, again] {
      let image = try await harness.resolve("demo:one")
      #expect(image.configuration.config?.command == ["/sh"] && image.layers.count == 2 && image.size == 13)
      #expect(image.references == ["demo:one", "registry.example:5000/team/app:v1"])
      for text in [
        "docker.io/library/demo:one", image.id.description, image.id.hex, image.id.short,
        String(image.id.hex.prefix(4)),
        "sha256:\(image.id.hex.prefix(9))", "demo@\(image.id)", "registry.example:5000/team/app:v1",
      ] { #expect(try await harness.resolve(text).id == image.id, "\(text)") }
      for (text, message) in [
        ("demo", "No such image: demo:latest"), ("nothing:x", "No such image: nothing:x"),
        ("sha256:\(String(repeating: "0", count: 64))", "No such image: sha256:\(String(repeating: "0", count: 64))"),
        ("other@\(image.id)", "No such image: other@\(image.id)"),
      ] {
        let error = await #expect(throws: EngineError.self) { try await harness.resolve(text) }
        #expect(error?.code == .notFound && error?.message == message)
      }
      let error = await #expect(throws: EngineError.self) { try await harness.resolve("UPPER") }
      #expect(error?.code == .invalidArgument)
      let root = try await harness.base.mount(.random(), image.layers)
      #expect(try text(root, "etc/note") == "note" && text(root, "etc/passwd") == "root")
    }
    #expect(harness.leftovers.isEmpty)
  }

  @Test(arguments: ["docker-archive", "oci-archive"])
  func loadsWhatSkopeoWrites(_ kind: String) async throws {
    let harness = try await ImagesHarness()
    let path = "\(harness.base.root)/in.tar"
    let archive = try ArchiveBuilder.standard()
    try Files.replace(path, with: archive.bytes, durable: false)
    try shell("skopeo --insecure-policy copy docker-archive:\(path) \(kind):\(path).out:demo:copied")
    #expect(try await harness.loading(try pipeline(try Files.read("\(path).out"))) == ["demo:copied"])
    let image = try await harness.resolve("demo:copied")
    let root = try await harness.base.mount(.random(), image.layers)
    #expect(try text(root, "etc/note") == "note" && text(root, "bin/same") == "tool")
    try shell("zstd -q \(path).out && gzip \(path).out")
    for name in ["zst", "gz"] {
      #expect(try await harness.loading(try pipeline(try Files.read("\(path).out.\(name)"))) == ["demo:copied"])
    }
    #expect(harness.leftovers.isEmpty)
  }

  @Test func loadsLinksOfOldArchivesAndUntaggedImages() async throws {
    let harness = try await ImagesHarness()
    let archive = try ArchiveBuilder.standard(tags: [])
    var tar = TarWriter()
    let shared = archive.members[0]
    tar.directory("shared")
    tar.add(Array("shared/layer.tar".utf8), data: shared.bytes)
    // The manifest names it by a link, as `docker save` wrote a layer that an earlier image had.
    let holder = shared.name.split(separator: "/")[0]
    tar.directory("x\(holder.prefix(10))")
    tar.add(Array("l".utf8), type: "2", link: "shared/layer.tar")
    tar.add(Array("d/l2".utf8), type: "2", link: "../l")
    for (name, bytes) in archive.members.dropFirst() {
      tar.add(
        Array(name.utf8),
        data: name == "manifest.json"
          ? Array(
            String(decoding: bytes, as: UTF8.self).split(separator: shared.name, omittingEmptySubsequences: false)
              .joined(separator: "d/l2").utf8) : bytes)
    }
    let lines = try await harness.loading(try pipeline(tar.finished))
    #expect(lines.count == 1 && lines[0].hasPrefix("sha256:"))
    #expect(try await harness.resolve(lines[0]).references.isEmpty)
  }

  struct BadArchive: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let says: String
    let build: @Sendable () throws -> [UInt8]

    static func edited(
      _ description: String, says: String, _ edit: @escaping @Sendable (inout ArchiveBuilder) throws -> Void
    ) -> BadArchive {
      BadArchive(testDescription: description, says: says) {
        var archive = try ArchiveBuilder.standard()
        try edit(&archive)
        return archive.bytes
      }
    }

    static let all: [BadArchive] = [
      .edited("no manifest", says: "neither manifest.json nor index.json") { $0.members.removeLast() },
      .edited("no configuration", says: ".json is missing") { $0.members.remove(at: 2) },
      .edited("no layer", says: "layer.tar is missing") { $0.members.remove(at: 1) },
      .edited("another configuration", says: "does not have the digest") { $0.members[2].bytes.append(10) },
      .edited("another layer", says: "the layer's digest is") { archive in archive.members[1].bytes[600] ^= 1 },
      .edited("layers swapped", says: "the layer's digest is") { archive in
        (archive.members[0].bytes, archive.members[1].bytes) = (archive.members[1].bytes, archive.members[0].bytes)
      },
      .edited("a manifest that is no JSON", says: "manifest.json does not read") { $0.members[3].bytes = [123, 58] },
      .edited("a manifest of another form", says: "manifest.json does not read") {
        $0.members[3].bytes = Array("{}".utf8)
      },
      .edited("a gigantic manifest", says: "larger than 8 MiB") { archive in
        archive.members[3].bytes = [UInt8](repeating: 32, count: 9 << 20)
      },
      .edited("name with ..", says: "entry \"../escape\"") { $0.members.insert(("../escape", [1]), at: 0) },
      .edited("too few layers", says: "layers length mismatch") { archive in
        archive.members[3].bytes =
          Array(
            String(decoding: archive.members[3].bytes, as: UTF8.self)
              .split(separator: "\"Layers\":[")[0].utf8) + Array("\"Layers\":[]}]".utf8)
      },
      .edited("a bad name", says: "invalid reference format") { archive in
        archive.tags = ["Bad:Name:x"]
        try archive.fill()
      },
      .edited("a hostile layer", says: "entry \"../escape\"") { archive in
        var tar = TarWriter()
        tar.add("../escape", text: "x")
        archive.layers[1] = tar.finished
        try archive.fill()
      },
      .init(testDescription: "a link out", says: "neither manifest.json") {
        var tar = TarWriter()
        tar.add("manifest.json", type: "2", link: "/etc/passwd")
        return tar.finished
      },
      .init(testDescription: "a rising link", says: "leads out of the archive") {
        var tar = TarWriter()
        tar.add("a/manifest.json", type: "2", link: "../../etc/passwd")
        return tar.finished
      },
      .init(testDescription: "a ring of links", says: "neither manifest.json") {
        var tar = TarWriter()
        tar.add("manifest.json", type: "2", link: "other")
        tar.add("other", type: "2", link: "manifest.json")
        return tar.finished
      },
      .init(testDescription: "nothing", says: "empty") { [] },
      .init(testDescription: "no archive", says: "archive") { Array(repeating: 77, count: 5000) },
    ]
  }

  @Test(arguments: BadArchive.all)
  func refusesBadArchives(_ bad: BadArchive) async throws {
    let harness = try await ImagesHarness()
    let error = await #expect(throws: EngineError.self) {
      try await harness.loading(try pipeline(try bad.build()))
    }
    #expect(error?.code == .invalidArgument)
    #expect(error?.description.contains(bad.says) == true, "\(error?.description ?? "")")
    #expect(error?.description.contains("\n") == false)
    #expect(harness.leftovers.isEmpty && harness.base.journal.entries(plugin: "images").isEmpty)
    #expect(try await harness.bus.request(ImageList()).isEmpty)
  }

  @Test func refusesArchivesCutShortAnywhere() async throws {
    let harness = try await ImagesHarness()
    let whole = try ArchiveBuilder.standard().bytes
    for end in stride(from: 0, to: whole.count - 1024, by: 700) {
      await #expect(throws: EngineError.self, "at \(end)") {
        try await harness.loading(try pipeline(Array(whole[..<end])))
      }
    }
    #expect(harness.leftovers.isEmpty)
  }

  @Test func aFullDiskLeavesNothing() async throws {
    // A tmpfs that is attached nowhere, reached through its descriptor.
    let disk = try Mounts.make("tmpfs", [.value("size", "1m"), .value("mode", "700")])
    let harness = try await ImagesHarness(root: "/proc/self/fd/\(disk.number)")
    var tar = TarWriter()
    tar.add(Array("big".utf8), data: [UInt8](repeating: 7, count: 2 << 20))
    var archive = ArchiveBuilder(layers: [tar.finished])
    try archive.fill()
    for work in [
      { _ = try await harness.loading(try pipeline(archive.bytes)) },
      { _ = try await harness.importing(try pipeline(tar.finished), "big") },
    ] {
      let error = await #expect(throws: EngineError.self) { try await work() }
      #expect(error?.code == .resourceExhausted)
      #expect(error?.description.contains("no space left on device") == true, "\(error?.description ?? "")")
      #expect(harness.leftovers.isEmpty)
    }
    // What fits still works.
    #expect(try await harness.loading(try pipeline(try ArchiveBuilder.standard().bytes)) == ["demo:one"])
  }

  @Test func overlappingLoadsKeepWhatOneOfThemNeeds() async throws {
    let harness = try await ImagesHarness()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<12 {
        group.addTask {
          // All share the lowest layer; every second one fails at its own, after the shared one was applied.
          var archive = try ArchiveBuilder.standard(note: "\(number)", tags: ["demo:n\(number)"])
          if number % 2 == 1 { archive.members[1].bytes[600] ^= 1 }
          let bytes = archive.bytes
          if number % 2 == 1 {
            await #expect(throws: EngineError.self) { try await harness.loading(try pipeline(bytes)) }
          } else {
            #expect(try await harness.loading(try pipeline(bytes)) == ["demo:n\(number)"])
          }
        }
      }
      try await group.waitForAll()
    }
    #expect(harness.base.names(harness.base.layerDirectory).count == 7)
    for number in stride(from: 0, to: 12, by: 2) {
      let root = try await harness.base.mount(.random(), try await harness.resolve("demo:n\(number)").layers)
      #expect(try text(root, "etc/note") == "\(number)" && text(root, "sh") == "tool")
    }
    #expect(harness.leftovers.isEmpty)
  }

  @Test(arguments: [true, false])
  func aClientThatGoesAwayLeavesNothing(_ loads: Bool) async throws {
    let harness = try await ImagesHarness()
    var ends: [Int32] = [0, 0]
    try #require(pipe2(&ends, O_CLOEXEC) == 0)
    let output = Descriptor(adopting: ends[0])
    let input = OwnedDescriptor(adopting: ends[1])
    try Files.writeAll(input.number, Array(try ArchiveBuilder.standard().bytes[..<2000]))
    let lease = Lease()
    let task = Task { () async throws -> Void in
      if loads {
        _ = try await harness.streaming(ImageLoad(archive: output), lease: lease)
      } else {
        let request = ImageImport(archive: output, reference: nil, changes: [], comment: nil)
        _ = try await harness.streaming(request, lease: lease)
      }
    }
    try await waitUntil {
      harness.base.journal.entries(plugin: loads ? "images" : "snapshots-overlay").isEmpty == false
    }
    await lease.release()
    await #expect(throws: EngineError.self) { try await task.value }
    #expect(harness.leftovers.isEmpty)
    withExtendedLifetime(input) {}
  }

  @Test func aFailingRecordLeavesNothing() async throws {
    let harness = try await ImagesHarness()
    harness.records.failure.withLock { $0 = EngineError(.internalFailure, "the disk is on fire") }
    await #expect(throws: EngineError.self) {
      try await harness.loading(try pipeline(try ArchiveBuilder.standard().bytes))
    }
    #expect(harness.leftovers.isEmpty)
  }

  @Test func aNewEngineSweepsWhatADeadOneLeft() async throws {
    let harness = try await ImagesHarness()
    _ = try await harness.loading(try pipeline(try ArchiveBuilder.standard().bytes))
    let image = try await harness.resolve("demo:one")
    let orphan = try await harness.base.apply(try ArchiveBuilder.standard(note: "orphan").layers[1])
    try Files.makeDirectories("\(harness.base.root)/images/tmp/dead/x")
    try Files.replace("\(harness.base.root)/images/blobs/sha256/\(orphan.chainID.hex)", with: [1], durable: false)
    let second = try await ImagesHarness(root: harness.base.root, records: harness.records)
    #expect(second.leftovers.isEmpty)
    #expect(Set(second.base.names(second.base.layerDirectory)) == Set(image.layers.map(\.hex)))
    #expect(try await second.bus.request(PluginCheck(known: [], running: [], repair: false), driver: "images").isEmpty)
    // A configuration that is not what was stored is told by name, and the image can still be removed.
    let blob = "\(harness.base.root)/images/blobs/sha256/\(image.id.hex)"
    try Files.replace(blob, with: Array("{}".utf8), durable: false)
    let third = try await ImagesHarness(root: harness.base.root, records: harness.records)
    let error = await #expect(throws: EngineError.self) { try await third.resolve("demo:one") }
    #expect(error?.code == .corrupt && error?.message.contains(blob) == true)
    _ = try await third.bus.request(ImageRemove(reference: "demo:one", force: false))
    #expect(third.leftovers.isEmpty)
  }
}
