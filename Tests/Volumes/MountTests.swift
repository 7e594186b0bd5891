import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import VolumeCatalogPlugin

/// Major 1, minor 3: makedev(3) is a macro.
private let nullDevice: dev_t = 1 << 8 | 3

/// Mounts are detached, so most of this shows nowhere on the host; needs root.
@Suite(.enabled(if: getuid() == 0, "mounting needs root")) struct MountTests {
  @Test func anEmptyVolumeIsFilledOnceWithAllThatBelongsToTheImage() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    try makeImage("\(root)/data")
    let mounts = [MountRequest(kind: .volume, source: "vol", target: "/data")]
    let first = try await fixture.mount(mounts, root: root)
    let mount = try #require(first.first?.mount)
    #expect(first.first?.isDirectory == true)
    try expectImage(mount)
    // What the container changes stays, also when the image has it differently.
    #expect(errorOfWriting(mount, "file") == 0)
    unlinkat(mount.number, "setuid", 0)
    let second = try await fixture.mount(mounts, root: root)
    #expect(read(try #require(second.first?.mount), "file") == "xontent")
    #expect(read(try #require(second.first?.mount), "setuid") == nil)
  }

  private func makeImage(_ path: String) throws {
    try Files.makeDirectories("\(path)/sub/deeper")
    try write("\(path)/file", "content")
    try write("\(path)/setuid", "")
    link("\(path)/file", "\(path)/sub/hard")
    symlink("/etc/passwd", "\(path)/absolute")
    symlink("file", "\(path)/relative")
    mkfifo("\(path)/fifo", 0o640)
    mknod("\(path)/null", S_IFCHR | 0o666, nullDevice)
    chmod("\(path)/setuid", 0o4755)
    chown("\(path)/setuid", 12, 34)
    chmod("\(path)/setuid", 0o4755)
    lchown("\(path)/relative", 56, 78)
    chown(path, 1000, 1001)
    chmod(path, 0o2750)
    setxattr("\(path)/file", "user.note", "hello", 5, 0)
    let sparse = try Files.open("\(path)/sparse", O_WRONLY | O_CREAT, mode: 0o600)
    pwrite(sparse.number, "end", 3, 8 << 20)
    ftruncate(sparse.number, 16 << 20)
    try write("\(path)/sub/deeper/leaf", "leaf")
    // A name that is not UTF-8, with two links.
    let odd: [CChar] = "\(path)/".utf8.map { CChar(bitPattern: $0) } + [-1, -2, 0]
    close(linux_open(odd, O_WRONLY | O_CREAT, 0o644))
    link(odd, "\(path)/sub/of-odd")
    var times = [timespec(tv_sec: 1000, tv_nsec: 5), timespec(tv_sec: 2000, tv_nsec: 7)]
    utimensat(AT_FDCWD, "\(path)/file", &times, 0)
    utimensat(AT_FDCWD, path, &times, 0)
  }

  private func expectImage(_ mount: Descriptor) throws {
    func status(_ path: String) -> stat {
      var status = stat()
      fstatat(mount.number, path, &status, AT_SYMLINK_NOFOLLOW)
      return status
    }
    let top = status(".")
    #expect(top.st_mode & 0o7777 == 0o2750)
    #expect(top.st_uid == 1000 && top.st_gid == 1001)
    #expect(top.st_mtim.tv_sec == 2000 && top.st_mtim.tv_nsec == 7)
    #expect(read(mount, "file") == "content")
    #expect(status("file").st_mtim.tv_sec == 2000)
    #expect(status("file").st_ino == status("sub/hard").st_ino)
    #expect(status("sub/of-odd").st_nlink == 2)
    #expect(status("setuid").st_mode & 0o7777 == 0o4755)
    #expect(status("setuid").st_uid == 12 && status("setuid").st_gid == 34)
    #expect(status("relative").st_mode & S_IFMT == S_IFLNK)
    #expect(status("relative").st_uid == 56)
    var text = [CChar](repeating: 0, count: 64)
    #expect(readlinkat(mount.number, "absolute", &text, 63) == 11)
    #expect(status("fifo").st_mode == S_IFIFO | 0o640)
    #expect(status("null").st_rdev == nullDevice)
    #expect(status("sparse").st_size == 16 << 20)
    #expect(status("sparse").st_blocks * 512 < 1 << 20)
    #expect(read(mount, "sub/deeper/leaf") == "leaf")
    var value = [CChar](repeating: 0, count: 16)
    #expect(lgetxattr("/proc/self/fd/\(mount.number)/file", "user.note", &value, 16) == 5)
  }

  @Test func aLinkInTheImageDoesNotLeadOutOfIt() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    let secret = try fixture.scratch("secret")
    try write("\(secret)/key", "secret")
    symlink(secret, "\(root)/data")
    let mounted = try await fixture.mount([MountRequest(kind: .volume, source: "vol", target: "/data")], root: root)
    #expect(read(try #require(mounted.first?.mount), "key") == nil)
  }

  @Test func nocopyAndASubpathAreNotFilled() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    try Files.makeDirectories("\(root)/data")
    try write("\(root)/data/file", "image")
    let volume = try await fixture.create("vol")
    let nocopy = MountRequest(kind: .volume, source: "vol", target: "/data", copiesImage: false)
    let mounted = try await fixture.mount([nocopy], root: root)
    #expect(read(try #require(mounted.first?.mount), "file") == nil)
    try Files.makeDirectories("\(volume.mountpoint)/part")
    try write("\(volume.mountpoint)/part/own", "own")
    symlink(fixture.directory, "\(volume.mountpoint)/out")
    let part = MountRequest(kind: .volume, source: "vol", target: "/data", subpath: "part")
    #expect(read(try #require(try await fixture.mount([part], root: root).first?.mount), "own") == "own")
    // A link out of the volume is resolved within it, where there is nothing of that name.
    let out = MountRequest(kind: .volume, source: "vol", target: "/data", subpath: "out")
    let error = await #expect(throws: EngineError.self) { _ = try await fixture.mount([out], root: root) }
    #expect(error?.message.contains("has no subpath out") == true)
  }

  @Test func anInterruptedFillIsDoneAgain() async throws {
    let crashed = try await VolumeFixture()
    defer { crashed.close() }
    let root = try crashed.scratch("root")
    try Files.makeDirectories("\(root)/data")
    for number in 0..<20 { try write("\(root)/data/file\(number)", "\(number)") }
    let volume = try await crashed.create("vol")
    try crashed.journal.begin(plugin: VolumeCatalogPlugin.manifest.name, [("fill", "vol")])
    try Files.makeDirectories("\(volume.mountpoint)/half/done")
    try write("\(volume.mountpoint)/file3", "ha")
    let fixture = try await VolumeFixture(after: crashed)
    let mounted = try await fixture.mount([MountRequest(kind: .volume, source: "vol", target: "/data")], root: root)
    let mount = try #require(mounted.first?.mount)
    for number in 0..<20 { #expect(read(mount, "file\(number)") == "\(number)") }
    #expect(read(mount, "half/done/.") == nil)
    #expect(fixture.journal.entries(plugin: VolumeCatalogPlugin.manifest.name, kind: "fill") == [])
  }

  @Test func containersThatComeAtOnceAllSeeTheWholeFill() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    try Files.makeDirectories("\(root)/data")
    for number in 0..<200 { try write("\(root)/data/file\(number)", "\(number)") }
    let missing = try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<8 {
        group.addTask {
          let mounted = try await fixture.mount(
            [MountRequest(kind: .volume, source: "vol", target: "/data")], root: root)
          guard let mount = mounted.first?.mount else { return 200 }
          return (0..<200).filter { read(mount, "file\($0)") != "\($0)" }.count
        }
      }
      return try await group.reduce(0, +)
    }
    #expect(missing == 0)
    #expect(try await fixture.bus.request(VolumeList()).count == 1)
  }

  @Test func readOnlyAndBindsOfFiles() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    let source = try fixture.scratch("source")
    try write("\(source)/file", "host")
    let mounted = try await fixture.mount(
      [
        MountRequest(kind: .bind, source: source, target: "/a"),
        MountRequest(kind: .bind, source: source, target: "/b", isReadOnly: true),
        MountRequest(kind: .bind, source: "\(source)/./file", target: "/c"),
        MountRequest(kind: .volume, source: "vol", target: "/d", isReadOnly: true),
        MountRequest(kind: .bind, source: "\(source)/made", target: "/e", createsSource: true),
      ], root: root)
    #expect(mounted.map(\.isDirectory) == [true, true, false, true, true])
    #expect(mounted.map(\.point.target) == ["/a", "/b", "/c", "/d", "/e"])
    #expect(errorOfWriting(mounted[0].mount, "new") == 0)
    #expect(Files.exists("\(source)/new"))
    #expect(errorOfWriting(mounted[1].mount, "other") == EROFS)
    #expect(errorOfWriting(mounted[3].mount, "other") == EROFS)
    #expect(mounted[2].point.source == "\(source)/file")
    #expect(Files.isDirectory("\(source)/made"))
  }

  @Test func readOnlyHoldsForMountsBeneathAndNothingPropagates() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let source = try fixture.scratch("source")
    try Files.makeDirectory("\(source)/beneath")
    let store = VolumeStore(
      host: PluginHost(
        manifest: VolumeCatalogPlugin.manifest, bus: fixture.bus,
        instance: Instance(
          root: fixture.directory, runtimeDirectory: fixture.directory, hash: "", isDefault: false, daemonPath: "",
          shimPath: "", version: ""), journal: fixture.journal))
    let assembly = MountAssembly(host: store.host, store: store)
    let outcome = Once<Result<[Int32], EngineError>>()
    // In a mount namespace of a thread's own, with shared mounts as systemd makes them.
    let started = Thread.start {
      guard unshare(CLONE_NEWNS) == 0, mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0,
        mount(source, source, nil, UInt(MS_BIND), nil) == 0, mount(nil, source, nil, UInt(MS_SHARED), nil) == 0,
        mount("tmpfs", "\(source)/beneath", "tmpfs", 0, nil) == 0
      else {
        outcome.resolve(.failure(EngineError(.internalFailure, "no mount namespace: \(errno)")))
        return
      }
      do throws(EngineError) {
        let request = MountRequest(kind: .bind, source: source, target: "/x", isReadOnly: true)
        let point = MountPoint(
          kind: .bind, volume: "", source: source, target: "/x", driver: "", isReadOnly: true, propagation: "")
        let made = try assembly.bind(request, point)
        let refusals = [errorOfWriting(made, "top"), errorOfWriting(made, "beneath/file")]
        // Attached, so that something can be mounted in it: the source, which was its peer, must not see it.
        mkdir("\(source)-attached", 0o755)
        try? Mounts.attach(made.number, at: AT_FDCWD, "\(source)-attached")
        mount("tmpfs", "\(source)-attached/beneath", "tmpfs", 0, nil)
        close(linux_open("\(source)-attached/beneath/mark", O_WRONLY | O_CREAT, 0o644))
        outcome.resolve(
          .success(
            refusals + [
              Files.exists("\(source)-attached/beneath/mark") ? 0 : 1, Files.exists("\(source)/beneath/mark") ? 1 : 0,
            ]))
      } catch {
        outcome.resolve(.failure(error))
      }
    }
    #expect(started)
    let result = try await outcome.value.get()
    #expect(result == [EROFS, EROFS, 0, 0])
  }

  @Test func fileSystemsInMemoryHaveTheirOptions() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    try Files.makeDirectories("\(root)/hidden")
    chmod("\(root)/hidden", 0o1711)
    let mounted = try await fixture.mount(
      [
        MountRequest(kind: .tmpfs, source: "", target: "/a", tmpfsOptions: ["size=64k", "mode=0750", "exec"]),
        MountRequest(kind: .tmpfs, source: "", target: "/hidden"),
        MountRequest(kind: .tmpfs, source: "", target: "/c", isReadOnly: true),
      ], root: root)
    func flags(_ mount: Descriptor) -> (UInt, blocks: UInt, mode: UInt32) {
      var system = statvfs()
      var status = stat()
      fstatvfs(mount.number, &system)
      fstat(mount.number, &status)
      return (system.f_flag, system.f_blocks * system.f_frsize, status.st_mode & 0o7777)
    }
    let first = flags(mounted[0].mount)
    #expect(first.0 & UInt(ST_NOSUID) != 0 && first.0 & 4 != 0 && first.0 & 8 == 0)
    #expect(first.blocks == 64 << 10)
    #expect(first.mode == 0o750)
    let second = flags(mounted[1].mount)
    #expect(second.mode == 0o1711)
    #expect(second.0 & 8 != 0)
    #expect(flags(mounted[2].mount).mode == 0o1777)
    #expect(errorOfWriting(mounted[2].mount, "file") == EROFS)
    let error = await #expect(throws: EngineError.self) {
      _ = try await fixture.mount(
        [MountRequest(kind: .tmpfs, source: "", target: "/a", tmpfsOptions: ["size=lots"])], root: root)
    }
    #expect(error?.code == .invalidArgument)
  }

  @Test func aLocalVolumeWithOptionsIsMountedFromFirstUseToLast() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    let options = ["type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid"]
    let volume = try await fixture.create("vol", options: options)
    let (one, two) = (ObjectID.random(), ObjectID.random())
    let mounts = [MountRequest(kind: .volume, source: "vol", target: "/data")]
    let first = try await fixture.mount(mounts, container: one, root: root)
    #expect(errorOfWriting(first[0].mount, "shared") == 0)
    let second = try await fixture.mount(mounts, container: two, root: root)
    #expect(read(second[0].mount, "shared") == "x")
    _ = try await fixture.bus.request(VolumeUnmount(container: one))
    #expect(Files.exists("\(volume.mountpoint)/shared"))
    // A new engine still knows who uses it.
    let next = try await VolumeFixture(after: fixture)
    #expect(try await next.check().map(\.kind) == [.leftover, .leftover])
    _ = try await next.bus.request(VolumeUnmount(container: two))
    #expect(!Files.exists("\(volume.mountpoint)/shared"))
    #expect(try await next.check() == [])
    #expect(next.journal.entries(plugin: "volume-local") == [])
  }

  @Test func aVolumeInMemoryIsSharedAndOutlivesTheEngine() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    let volume = try await fixture.create("vol", driver: "tmpfs", options: ["size": "1m"])
    let mounts = [MountRequest(kind: .volume, source: "vol", target: "/data")]
    let container = ObjectID.random()
    let first = try await fixture.mount(mounts, root: root)
    #expect(errorOfWriting(first[0].mount, "shared") == 0)
    let next = try await VolumeFixture(after: fixture)
    let second = try await next.mount(mounts, container: container, root: root)
    #expect(read(second[0].mount, "shared") == "x")
    _ = try await next.bus.request(VolumeUnmount(container: container))
    _ = try await next.bus.request(VolumeRemove(volume: "vol", force: false))
    #expect(!Files.exists(volume.mountpoint))
    #expect(next.journal.entries(plugin: "volume-tmpfs") == [])
  }

  @Test func aVolumeOfADirectoryOfTheHost() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let root = try fixture.scratch("root")
    let source = try fixture.scratch("source")
    try write("\(source)/file", "host")
    _ = try await fixture.create("vol", driver: "bind", options: ["device": source])
    let container = ObjectID.random()
    let mounted = try await fixture.mount(
      [MountRequest(kind: .volume, source: "vol", target: "/data")], container: container, root: root)
    #expect(read(mounted[0].mount, "file") == "host")
    _ = try await fixture.bus.request(VolumeUnmount(container: container))
    _ = try await fixture.bus.request(VolumeRemove(volume: "vol", force: false))
    #expect(Files.exists("\(source)/file"))
  }

  @Test func aVolumeWhoseDataIsGoneSaysSo() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let volume = try await fixture.create("vol")
    try Files.removeTree("\(fixture.directory)/volume-local/volumes/vol")
    let error = await #expect(throws: EngineError.self) {
      _ = try await fixture.mount(
        [MountRequest(kind: .volume, source: "vol", target: "/data")], root: fixture.scratch("root"))
    }
    #expect(error?.message.contains(volume.mountpoint) == true)
    // Nothing says that the container uses it.
    #expect(fixture.journal.entries(plugin: VolumeCatalogPlugin.manifest.name) == [])
  }
}
