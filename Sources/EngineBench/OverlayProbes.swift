import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import OverlaySnapshotsPlugin

/// A container's root file system: its writable layer, and the mount above the image's layers.
enum OverlayProbes: ProbeGroup {
  static let name = "overlay"
  private static let counts = [1, 5, 20, 60]

  private static func figure(_ count: Int) -> FigureName {
    FigureName(
      name: "overlay, \(count) layer\(count == 1 ? "" : "s")", floor: "three mkdir, fsopen, fsconfig, fsmount",
      curve: "overlay", position: count)
  }

  static let figures = counts.map(figure)

  static func probes(_ names: Set<String>, _ stage: Stage) async throws -> [Probe] {
    let wanted = counts.filter { names.contains(figure($0).name) }
    let host = try stage.sandbox.host(OverlaySnapshotsPlugin.manifest, "overlay", bus: stage.bus)
    let plugin = try OverlaySnapshotsPlugin(host: host)
    try plugin.register(Registrar(bus: stage.bus, manifest: OverlaySnapshotsPlugin.manifest))
    stage.bus.setDefaultDriver("overlay", for: [SnapshotApply.self, SnapshotMount.self, SnapshotRemove.self])
    try await plugin.start()
    var chain: [Digest] = []
    for number in 0..<(wanted.max() ?? 0) {
      try Interruption.check()
      let archive = try memory(Archive.file("layer-\(number)", Array("\(number)".utf8)) + Archive.end)
      let reply = try await stage.bus.request(
        SnapshotApply(parent: chain.last, differenceID: nil, archive: archive))
      chain.append(reply.chainID)
    }
    let layers = chain
    let trees = try host.stateDirectory() + "/layers"
    let bus = stage.bus
    return wanted.map { count in
      let chain = Array(layers.prefix(count))
      // The topmost first.
      let lower = chain.reversed().map { "\(trees)/\($0.hex)/diff" }
      let directory = "\(stage.sandbox.directory)/raw-overlay-\(count)"
      return Probe(.mounts, figure(count)) { side in
        switch side {
        case .engine: try await mount(chain, bus)
        case .raw: try mount(lower, directory)
        }
      }
    }
  }

  private static func memory(_ bytes: [UInt8]) throws(SystemCallError) -> Descriptor {
    let file = Descriptor(
      adopting: try SystemCallError.check("memfd_create") { linux_memfd_create("layer", UInt32(MFD_CLOEXEC)) })
    try Files.writeAll(file.number, bytes)
    try SystemCallError.check("lseek") { lseek(file.number, 0, SEEK_SET) }
    return file
  }

  private static func mount(_ layers: [Digest], _ bus: Bus) async throws -> Int64 {
    let container = ObjectID.random()
    let begin = MonotonicClock.now
    let reply = try await bus.request(SnapshotMount(container: container, layers: layers, discardable: true))
    let time = MonotonicClock.now - begin
    _ = reply
    _ = try await bus.request(SnapshotRemove(container: container))
    return time
  }

  /// The same calls with the same options.
  private static func mount(_ layers: [String], _ directory: String) throws -> Int64 {
    let (upper, work) = ("\(directory)/upper", "\(directory)/work")
    defer { try? Files.removeTree(directory) }
    let begin = MonotonicClock.now
    for path in [directory, upper, work] {
      guard mkdir(path, 0o755) == 0 else { throw SystemCallError(call: "mkdir", subject: path, number: errno) }
    }
    let context = fsopen("overlay", UInt32(FSOPEN_CLOEXEC))
    defer { close(context) }
    func set(_ key: String, _ value: String) throws {
      guard fsconfig(context, FSCONFIG_SET_STRING.rawValue, key, value, 0) == 0 else {
        throw SystemCallError(call: "fsconfig", subject: "overlay \(key)", number: errno)
      }
    }
    for layer in layers { try set("lowerdir+", layer) }
    try set("upperdir", upper)
    try set("workdir", work)
    for (key, value) in [("xino", "off"), ("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")] {
      try set(key, value)
    }
    fsconfig(context, FSCONFIG_SET_FLAG.rawValue, "volatile", nil, 0)
    guard fsconfig(context, FSCONFIG_CMD_CREATE.rawValue, nil, nil, 0) == 0 else {
      throw SystemCallError(call: "fsconfig", subject: "overlay", number: errno)
    }
    let mounted = fsmount(context, UInt32(FSMOUNT_CLOEXEC), 0)
    let time = MonotonicClock.now - begin
    guard mounted >= 0 else { throw SystemCallError(call: "fsmount", subject: "overlay", number: errno) }
    close(mounted)
    return time
  }
}
