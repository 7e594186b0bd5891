import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// What happens when a container starts: each of its mounts is made as a detached mount, and empty volumes are filled
/// from the image; and when it has ended, the drivers are told.
final class MountAssembly: Sendable {
  private let host: PluginHost
  private let store: VolumeStore
  private let fill: VolumeFill

  private struct Use: Sendable {
    var volume: String
    /// The journal's.
    var number: UInt64
    /// Nobody has it any more, and its driver has not been told: left by a former engine, or by a driver that failed then.
    var isOwed: Bool
  }

  /// Which volumes a container has mounted.
  private let uses: Mutex<[ObjectID: [Use]]>

  private static let useKind = "use"

  init(host: PluginHost, store: VolumeStore) {
    self.host = host
    var uses: [ObjectID: [Use]] = [:]
    for entry in host.journal.entries(plugin: host.manifest.name, kind: Self.useKind) {
      guard let container = ObjectID(entry.container) else { continue }
      uses[container, default: []].append(Use(volume: entry.object, number: entry.number, isOwed: true))
    }
    self.uses = Mutex(uses)
    self.store = store
    fill = VolumeFill(host: host, store: store)
  }

  func mount(_ request: VolumeMount, _ call: Call) async throws(EngineError) -> VolumeMount.Reply {
    guard request.mounts.count == request.points.count else {
      throw EngineError(.invalidArgument, "a container has as many mount points as mounts")
    }
    let volumes = Set(request.points.compactMap { $0.kind == .volume ? $0.volume : nil }).sorted()
    if !volumes.isEmpty {
      let numbers = try host.journal.begin(
        plugin: host.manifest.name, container: request.container.text, volumes.map { (Self.useKind, $0) })
      let made = zip(volumes, numbers).map { Use(volume: $0, number: $1, isOwed: false) }
      uses.withLock { uses in
        // What it still owed from before ends together with this.
        let before = uses[request.container] ?? []
        uses[request.container] = before.map { Use(volume: $0.volume, number: $0.number, isOwed: false) } + made
      }
      for volume in volumes { await takeBackOwed(of: volume, call) }
      FaultPoint.reach("volumes.mount.recorded")
    }
    do throws(EngineError) {
      var result: VolumeMount.Reply = []
      result.reserveCapacity(request.mounts.count)
      for (mount, point) in zip(request.mounts, request.points) {
        let descriptor = try await detached(mount, point, request, call)
        var status = stat()
        fstat(descriptor.number, &status)
        result.append(
          VolumeMount.Mounted(point: point, mount: descriptor, isDirectory: status.st_mode & S_IFMT == S_IFDIR))
      }
      if !volumes.isEmpty {
        let later = Call(bus: call.bus)
        await call.lease.hold("volumes of \(request.container.short)") { [self] in
          try? await unmount(request.container, later)
        }
      }
      return result
    } catch {
      try? await unmount(request.container, call)
      throw error
    }
  }

  private func detached(
    _ mount: MountRequest, _ point: MountPoint, _ request: VolumeMount, _ call: Call
  ) async throws(EngineError) -> Descriptor {
    switch mount.kind {
    case .tmpfs: return try tmpfs(mount, point, root: request.root)
    case .bind: return try bind(mount, point)
    case .volume:
      let volume = try store.volume(point.volume)
      let given = try await store.ask(
        VolumeDriverMount(volume: volume.name, container: request.container, options: volume.options), volume, call)
      FaultPoint.reach("volumes.mount.given")
      let base = try open(volume, given)
      if mount.copiesImage && mount.subpath.isEmpty {
        try await fill.fillIfEmpty(volume, base, root: request.root, target: point.target)
      }
      return try self.volume(mount, point, base, isMount: given.mount != nil)
    }
  }

  /// The volume's directory as the driver gave it.
  private func open(_ volume: Volume, _ given: VolumeDriverMount.Reply) throws(EngineError) -> Descriptor {
    if let mount = given.mount { return mount }
    do throws(SystemCallError) {
      return Descriptor(adopting: try Files.open(given.path, O_RDONLY | O_DIRECTORY).release())
    } catch {
      if volume.driver != VolumeStore.defaultDriver {
        throw EngineError(
          .protocolViolation,
          "the driver \"\(volume.driver)\" answered \"\(VolumeDriverMount.name)\" for the volume \(volume.name) with "
            + "the path \(given.path), which cannot be opened: \(error.reason)")
      }
      throw EngineError(
        .notFound,
        "the data of the volume \(volume.name) is not there (\(error)); `system check --repair` makes it anew, empty")
    }
  }

  private func volume(
    _ mount: MountRequest, _ point: MountPoint, _ base: Descriptor, isMount: Bool
  ) throws(EngineError) -> Descriptor {
    do throws(SystemCallError) {
      let made: Descriptor
      if mount.subpath.isEmpty {
        made = isMount ? base : Descriptor(adopting: try Mounts.clone(at: base.number, "", recursive: true).release())
      } else {
        let part = try Files.open(inRoot: base.number, mount.subpath, O_PATH)
        made = Descriptor(adopting: try Mounts.clone(at: part.number, "", recursive: true).release())
      }
      try finish(made.number, mount)
      return made
    } catch {
      if !mount.subpath.isEmpty && error.number == ENOENT {
        throw EngineError(
          .invalidArgument, "the volume \(point.volume) has no subpath \(mount.subpath): no such file or directory")
      }
      throw EngineError(.internalFailure, "the volume \(point.volume) cannot be mounted on \(point.target): \(error)")
    }
  }

  func bind(_ mount: MountRequest, _ point: MountPoint) throws(EngineError) -> Descriptor {
    do throws(SystemCallError) {
      // The directory that `-v` made may be gone since.
      if mount.createsSource && !Files.exists(point.source) { try Files.makeDirectories(point.source, mode: 0o755) }
      let made = Descriptor(adopting: try Mounts.clone(point.source, recursive: mount.isRecursive).release())
      try finish(made.number, mount)
      return made
    } catch {
      if error.number == ENOENT {
        throw EngineError(
          .invalidArgument, "invalid mount config for type \"bind\": bind source path does not exist: \(point.source)")
      }
      throw EngineError(.invalidArgument, "\(point.source) cannot be mounted on \(point.target): \(error)")
    }
  }

  /// Read-only holds for every mount beneath too. Nothing propagates back to the host unless it was asked for: the
  /// copy of a shared mount would be its peer (mount_namespaces(7)).
  private func finish(_ made: Int32, _ mount: MountRequest) throws(SystemCallError) {
    let propagation =
      switch mount.propagation {
      case "shared", "rshared": MS_SHARED
      case "slave", "rslave": MS_SLAVE
      default: MS_PRIVATE
      }
    try Mounts.setAttributes(
      made, set: mount.isReadOnly ? UInt64(MOUNT_ATTR_RDONLY) : 0,
      propagation: UInt64(propagation), recursive: true)
  }

  /// A file system in memory. Unless a mode is given, it has that of the directory it hides, as with runc; without
  /// such a directory the kernel's own, 1777.
  private func tmpfs(_ mount: MountRequest, _ point: MountPoint, root: Descriptor) throws(EngineError) -> Descriptor {
    var options = MountPreparation.tmpfsOptions(mount)
    if mount.isReadOnly { options.attributes |= UInt32(MOUNT_ATTR_RDONLY) }
    if !options.fileSystem.contains(where: { $0.key == "mode" }),
      let hidden = try? Files.open(inRoot: root.number, point.target, O_PATH | O_DIRECTORY)
    {
      var status = stat()
      if fstat(hidden.number, &status) == 0 {
        options.fileSystem.append(.init(key: "mode", value: String(status.st_mode & 0o7777, radix: 8)))
      }
    }
    do throws(SystemCallError) {
      let made = try Mounts.make(
        "tmpfs", [.value("source", "tmpfs")] + options.configuration, attributes: options.attributes)
      return Descriptor(adopting: made.release())
    } catch {
      throw EngineError(
        .invalidArgument, "invalid mount config for type \"tmpfs\": \(point.target) cannot be mounted: \(error)")
    }
  }

  // MARK: Afterwards

  /// Tells the drivers of a container's volumes that it no longer has them.
  func unmount(_ container: ObjectID, _ call: Call) async throws(EngineError) {
    guard let ended = uses.withLock({ $0.removeValue(forKey: container) }) else { return }
    do throws(EngineError) {
      for name in Set(ended.map(\.volume)) {
        guard let volume = store.find(name) else { continue }
        let unmount = VolumeDriverUnmount(volume: name, container: container)
        if try await !host.bus.release(unmount, role: "volume", driver: volume.driver, call) {
          host.log.warning(
            "the driver \(volume.driver) is gone, so it is not told that \(container.short) no longer has the volume \(name)"
          )
        }
      }
      FaultPoint.reach("volumes.unmount.told")
      try host.journal.end(ended.map(\.number))
    } catch {
      let owed = ended.map { Use(volume: $0.volume, number: $0.number, isOwed: true) }
      uses.withLock { $0[container, default: []] += owed }
      throw error
    }
  }

  /// Tells a volume's driver what it could not be told before, now that it is wanted again.
  func takeBackOwed(of volume: String, _ call: Call) async {
    guard let driver = store.find(volume)?.driver else { return }
    let owing = uses.withLock { uses in
      uses.filter { $0.value.contains { $0.isOwed && store.find($0.volume)?.driver == driver } }.keys.sorted()
    }
    for container in owing {
      do throws(EngineError) {
        try await unmount(container, call)
      } catch {
        host.log.warning("the volumes of \(container.short) are still owed to their drivers: \(error)")
      }
    }
  }

  /// Uses of containers that do not run any more, and volumes of containers that never came to be. The volumes' data is
  /// compared by the drivers.
  func check(_ request: PluginCheck, _ call: Call) async throws(EngineError) -> [SystemDifference] {
    let running = Set(request.running)
    var differences: [SystemDifference] = []
    for (container, uses) in uses.withLock({ $0 }).sorted(by: { $0.key < $1.key }) {
      // What this process recorded belongs to an operation or a container of its own, which ends it.
      let owed = uses.filter(\.isOwed)
      if owed.isEmpty || running.contains(container) { continue }
      for use in owed {
        differences.append(
          SystemDifference(
            kind: .leftover, plugin: host.manifest.name,
            object: "use of the volume \(use.volume) by the container \(container.short)"))
      }
      if request.repair { try await unmount(container, call) }
    }
    for volume in store.unclaimed(known: Set(request.known)) {
      differences.append(
        SystemDifference(
          kind: .leftover, plugin: host.manifest.name,
          object: "anonymous volume \(volume.name) of the missing container \(volume.container?.short ?? "")"))
      if request.repair { try await store.remove(VolumeRemove(volume: volume.name, force: true), call) }
    }
    return differences
  }
}
