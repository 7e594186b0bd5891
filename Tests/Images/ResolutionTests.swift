import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

/// Where names and links of archives lead, what sparse files cost, and how deep a tree may be.
@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct ResolutionTests {
  @Test func absoluteNamesAndLinksBeginAtTheRootOfTheLayer() async throws {
    let harness = try await Harness()
    var tar = TarWriter()
    tar.directory("/usr/lib")
    tar.add("/usr/lib/tool", text: "tool")
    tar.add("usr/../etc/./name", text: "name")
    tar.add("/../../top", text: "top")
    tar.add("lib", type: "2", link: "/usr/lib")
    tar.add("rising", type: "2", link: "../../../../usr")
    tar.add("lib/through", text: "absolute")
    tar.add("rising/lib/through2", text: "rising")
    tar.add("hard", type: "1", link: "/usr/lib/tool")
    tar.add("hard2", type: "1", link: "lib/../usr/lib/tool")
    tar.add("lib/hard3", type: "1", link: "/lib/tool")
    // The same file by way of the link: it stays what it is.
    tar.add("lib/tool", type: "1", link: "usr/lib/tool")
    let layer = try await harness.apply(tar.finished)
    let tree = harness.tree(layer.chainID)
    for (path, content) in [
      ("usr/lib/tool", "tool"), ("etc/name", "name"), ("top", "top"), ("usr/lib/through", "absolute"),
      ("usr/lib/through2", "rising"), ("hard", "tool"), ("hard2", "tool"), ("usr/lib/hard3", "tool"),
    ] { #expect(try Files.readText("\(tree)/\(path)") == content, "\(path)") }
    #expect(status("\(tree)/usr/lib/tool")?.st_nlink == 4)
    #expect(status("\(tree)/lib").map { $0.st_mode & S_IFMT } == S_IFLNK)
    for path in ["/usr/lib/through", "/usr/lib/hard3", "/top", "/etc/name"] { #expect(!Files.exists(path)) }

    // So they do across layers.
    var above = TarWriter()
    above.add("/copy", type: "1", link: "/lib/tool")
    let upper = try await harness.apply(above.finished, parent: layer.chainID)
    let root = try await harness.mount(.random(), [layer.chainID, upper.chainID])
    #expect(try text(root, "copy") == "tool")
  }

  @Test func archivesOfImagesMayHaveAbsoluteNames() async throws {
    let harness = try await ImagesHarness()
    var archive = try ArchiveBuilder.standard()
    archive.members = archive.members.map { ("/\($0.name)", $0.bytes) }
    #expect(try await harness.loading(try pipeline(archive.bytes)) == ["demo:one"])
    #expect(harness.leftovers.isEmpty)
  }

  @Test func holesOfSparseFilesCostNothing() async throws {
    let harness = try await ImagesHarness(configuration: ["layer-limit": "10000000"])
    var tar = TarWriter()
    tar.sparse("huge", size: 1 << 40, pieces: [(0, [1]), (1 << 39, [2])])
    let id = try await harness.importing(try pipeline(tar.finished), "huge")
    let image = try await harness.resolve("huge")
    #expect(image.id == id && image.size == 1 << 40)
    let info = try #require(status("\(harness.base.tree(image.layers[0]))/huge"))
    #expect(info.st_size == 1 << 40 && info.st_blocks < 100)
    #expect(harness.leftovers.isEmpty)

    // What an archive of images unpacks to is bounded too, be it zeros in a compressed one or a hole.
    var zeros = TarWriter()
    zeros.add(Array("layer.tar".utf8), data: [UInt8](repeating: 0, count: 11_000_000))
    var hole = TarWriter()
    hole.sparse("layer.tar", size: 1 << 40, pieces: [(1 << 39, [1])])
    for archive in [try compress(zeros.finished, "gzip"), hole.finished] {
      let bomb = await #expect(throws: EngineError.self) { try await harness.loading(try pipeline(archive)) }
      #expect(bomb?.message == "the archive is refused: \"layer.tar\" is larger than the 10000000 bytes allowed")
    }

    // Each of these pieces is a byte in the archive and a block on the disk.
    var many = TarWriter()
    many.sparse("many", size: 1 << 30, pieces: (0..<4000).map { (Int64($0) * 8192, [7]) })
    let small = many.finished
    #expect(small.count < 100_000)
    let refused = await #expect(throws: EngineError.self) { try await harness.importing(try pipeline(small)) }
    #expect(refused?.description.contains("takes more than the 10000000 bytes allowed on the disk") == true)

    // A map that is larger than anything in the file would be kept in memory.
    var map = TarWriter()
    map.sparse("map", size: 1 << 20, pieces: [(Int64, [UInt8])](repeating: (0, []), count: 2_000_000))
    let gigantic = await #expect(throws: EngineError.self) { try await harness.importing(try pipeline(map.finished)) }
    #expect(gigantic?.message == "the layer is refused: the headers of an entry take more than 4 MiB")

    // Together these say more bytes than can be counted.
    var absurd = TarWriter()
    for name in ["a", "b", "c"] { absurd.sparse(name, size: Int64.max / 2, pieces: [(0, [1])]) }
    let error = await #expect(throws: EngineError.self) { try await harness.importing(try pipeline(absurd.finished)) }
    #expect(error?.code == .invalidArgument, "\(String(describing: error))")
    #expect(harness.leftovers.isEmpty)
  }

  /// A tree deeper than a process has descriptors, and than a path may be long.
  @Test func exportsTreesOfAnyDepth() async throws {
    let harness = try await Harness()
    let depth = 2500
    let layer = try await harness.apply(OverlayTests.base().finished)
    let container = ObjectID.random()
    let root = try await harness.mount(container, [layer.chainID])
    var current = OwnedDescriptor(adopting: linux_openat(root.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0))
    for _ in 0..<depth {
      try #require(mkdirat(current.number, "d", 0o755) == 0)
      current = OwnedDescriptor(adopting: linux_openat(current.number, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0))
    }
    try #require(symlinkat("end", current.number, "deepest") == 0)
    let file = Descriptor(adopting: linux_memfd_create("export", 1))
    _ = try await harness.bus.request(SnapshotExport(container: container, layers: [layer.chainID], output: file))
    lseek(file.number, 0, SEEK_SET)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    defer { buffer.deallocate() }
    let reader = try ArchiveReader(.tar, decompressing: false, subject: "the export") { () throws(EngineError) in
      UnsafeRawBufferPointer(rebasing: buffer[..<max(0, read(file.number, buffer.baseAddress, buffer.count))])
    }
    var names: Set<String> = []
    while try reader.next() { names.insert(reader.name) }
    #expect(names.contains(String(repeating: "d/", count: depth) + "deepest"))
    #expect(names.contains("etc/passwd") && names.contains("d/d/"))
    _ = try await harness.bus.request(SnapshotRemove(container: container))
  }
}
