import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import OverlaySnapshotsPlugin

@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct OverlayTests {
  static func base() -> TarWriter {
    var tar = TarWriter()
    tar.directory("./", mode: 0o751)
    tar.directory("bin")
    tar.add("bin/tool", mode: 0o4755, uid: 3, gid: 4, text: "tool")
    tar.add("bin/same", type: "1", link: "bin/tool")
    tar.add("sh", type: "2", mode: 0o777, link: "/bin/tool")
    tar.directory("etc")
    tar.add("etc/passwd", text: "root")
    tar.directory("gone")
    tar.add("gone/file", text: "x")
    return tar
  }

  /// ext4 is asked to spread layers and what containers write; elsewhere there is nothing to see.
  @Test(arguments: ["layers", "containers"])
  func layersAreSpreadOverTheDisk(_ name: String) async throws {
    let harness = try await Harness()
    var system = statfs()
    try #require(statfs("\(harness.state)/\(name)", &system) == 0)
    let directory = try Files.open("\(harness.state)/\(name)", O_RDONLY | O_DIRECTORY)
    var flags: UInt32 = 0
    let isKnown = linux_ioctl_pointer(directory.number, 0x8008_6601, &flags) == 0
    let isExt4 = system.f_type == 0xEF53
    #expect(isKnown || !isExt4)
    #expect(!isExt4 || flags & 0x0002_0000 != 0)
    withExtendedLifetime(directory) {}
  }

  @Test func mountsLayersAboveEachOther() async throws {
    let harness = try await Harness()
    let low = try await harness.apply(Self.base().finished)
    #expect(low.chainID == low.differenceID)
    #expect(low.size == 9)
    var tar = TarWriter()
    tar.add("etc/.wh.passwd")
    tar.directory("gone")
    tar.add("gone/.wh..wh..opq")
    tar.add("gone/new", text: "new")
    let high = try await harness.apply(tar.finished, parent: low.chainID)
    let container = ObjectID.random()
    let root = try await harness.mount(container, [low.chainID, high.chainID], discardable: true)
    #expect(try text(root, "bin/same") == "tool")
    #expect(try text(root, "sh") == "tool")
    #expect(try text(root, "gone/new") == "new")
    #expect(throws: SystemCallError.self) { try text(root, "etc/passwd") }
    #expect(throws: SystemCallError.self) { try text(root, "gone/file") }
    var info = stat()
    #expect(fstat(root.number, &info) == 0 && info.st_mode & 0o7777 == 0o751)
    #expect(fstatat(root.number, "bin/tool", &info, 0) == 0)
    #expect(info.st_mode & 0o7777 == 0o4755 && info.st_uid == 3 && info.st_gid == 4 && info.st_nlink == 2)
    #expect(info.st_mtim.tv_sec == 1_700_000_000)
    #expect(fstatat(root.number, "bin", &info, 0) == 0 && info.st_mtim.tv_sec == 1_700_000_000)
    let made = try Files.open(at: root.number, "made", O_CREAT | O_WRONLY, mode: 0o600)
    try Files.writeAll(made.number, Array("12345".utf8))
    #expect(try await harness.bus.request(SnapshotUsage(container: container)) == 5)
    _ = try await harness.bus.request(SnapshotRemove(container: container))
    _ = try await harness.bus.request(SnapshotRemove(container: container))
    #expect(harness.names("\(harness.state)/containers").isEmpty)
    try await waitUntil { harness.names("\(harness.state)/trash").isEmpty }
    try await waitUntil { harness.journal.entries(plugin: "snapshots-overlay").isEmpty }
  }
}

/// Archives that must be refused with one error that names the entry, and must leave nothing.
struct HostileArchive: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let names: String
  let build: @Sendable (inout TarWriter) -> Void

  static let all: [HostileArchive] = [
    .init(testDescription: "name with ..", names: "../escape") { $0.add("../escape", text: "x") },
    .init(testDescription: "name with .. inside", names: "a/../../escape") { $0.add("a/../../escape", text: "x") },
    .init(testDescription: "hard link to itself", names: "./self") {
      $0.add("self", text: "x")
      $0.add("./self", type: "1", link: "/self")
    },
    .init(testDescription: "file through an absolute link", names: "link/escape") {
      $0.add("link", type: "2", link: "/tmp")
      $0.add("link/escape", text: "x")
    },
    .init(testDescription: "directory through a link", names: "link/escape") {
      $0.add("link", type: "2", link: "/tmp")
      $0.directory("link/escape")
    },
    .init(testDescription: "new parents through a link", names: "link/a/b/c") {
      $0.add("link", type: "2", link: "/tmp")
      $0.add("link/a/b/c", text: "x")
    },
    .init(testDescription: "link to a link", names: "b/escape") {
      $0.add("a", type: "2", link: "/tmp")
      $0.add("b", type: "2", link: "a")
      $0.add("b/escape", text: "x")
    },
    .init(testDescription: "ring of links", names: "a/escape") {
      $0.add("a", type: "2", link: "b")
      $0.add("b", type: "2", link: "a")
      $0.add("a/escape", text: "x")
    },
    .init(testDescription: "hard link with ..", names: "stolen") {
      $0.add("stolen", type: "1", link: "../../../../etc/passwd")
    },
    .init(testDescription: "absolute hard link", names: "stolen") { $0.add("stolen", type: "1", link: "/etc/passwd") },
    .init(testDescription: "hard link through a link", names: "stolen") {
      $0.add("etc", type: "2", link: "/etc")
      $0.add("stolen", type: "1", link: "etc/passwd")
    },
    .init(testDescription: "hard link to nothing", names: "stolen") { $0.add("stolen", type: "1", link: "nothing") },
    .init(testDescription: "whiteout through a link", names: "link/.wh.x") {
      $0.add("link", type: "2", link: "/tmp")
      $0.add("link/.wh.x")
    },
    .init(testDescription: "whiteout of ..", names: "a/.wh...") { $0.add("a/.wh...") },
    .init(testDescription: "opaque through a link", names: "link/.wh..wh..opq") {
      $0.add("link", type: "2", link: "/tmp")
      $0.add("link/.wh..wh..opq")
    },
    .init(testDescription: "file as a directory", names: "a/b") {
      $0.add("a", text: "x")
      $0.add("a/b", text: "x")
    },
  ]
}

extension OverlayTests {
  @Test(arguments: HostileArchive.all)
  func refusesHostileArchives(_ hostile: HostileArchive) async throws {
    let harness = try await Harness()
    var tar = TarWriter()
    tar.add("before", text: "x")
    let below = try await harness.apply(tar.finished)
    hostile.build(&tar)
    let error = await #expect(throws: EngineError.self) {
      try await harness.apply(tar.finished, parent: below.chainID)
    }
    #expect(error?.code == .invalidArgument)
    #expect(error?.description.contains("entry \"\(hostile.names)\"") == true, "\(error?.description ?? "")")
    #expect(harness.names(harness.layerDirectory) == [below.chainID.hex])
    #expect(!Files.exists("/tmp/escape") && !Files.exists("/escape") && !Files.exists("/tmp/a/b/c"))
    #expect(harness.names(harness.root) == ["run", "snapshots-overlay"])
    #expect(harness.journal.entries(plugin: "snapshots-overlay").isEmpty)
  }

  @Test func keepsWhatLayersCarry() async throws {
    let harness = try await Harness()
    var tar = TarWriter()
    tar.directory("dir", mode: 0o2775, uid: 7, gid: 8)
    tar.add("dir/inherits", text: "x")
    tar.add(Array("dir/".utf8) + [0xff, 0xfe], data: Array("bytes".utf8))
    tar.add("dir/\u{e9}t\u{e9}", text: "utf8")
    tar.add("null", type: "3", mode: 0o666, device: (1, 3))
    tar.add("fifo", type: "6", mode: 0o640)
    let capability: [UInt8] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    tar.add(
      "caps", mode: 0o755, uid: 9, text: "x",
      attributes: [
        "security.capability": capability, "user.note": Array("hi".utf8), "trusted.overlay.opaque": [121],
        "trusted.overlay.redirect": Array("/etc".utf8),
      ])
    // The same names again: the last one stands, whatever the first one was.
    tar.add("twice", text: "one")
    tar.add("twice", text: "second")
    tar.directory("was-directory")
    tar.add("was-directory/child", text: "x")
    tar.add("was-directory", text: "file")
    tar.add("was-link", type: "2", link: "/etc/passwd")
    tar.add("was-link", text: "file")
    tar.add("lib", type: "2", link: "usr/lib")
    tar.directory("usr/lib")
    tar.add("lib/inside", text: "through")
    let layer = try await harness.apply(tar.finished)
    let tree = harness.tree(layer.chainID)
    #expect(status("\(tree)/dir")?.st_mode == S_IFDIR | 0o2775)
    #expect(status("\(tree)/dir")?.st_mtim.tv_sec == 1_700_000_000)
    #expect(status("\(tree)/dir/inherits")?.st_gid == 0)
    #expect(try Files.readText("\(tree)/dir/\u{e9}t\u{e9}") == "utf8")
    let raw = Array("\(tree)/dir/".utf8CString.dropLast()) + [-1, -2, 0]
    #expect(access(raw, F_OK) == 0)
    #expect(status("\(tree)/null")?.st_rdev == 0x103 && status("\(tree)/fifo")?.st_mode == S_IFIFO | 0o640)
    var value = [UInt8](repeating: 0, count: 64)
    #expect(getxattr("\(tree)/caps", "security.capability", &value, 64) == 20 && Array(value[..<20]) == capability)
    #expect(getxattr("\(tree)/caps", "user.note", &value, 64) == 2)
    #expect(getxattr("\(tree)/caps", "trusted.overlay.redirect", &value, 64) == -1)
    #expect(try Files.readText("\(tree)/twice") == "second")
    #expect(try Files.readText("\(tree)/was-directory") == "file")
    #expect(try Files.readText("\(tree)/was-link") == "file")
    #expect(try Files.readText("\(tree)/usr/lib/inside") == "through")
  }

  @Test func sparseFilesStaySparse() async throws {
    let harness = try await Harness()
    let path = "\(harness.root)/sparse"
    try shell("cd \(harness.root) && truncate -s 300M s && printf end >> s && tar -cSf \(path) s")
    let layer = try await harness.apply(try Files.read(path))
    let info = try #require(status("\(harness.tree(layer.chainID))/s"))
    #expect(info.st_size == 300 << 20 | 3 && info.st_blocks < 1024 && layer.size == 300 << 20 | 3)
  }

  @Test func whiteoutsOfWhatTheSameLayerHas() async throws {
    let harness = try await Harness()
    var low = TarWriter()
    for name in ["one", "two"] {
      low.directory(name)
      low.add("\(name)/old", text: "old")
    }
    low.add("file", text: "old")
    let below = try await harness.apply(low.finished)
    var tar = TarWriter()
    tar.add(".wh.one")
    tar.directory("one")
    tar.add("one/new", text: "new")
    tar.directory("two")
    tar.add("two/new", text: "new")
    tar.add(".wh.two")
    tar.add(".wh.file")
    tar.add("file", text: "new")
    let above = try await harness.apply(tar.finished, parent: below.chainID)
    let root = try await harness.mount(.random(), [below.chainID, above.chainID])
    for name in ["one", "two"] {
      #expect(try text(root, "\(name)/new") == "new")
      #expect(throws: SystemCallError.self) { try text(root, "\(name)/old") }
    }
    #expect(try text(root, "file") == "new")
  }

  @Test func checksDigestsAndEnds() async throws {
    let harness = try await Harness()
    let archive = Self.base().finished
    let layer = try await harness.apply(archive)
    let wrong = try #require(Digest(hex: String(repeating: "a", count: 64)))
    // Unpacked already: read and checked all the same.
    #expect(try await harness.apply(archive, differenceID: layer.differenceID) == layer)
    var changed = archive
    changed[700] ^= 1
    for (bytes, digest) in [(archive, wrong), (changed, layer.differenceID)] {
      await #expect(throws: EngineError.self) { try await harness.apply(bytes, differenceID: digest) }
    }
    for end in stride(from: 100, to: archive.count - 1024, by: 512) {
      await #expect(throws: EngineError.self) { try await harness.apply(Array(archive[..<end])) }
    }
    await #expect(throws: EngineError.self) { try await harness.apply(archive, parent: wrong) }
    #expect(harness.names(harness.layerDirectory) == [layer.chainID.hex])
  }

  @Test func aCancelledStreamEndsAtOnce() async throws {
    let harness = try await Harness()
    var ends: [Int32] = [0, 0]
    try #require(pipe2(&ends, O_CLOEXEC) == 0)
    let output = Descriptor(adopting: ends[0])
    let input = OwnedDescriptor(adopting: ends[1])
    try Files.writeAll(input.number, Array(Self.base().finished[..<1024]))
    let task = Task { try await harness.bus.request(SnapshotApply(parent: nil, differenceID: nil, archive: output)) }
    try await waitUntil { !harness.names(harness.layerDirectory).isEmpty }
    task.cancel()
    await #expect(throws: EngineError.self) { try await task.value }
    try await waitUntil { harness.names(harness.layerDirectory).isEmpty }
    withExtendedLifetime(input) {}
  }

  @Test(arguments: ["modern", "classic"])
  func mountsUpTo128LayersAgainAndAgain(_ way: String) async throws {
    let harness = try await Harness(configuration: ["mount": way])
    var layers: [Digest] = []
    for number in 0..<128 {
      var tar = TarWriter()
      tar.add("n\(number)", text: "\(number)")
      tar.add("top", text: "\(number)")
      layers.append(try await harness.apply(tar.finished, parent: layers.last).chainID)
    }
    for discardable in [true, false] {
      let container = ObjectID.random()
      for round in 0..<2 {
        let root = try await harness.mount(container, layers, discardable: discardable)
        #expect(try text(root, "n0") == "0" && text(root, "top") == (round == 0 ? "127" : "changed"))
        let file = try Files.open(at: root.number, "top", O_WRONLY | O_TRUNC)
        try Files.writeAll(file.number, Array("changed".utf8))
      }
    }
    await #expect(throws: EngineError.self) { try await harness.mount(.random(), layers + [layers[0]]) }
    let empty = try await harness.mount(.random(), [])
    mkdirat(empty.number, "made", 0o755)
    var info = stat()
    #expect(fstat(empty.number, &info) == 0 && info.st_mode & 0o7777 == 0o755)
    let mounts = try Files.readText("/proc/self/mountinfo")
    #expect(!mounts.contains(harness.root))
  }

  /// What kernels without `lowerdir+` are given: a dozen layers by descriptors, more through a namespace of a thread's own.
  @Test(arguments: [(1, true), (12, true), (20, false), (100, false)])
  func layersAsDescriptors(count: Int, isPossible: Bool) async throws {
    let harness = try await Harness()
    let base = "\(harness.root)/with:colon, and comma"
    for number in 0..<count {
      try Files.makeDirectories("\(base)/\(number)")
      try Files.replace("\(base)/\(number)/file", with: Array("\(number)".utf8), durable: false)
    }
    for name in ["upper", "work"] { try Files.makeDirectories("\(base)/\(name)") }
    let layers = (0..<count).map { "\(base)/\($0)" }
    guard let made = try OverlayMount.makeOfDescriptors(layers, "\(base)/upper", "\(base)/work", true) else {
      #expect(!isPossible)
      return
    }
    #expect(isPossible)
    let root = Descriptor(adopting: made.release())
    #expect(try text(root, "file") == "0", "the first is the topmost")
    let file = try Files.open(at: root.number, "file", O_WRONLY | O_TRUNC)
    try Files.writeAll(file.number, Array("changed".utf8))
    #expect(try Files.readText("\(base)/upper/file") == "changed" && Files.readText("\(base)/0/file") == "0")
  }

  @Test func checkFindsLeftoversAndRepairs() async throws {
    let harness = try await Harness()
    let layer = try await harness.apply(Self.base().finished)
    let (known, unknown) = (ObjectID.random(), ObjectID.random())
    for container in [known, unknown] { _ = try await harness.mount(container, [layer.chainID]) }
    try Files.makeDirectories("\(harness.layerDirectory)/tmp-abandoned/diff")
    @Sendable func check(_ repair: Bool) async throws -> [SystemDifference] {
      try await harness.bus.request(
        PluginCheck(known: [known], running: [known], repair: repair), driver: "snapshots-overlay")
    }
    for repair in [false, true] {
      let found = try await check(repair).filter { $0.kind == .leftover }.map(\.object)
      #expect(found.count == 2 && found.contains { $0.contains(unknown.text) })
      #expect(found.contains { $0.contains("tmp-abandoned") })
    }
    try await waitUntil { try await check(false).isEmpty }
    #expect(harness.names("\(harness.state)/containers") == [known.text])
    try Files.removeTree("\(harness.state)/containers/\(known.text)")
    #expect(try await check(false).map(\.kind) == [.missing])
  }

  /// A layer that served a container is like a new one for the next, whatever was done in it, and also where somebody
  /// still has the old mount.
  @Test(arguments: [false, true], [false, true])
  func layersThatServedAreLikeNew(isWritten: Bool, isHeld: Bool) async throws {
    let harness = try await Harness()
    var roots: [Descriptor] = []
    for _ in 0..<8 {
      let container = ObjectID.random()
      var mount: Descriptor? = try await harness.mount(container, [], discardable: true)
      if isWritten, let root = mount {
        let made = try Files.open(at: root.number, "made", O_CREAT | O_WRONLY, mode: 0o600)
        try Files.writeAll(made.number, Array("12345".utf8))
        #expect(fchmodat(root.number, ".", 0o1777, 0) == 0 && fchownat(root.number, ".", 7, 8, 0) == 0)
      }
      let upper = try #require(Files.status("\(harness.state)/containers/\(container)/upper")).st_ino
      if isHeld, let mount { roots.append(mount) }
      mount = nil
      _ = try await harness.bus.request(SnapshotRemove(container: container))
      try await waitUntil { harness.names("\(harness.state)/trash").isEmpty }
      // Those that are made ahead beside it are complete, and no more are being made.
      @Sendable func spares() throws -> [String] { try Files.list("\(harness.state)/containers") }
      try await waitUntil {
        let all = try spares()
        return all.count >= 4 && all.allSatisfy { harness.names("\(harness.state)/containers/\($0)").count == 2 }
      }
      for spare in try spares() {
        let directory = "\(harness.state)/containers/\(spare)"
        #expect(try Files.list(directory).sorted() == ["upper", "work"])
        for (name, mode) in [("upper", mode_t(0o755)), ("work", 0o700)] {
          let status = try #require(Files.status("\(directory)/\(name)"))
          #expect(status.st_mode == S_IFDIR | mode && status.st_uid == 0 && status.st_gid == 0)
          #expect(try Files.list("\(directory)/\(name)") == [])
        }
        if isHeld { #expect(Files.status("\(directory)/upper")?.st_ino != upper, "the old mount still has it") }
      }
    }
    // What the old mounts do nobody else sees.
    for root in roots { mkdirat(root.number, "late", 0o755) }
    for spare in try Files.list("\(harness.state)/containers") {
      #expect(try Files.list("\(harness.state)/containers/\(spare)/upper") == [])
    }
    let root = try await harness.mount(.random(), [], discardable: true)
    #expect(faccessat(root.number, "late", F_OK, 0) != 0 && faccessat(root.number, "made", F_OK, 0) != 0)
  }

  @Test func removesTreesOfAnyDepth() async throws {
    let harness = try await Harness()
    let container = ObjectID.random()
    let root = try await harness.mount(container, [])
    var deep = OwnedDescriptor(adopting: dup(root.number))
    for _ in 0..<3000 {
      mkdirat(deep.number, "d", 0o700)
      deep = try Files.open(at: deep.number, "d", O_RDONLY | O_DIRECTORY)
    }
    _ = try await harness.bus.request(SnapshotRemove(container: container))
    try await waitUntil { harness.names("\(harness.state)/trash").isEmpty }
  }

  @Test func aNewEngineFindsItsLayersAndSweepsHalfOnes() async throws {
    let harness = try await Harness()
    let layer = try await harness.apply(Self.base().finished)
    try Files.makeDirectories("\(harness.layerDirectory)/tmp-half/diff/x")
    try Files.makeDirectories("\(harness.state)/trash/old/x")
    let second = try await Harness(root: harness.root)
    #expect(try await second.bus.request(SnapshotLayers()) == [layer.chainID])
    try await waitUntil { second.names("\(second.state)/trash").isEmpty }
    #expect(second.names(second.layerDirectory) == [layer.chainID.hex])
    let root = try await second.mount(.random(), [layer.chainID])
    #expect(try text(root, "sh") == "tool")
    try Files.replace("\(harness.layerDirectory)/\(layer.chainID.hex)/layer", with: [1, 2], durable: false)
    await #expect(throws: EngineError.self) { try await Harness(root: harness.root) }
  }
}

@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct LayersAboveOthersTests {
  /// Links to files of lower layers, and directories that the archive does not describe.
  private static func upper() -> TarWriter {
    var tar = TarWriter()
    tar.add("bin/linked", type: "1", link: "bin/tool")
    tar.add("bin/again", type: "1", link: "bin/linked")
    tar.add("shared/deep/file", text: "new")
    // A name that is not UTF-8, and one that is not ASCII.
    tar.add([0x62, 0xff], data: [1])
    tar.add("größe", text: "2")
    return tar
  }

  private static func lower() -> TarWriter {
    var tar = OverlayTests.base()
    tar.directory("shared", mode: 0o1777, uid: 5, gid: 6)
    return tar
  }

  @Test(arguments: [false, true])
  func needWhatLiesBelow(waits: Bool) async throws {
    let harness = try await Harness()
    let call = Call(bus: harness.bus)
    let parent = try SHA256.digest(of: Self.lower().finished)
    let bus = harness.bus
    let child = Task(executorPreference: bus.executor) { () throws -> SnapshotApply.Reply in
      if !waits { _ = try await harness.apply(Self.lower().finished) }
      return try await call.request(
        SnapshotApply(
          parent: parent, differenceID: nil, archive: try memory(Self.upper().finished), waitsForParent: waits))
    }
    if waits {
      // It is unpacked while the layer below is not there.
      try await waitUntil { harness.names(harness.layerDirectory).contains { $0.hasPrefix("tmp-") } }
      _ = try await harness.apply(Self.lower().finished)
    }
    let chain = try await child.value.chainID
    let root = try await harness.mount(.random(), [parent, chain])
    #expect(try text(root, "bin/linked") == "tool" && text(root, "shared/deep/file") == "new")
    var linked = stat()
    var target = stat()
    #expect(fstatat(root.number, "bin/linked", &linked, 0) == 0 && fstatat(root.number, "bin/tool", &target, 0) == 0)
    #expect(linked.st_ino == target.st_ino && linked.st_nlink == 3)
    #expect(linked.st_mode & 0o7777 == 0o4755 && linked.st_uid == 3 && linked.st_gid == 4)
    #expect(linked.st_mtim.tv_sec == 1_700_000_000)
    var directory = stat()
    #expect(fstatat(root.number, "shared", &directory, 0) == 0)
    #expect(directory.st_mode & 0o7777 == 0o1777 && directory.st_uid == 5 && directory.st_gid == 6)
    #expect(fstatat(root.number, "shared/deep", &directory, 0) == 0 && directory.st_mode & 0o7777 == 0o755)
    #expect(fstat(root.number, &directory) == 0 && directory.st_mode & 0o7777 == 0o751)
    // What the container has can be written as an archive, with its links.
    let file = Descriptor(adopting: linux_memfd_create("export", 1))
    _ = try await harness.bus.request(SnapshotExport(container: .random(), layers: [parent, chain], output: file))
    try shell("mkdir \(harness.root)/out && tar -C \(harness.root)/out -xpf /proc/\(getpid())/fd/\(file.number)")
    let out = try #require(status("\(harness.root)/out/bin/linked"))
    #expect(out.st_nlink == 3 && out.st_mode & 0o7777 == 0o4755 && out.st_uid == 3)
    #expect(try Files.readText("\(harness.root)/out/etc/passwd") == "root")
    #expect(try Files.readText("\(harness.root)/out/größe") == "2")
    try shell("test -s \"$(printf '\(harness.root)/out/b\\377')\"")
  }

  @Test func aTargetThatIsNowhereIsRefused() async throws {
    let harness = try await Harness()
    let low = try await harness.apply(Self.lower().finished)
    for target in ["bin/nothing", "gone", "etc/passwd/x"] {
      var tar = TarWriter()
      tar.add("link", type: "1", link: target)
      let error = await #expect(throws: EngineError.self) {
        try await harness.apply(tar.finished, parent: low.chainID)
      }
      #expect(error?.code == .invalidArgument, "\(target): \(String(describing: error))")
    }
    #expect(harness.names(harness.layerDirectory) == [low.chainID.hex])
    // A whiteout in the same layer hides what is below from its links too.
    var tar = TarWriter()
    tar.directory("bin")
    tar.add("bin/.wh.tool")
    tar.add("link", type: "1", link: "bin/tool")
    await #expect(throws: EngineError.self) { try await harness.apply(tar.finished, parent: low.chainID) }
  }

  @Test func devicesAndEntriesAreLimitedWhereConfigured() async throws {
    let harness = try await Harness(configuration: ["layer-devices": "refuse", "layer-entries": "100"])
    var device = TarWriter()
    device.add("null", type: "3", device: (1, 3))
    let refused = await #expect(throws: EngineError.self) { try await harness.apply(device.finished) }
    #expect(refused?.message.contains("device nodes in layers are not allowed") == true)
    var many = TarWriter()
    for number in 0...100 { many.add("f\(number)") }
    let limited = await #expect(throws: EngineError.self) { try await harness.apply(many.finished) }
    #expect(limited?.message.contains("more than the 100 entries") == true)
    #expect(harness.names(harness.layerDirectory).isEmpty)
  }
}
