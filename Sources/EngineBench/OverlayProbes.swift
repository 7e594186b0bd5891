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
      name: "overlay, \(count) layer\(count == 1 ? "" : "s")",
      floor: "mkdir, fsopen, fsconfig, fsmount; mount before Linux 6.8",
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
    let short = "\(stage.sandbox.directory)/l"
    try Files.makeDirectory(short)
    for (index, layer) in layers.enumerated() {
      try SystemCallError.check("symlink") { symlink("\(trees)/\(layer.hex)/diff", "\(short)/\(index)") }
    }
    let isModern = Mounts.knows("overlay", option: "lowerdir+", "\(short)/0")
    return wanted.map { count in
      let chain = Array(layers.prefix(count))
      // The topmost first.
      let lower = chain.reversed().map { "\(trees)/\($0.hex)/diff" }
      let names = (0..<count).reversed().map { "\(short)/\($0)" }
      let directory = "\(stage.sandbox.directory)/raw-overlay-\(count)"
      return Probe(.mounts, figure(count)) { side in
        switch side {
        case .engine: try await mount(chain, bus)
        case .raw: isModern ? try mount(lower, directory) : try mountInOneList(names, directory)
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
    defer { try? Files.removeTree(directory) }
    let begin = MonotonicClock.now
    try makeDirectories(directory)
    let context = fsopen("overlay", UInt32(FSOPEN_CLOEXEC))
    defer { close(context) }
    func set(_ key: String, _ value: String) throws(SystemCallError) {
      guard fsconfig(context, FSCONFIG_SET_STRING.rawValue, key, value, 0) == 0 else {
        throw SystemCallError(call: "fsconfig", subject: "overlay \(key)", number: errno)
      }
    }
    for layer in layers { try set("lowerdir+", layer) }
    try set("upperdir", "\(directory)/upper")
    try set("workdir", "\(directory)/work")
    for option in options { try set(option.0, option.1) }
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

  private static let options = [("xino", "off"), ("index", "off"), ("redirect_dir", "off"), ("metacopy", "off")]

  private static func makeDirectories(_ directory: String) throws(SystemCallError) {
    for path in [directory, "\(directory)/upper", "\(directory)/work"] {
      guard mkdir(path, 0o755) == 0 else { throw SystemCallError(call: "mkdir", subject: path, number: errno) }
    }
  }

  /// For kernels that take them in one list only: mount(2), which has a page for its options, so the layers have short
  /// names.
  private static func mountInOneList(_ names: [String], _ directory: String) throws -> Int64 {
    let place = "\(directory)-mounted"
    try Files.makeDirectory(place)
    defer {
      umount2(place, Int32(MNT_DETACH))
      rmdir(place)
      try? Files.removeTree(directory)
    }
    let begin = MonotonicClock.now
    try makeDirectories(directory)
    var text = "lowerdir=\(names.joined(separator: ":")),upperdir=\(directory)/upper,workdir=\(directory)/work,volatile"
    for option in options { text += ",\(option.0)=\(option.1)" }
    guard Glibc.mount("overlay", place, "overlay", 0, text) == 0 else {
      throw SystemCallError(call: "mount", subject: "overlay", number: errno)
    }
    return MonotonicClock.now - begin
  }
}
