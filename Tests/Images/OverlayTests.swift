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
