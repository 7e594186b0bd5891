import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Volumes in memory, with the options of tmpfs(5) (`size`, `mode`, `uid`, ...). All containers that mount one share it;
/// it is kept from its first use until it is removed or the machine reboots.
///
/// It is attached in the engine's runtime directory rather than held as a descriptor, so that the data also outlives the
/// engine, and so that kernels before 6.15, which copy no detached mount, can give it to several containers.
public final class TmpfsVolumePlugin: Plugin {
  public static let manifest = PluginManifest(name: "volume-tmpfs", role: "volume", driver: "tmpfs")

  private let host: PluginHost
  /// Held while one is mounted or unmounted, so that two first users mount once.
  private let lock = Mutex(())
  /// Containers that have each volume mounted, for as long as this engine lives.
  private let users = Mutex<[String: Set<ObjectID>]>([:])
  private static let kind = "mount"

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(VolumeDriverCreate.self) { [self] (request, _) async throws(EngineError) in
      _ = try Self.options(request.options)
      return VolumeDriverCreate.Reply(mountpoint: try path(request.volume))
    }
    try registrar.answerAsDriver(VolumeDriverRemove.self) { [self] (request, _) async throws(EngineError) in
      if let user = users.withLock({ $0[request.volume]?.first }) {
        throw EngineError(.inUse, "the volume \(request.volume) is mounted for the container \(user.short)")
      }
      try remove(request.volume)
      return Done()
    }
    try registrar.answerAsDriver(VolumeDriverMount.self) { [self] (request, _) async throws(EngineError) in
      let path = try mount(request.volume, request.options)
      users.withLock { _ = $0[request.volume, default: []].insert(request.container) }
      return VolumeDriverMount.Reply(mount: nil, path: path)
    }
    try registrar.answerAsDriver(VolumeDriverUnmount.self) { [self] (request, _) async throws(EngineError) in
      users.withLock { users in
        users[request.volume]?.remove(request.container)
        if users[request.volume]?.isEmpty == true { users[request.volume] = nil }
      }
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { [self] (request, call) async throws(EngineError) in
      let recorded = try await call.request(VolumeList()).filter { $0.driver == "tmpfs" }
      return try check(request, recorded: Set(recorded.map(\.name)))
    }
  }

  static func options(_ options: [String: String]) throws(EngineError) -> MountOptions {
    let list = options.sorted { $0.key < $1.key }.flatMap { key, value -> [String] in
      if key == "o" { return value.split(separator: ",").map(String.init) }
      return [value.isEmpty ? key : "\(key)=\(value)"]
    }
    let result = MountOptions(list, attributes: UInt32(MOUNT_ATTR_NOSUID) | UInt32(MOUNT_ATTR_NODEV))
    if let unknown = result.unknownForTmpfs {
      throw EngineError(.invalidArgument, "invalid option: \"\(unknown)\" is not an option of tmpfs")
    }
    return result
  }

  private func path(_ volume: String) throws(EngineError) -> String {
    if volume.isEmpty || volume.hasPrefix(".") || volume.utf8.contains(where: { $0 == 47 || $0 == 0 }) {
      throw EngineError(.invalidArgument, "\"\(volume)\" is not a volume name")
    }
    return "\(try host.runtimeDirectory())/\(volume)"
  }

  private func entries(_ volume: String) -> [UInt64] {
    host.journal.entries(plugin: host.manifest.name, kind: Self.kind).filter { $0.object == volume }.map(\.number)
  }

  private func mount(_ volume: String, _ options: [String: String]) throws(EngineError) -> String {
    let options = try Self.options(options)
    let path = try path(volume)
    try lock.withLock { (_) throws(EngineError) in
      if isMounted(path) { return }
      if entries(volume).isEmpty { try host.journal.begin(plugin: host.manifest.name, [(Self.kind, volume)]) }
      FaultPoint.reach("volume-tmpfs.mount.recorded")
      do throws(SystemCallError) {
        try Files.makeDirectory(path)
        let mode = options.fileSystem.contains { $0.key == "mode" } ? [] : [Mounts.Option.value("mode", "755")]
        let mount = try Mounts.make(
          "tmpfs", [.value("source", "tmpfs")] + mode + options.configuration, attributes: options.attributes)
        try Mounts.attach(mount.number, at: AT_FDCWD, path)
      } catch {
        rmdir(path)
        try host.journal.end(entries(volume))
        throw EngineError(.invalidArgument, "the volume \(volume) cannot be mounted: \(error)")
      }
      FaultPoint.reach("volume-tmpfs.mount.attached")
    }
    return path
  }

  private func remove(_ volume: String) throws(EngineError) {
    let path = try path(volume)
    try lock.withLock { (_) throws(EngineError) in
      if isMounted(path) { umount2(path, Int32(MNT_DETACH)) }
      rmdir(path)
      FaultPoint.reach("volume-tmpfs.remove.unmounted")
      try host.journal.end(entries(volume))
    }
  }

  private func isMounted(_ path: String) -> Bool {
    var status = statfs()
    guard statfs(path, &status) == 0, let above = path.lastIndex(of: "/") else { return false }
    var own = stat()
    var parent = stat()
    guard stat(path, &own) == 0, stat(String(path[..<above]), &parent) == 0 else { return false }
    return Int(status.f_type) == Int(TMPFS_MAGIC) && own.st_dev != parent.st_dev
  }

  private func check(_ request: PluginCheck, recorded: Set<String>) throws(EngineError) -> [SystemDifference] {
    var differences: [SystemDifference] = []
    for entry in host.journal.entries(plugin: host.manifest.name, kind: Self.kind)
    where !recorded.contains(entry.object) {
      differences.append(
        SystemDifference(kind: .leftover, plugin: host.manifest.name, object: "mount \(try path(entry.object))"))
      if request.repair { try remove(entry.object) }
    }
    return differences
  }
}
