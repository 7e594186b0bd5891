import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// What happens when a container is created: its mounts are checked and its volumes made; nothing is mounted.
final class MountPreparation: Sendable {
  private let store: VolumeStore

  init(store: VolumeStore) { self.store = store }

  func prepare(_ request: VolumePrepare, _ call: Call) async throws(EngineError) -> [MountPoint] {
    // Everything is checked before anything is made.
    var targets: Set<String> = []
    for mount in request.mounts {
      try Self.check(mount)
      if !targets.insert(VolumeName.clean(mount.target)).inserted {
        throw EngineError(.invalidArgument, "Duplicate mount point: \(VolumeName.clean(mount.target))")
      }
    }
    var points: [MountPoint] = []
    for mount in request.mounts { points.append(try await point(for: mount, of: request.container, call)) }
    return points
  }

  private func point(
    for mount: MountRequest, of container: ObjectID, _ call: Call
  ) async throws(EngineError) -> MountPoint {
    var point = MountPoint(
      kind: mount.kind, volume: "", source: "", target: VolumeName.clean(mount.target), driver: "",
      isReadOnly: mount.isReadOnly, propagation: mount.propagation)
    switch mount.kind {
    case .tmpfs: break
    case .bind:
      point.source = VolumeName.clean(mount.source)
      if point.propagation.isEmpty { point.propagation = "rprivate" }
      if mount.createsSource, !Files.exists(point.source) { try await makeSource(point.source, call) }
    case .volume:
      let create = VolumeCreate(
        volumeName: mount.source.isEmpty ? nil : mount.source, driver: mount.driver, options: mount.driverOptions,
        labels: mount.labels)
      let (volume, isNew) = try await store.create(
        create, isAnonymous: mount.source.isEmpty, container: container, call)
      if isNew {
        // A call of its own: the one that made it may be over when the lease gives it back.
        let undo = Call(bus: call.bus)
        await call.lease.hold("volume \(volume.name)") { [store] in await store.undo(volume, undo) }
      }
      point.volume = volume.name
      point.driver = volume.driver
      point.source = volume.mountpoint
    }
    return point
  }

  /// Makes the host's directory that `-v` names, with what is missing above it.
  private func makeSource(_ path: String, _ call: Call) async throws(EngineError) {
    var missing: [String] = []
    var next = path
    while next != "/" && !Files.exists(next) {
      missing.append(next)
      next = VolumeName.clean(next + "/..")
    }
    do throws(SystemCallError) {
      try Files.makeDirectories(path, mode: 0o755)
    } catch {
      for directory in missing { rmdir(directory) }
      throw EngineError(.invalidArgument, "error while creating mount source path '\(path)': \(error)")
    }
    await call.lease.hold("directory \(path)") { [missing] in for directory in missing { rmdir(directory) } }
  }

  // MARK: Checking

  /// Docker's words differ with the flag: `-v` (which makes a missing source) and `--mount`.
  static func check(_ mount: MountRequest) throws(EngineError) {
    func invalid(_ reason: String) -> EngineError {
      if mount.createsSource {
        let suffix = mount.isReadOnly ? ":ro" : ""
        return EngineError(
          .invalidArgument, "invalid volume specification: '\(mount.source):\(mount.target)\(suffix)': \(reason)")
      }
      return EngineError(.invalidArgument, "invalid mount config for type \"\(mount.kind.rawValue)\": \(reason)")
    }
    if mount.target.isEmpty { throw invalid("field Target must not be empty") }
    if !mount.target.hasPrefix("/") {
      throw invalid("invalid mount path: '\(mount.target)' mount path must be absolute")
    }
    if mount.target.utf8.contains(0) || mount.source.utf8.contains(0) { throw invalid("a path has no zero byte") }
    if VolumeName.clean(mount.target) == "/" {
      throw invalid("invalid \(mount.createsSource ? "volume " : "")specification: destination can't be '/'")
    }
    switch mount.kind {
    case .bind:
      if mount.source.isEmpty { throw invalid("field Source must not be empty") }
      if !mount.source.hasPrefix("/") {
        throw invalid("invalid mount path: '\(mount.source)' mount path must be absolute")
      }
      let source = VolumeName.clean(mount.source)
      if !mount.createsSource && Files.status(source) == nil {
        throw invalid("bind source path does not exist: \(source)")
      }
      let propagations = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"]
      if !propagations.contains(mount.propagation) { throw invalid("invalid propagation mode: \(mount.propagation)") }
    case .volume:
      if !mount.source.isEmpty { try VolumeName.check(mount.source) }
      if !mount.subpath.isEmpty {
        if mount.source.isEmpty { throw invalid("must not set Subpath when using anonymous volumes") }
        if mount.subpath.hasPrefix("/") { throw invalid("subpath must be a relative path within the volume") }
        if mount.subpath.split(separator: "/").contains("..") {
          throw invalid("subpath must not lead out of the volume: \(mount.subpath)")
        }
      }
    case .tmpfs:
      if !mount.source.isEmpty { throw invalid("field Source must not be specified") }
      if let unknown = tmpfsOptions(mount).unknownForTmpfs {
        throw invalid("invalid tmpfs option [\"\(unknown)\"]")
      }
    }
  }

  /// Docker's defaults for `--tmpfs`, each taken back by its contrary (`exec`, `suid`, `dev`).
  static func tmpfsOptions(_ mount: MountRequest) -> MountOptions {
    MountOptions(
      mount.tmpfsOptions.flatMap { $0.split(separator: ",").map(String.init) },
      attributes: UInt32(MOUNT_ATTR_NOEXEC) | UInt32(MOUNT_ATTR_NOSUID) | UInt32(MOUNT_ATTR_NODEV))
  }
}
