import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// The directories of local volumes.
///
/// They are durable, and so is the catalog's record that says they exist; so a directory is not in the journal (which a
/// reboot clears): one without a record is a leftover, and what is in the trash is on its way out. Removal is a
/// rename into the trash, at once and whole; the trash is emptied in the background and again at every start.
final class LocalStorage: Sendable {
  private struct State {
    /// Made by this process and perhaps not recorded by the catalog yet.
    var made: Set<String> = []
    var emptiesTrash = false
    /// Journal numbers of the containers that use a file system which is mounted on first use, by volume.
    var users: [String: [ObjectID: UInt64]] = [:]
    /// Containers that use a plain directory, for as long as this engine lives: they need no unmounting.
    var plainUsers: [String: Set<ObjectID>] = [:]
  }

  private let host: PluginHost
  private let volumes: String
  private let trash: String
  private let state: Mutex<State>

  private static let useKind = "mount"

  init(host: PluginHost) throws(EngineError) {
    self.host = host
    let configured = host.setting("root")
    if !configured.isEmpty && !configured.hasPrefix("/") {
      throw EngineError(.invalidArgument, "plugins.volume-local.root must be an absolute path, not \"\(configured)\"")
    }
    let directory = configured.isEmpty ? try host.stateDirectory() : configured
    volumes = "\(directory)/volumes"
    trash = "\(directory)/trash"
    do throws(SystemCallError) {
      try Files.makeDirectories(volumes)
      try Files.makeDirectories(trash)
    } catch {
      throw EngineError(.internalFailure, "the volumes' directory cannot be made: \(error)")
    }
    var initial = State()
    for entry in host.journal.entries(plugin: host.manifest.name, kind: Self.useKind) {
      if let container = ObjectID(entry.container) {
        initial.users[entry.object, default: [:]][container] = entry.number
      }
    }
    state = Mutex(initial)
  }

  /// A name is one component of a path; the catalog has checked it too, but a driver trusts nobody with paths.
  private func directory(_ volume: String) throws(EngineError) -> String {
    if volume.isEmpty || volume.hasPrefix(".") || volume.utf8.contains(where: { $0 == 47 || $0 == 0 }) {
      throw EngineError(.invalidArgument, "\"\(volume)\" is not a volume name")
    }
    return "\(volumes)/\(volume)"
  }

  private func failure(_ what: String, _ volume: String, _ error: SystemCallError) -> EngineError {
    let code: EngineError.Code =
      error.number == ENOSPC || error.number == EDQUOT ? .resourceExhausted : .internalFailure
    return EngineError(code, "the volume \(volume) cannot be \(what): \(error)")
  }

  private func missing(_ volume: String, _ data: String) -> EngineError {
    EngineError(
      .notFound,
      "the data of the volume \(volume) is not there (\(data)); `system check --repair` makes it anew, empty")
  }

  func create(_ volume: String, _ options: [String: String]) throws(EngineError) -> String {
    _ = try LocalMount(options)
    let directory = try directory(volume)
    state.withLock { _ = $0.made.insert(volume) }
    do throws(SystemCallError) {
      try Files.makeDirectory(directory)
      FaultPoint.reach("volume-local.create.directory")
      try makeData(directory)
      FaultPoint.reach("volume-local.create.data")
    } catch {
      rmdir(directory)
      throw failure("made", volume, error)
    }
    return "\(directory)/_data"
  }

  /// The mode is Docker's whatever the umask of the daemon is: users of the container have to get in.
  private func makeData(_ directory: String) throws(SystemCallError) {
    if Files.isDirectory("\(directory)/_data") { return }
    try Files.makeDirectory("\(directory)/_data", mode: 0o755)
    try SystemCallError.check("chmod", directory) { chmod("\(directory)/_data", 0o755) }
  }

  func remove(_ volume: String) throws(EngineError) {
    let directory = try directory(volume)
    if let user = state.withLock({ $0.users[volume]?.keys.first ?? $0.plainUsers[volume]?.first }) {
      throw EngineError(.inUse, "the volume \(volume) is mounted for the container \(user.short)")
    }
    let target = "\(trash)/\(volume).\(ObjectID.random().short)"
    do throws(SystemCallError) {
      try SystemCallError.check("rename", directory) { rename(directory, target) }
    } catch  where error.number == ENOENT {
    } catch {
      throw failure("removed", volume, error)
    }
    FaultPoint.reach("volume-local.remove.renamed")
    state.withLock { _ = $0.made.remove(volume) }
    emptyTrash()
  }

  /// Deletes what is in the trash, in the background.
  func emptyTrash() {
    let starts = state.withLock { state -> Bool in
      if state.emptiesTrash { return false }
      state.emptiesTrash = true
      return true
    }
    if !starts { return }
    Task(executorPreference: host.bus.executor) {
      while true {
        let names = (try? Files.list(self.trash)) ?? []
        var failed = false
        for name in names {
          do { try Files.removeTree("\(self.trash)/\(name)") } catch {
            failed = true
            self.host.log.warning("a removed volume cannot be deleted: \(error)")
          }
        }
        // A name that came after the list was read is seen by the next round.
        let isDone = self.state.withLock { state -> Bool in
          guard failed || ((try? Files.list(self.trash))?.isEmpty ?? true) else { return false }
          state.emptiesTrash = false
          return true
        }
        if isDone { return }
      }
    }
  }

  // MARK: Mounting

  func mount(
    _ volume: String, for container: ObjectID, _ options: [String: String]
  ) throws(EngineError) -> VolumeDriverMount.Reply {
    let data = "\(try directory(volume))/_data"
    guard let mount = try LocalMount(options) else {
      guard Files.isDirectory(data) else { throw missing(volume, data) }
      state.withLock { _ = $0.plainUsers[volume, default: []].insert(container) }
      return VolumeDriverMount.Reply(mount: nil, path: data)
    }
    guard Files.isDirectory(data) else { throw missing(volume, data) }
    // Told once more, perhaps by an engine that died before it heard the answer.
    if state.withLock({ $0.users[volume]?[container] != nil }), isMountPoint(data) {
      return VolumeDriverMount.Reply(mount: nil, path: data)
    }
    let number = try host.journal.begin(
      plugin: host.manifest.name, container: container.text, [(Self.useKind, volume)])
    // Under the lock, so that two first users mount once and a last user does not unmount under a new one.
    let failed = state.withLock { state -> EngineError? in
      state.users[volume, default: [:]][container] = number.first
      if isMountPoint(data) { return nil }
      do throws(EngineError) {
        try mount.attach(at: data)
      } catch {
        state.users[volume]?[container] = nil
        if state.users[volume]?.isEmpty == true { state.users[volume] = nil }
        return EngineError(.invalidArgument, "failed to mount local volume \(volume)", because: error)
      }
      return nil
    }
    FaultPoint.reach("volume-local.mount.attached")
    if let failed {
      try host.journal.end(number)
      throw failed
    }
    return VolumeDriverMount.Reply(mount: nil, path: data)
  }

  func unmount(_ volume: String, from container: ObjectID) throws(EngineError) {
    let data = "\(try directory(volume))/_data"
    let number = state.withLock { state -> UInt64? in
      _ = state.plainUsers[volume]?.remove(container)
      if state.plainUsers[volume]?.isEmpty == true { state.plainUsers[volume] = nil }
      guard let number = state.users[volume]?.removeValue(forKey: container) else { return nil }
      if state.users[volume]?.isEmpty == true {
        state.users[volume] = nil
        if isMountPoint(data) { umount2(data, Int32(MNT_DETACH)) }
      }
      return number
    }
    guard let number else { return }
    FaultPoint.reach("volume-local.unmount.detached")
    try host.journal.end([number])
  }

  /// A directory on another device or with another mount than the one above it (statx(2), STATX_ATTR_MOUNT_ROOT).
  private func isMountPoint(_ path: String) -> Bool {
    var status = statx()
    guard statx(AT_FDCWD, path, Int32(AT_SYMLINK_NOFOLLOW), 0, &status) == 0 else { return false }
    return status.stx_attributes & UInt64(STATX_ATTR_MOUNT_ROOT) != 0
  }

  // MARK: Checking

  private func isEmpty(_ volume: String) -> Bool {
    ((try? Files.list("\(volumes)/\(volume)/_data")) ?? []).isEmpty
  }

  /// - Parameter hasRecords: the engine knows of something; otherwise its records are lost, and directories that have
  ///   data are what remains of them.
  func check(
    _ request: PluginCheck, recorded: [Volume], hasRecords: Bool
  ) throws(EngineError) -> [SystemDifference] {
    var differences: [SystemDifference] = []
    func report(_ kind: SystemDifference.Kind, _ object: String) {
      differences.append(SystemDifference(kind: kind, plugin: host.manifest.name, object: object))
    }
    let present = Set((try? Files.list(volumes)) ?? [])
    let made = state.withLock { $0.made }
    let names = Set(recorded.map(\.name))
    for volume in recorded.sorted(by: { $0.name < $1.name })
    where !Files.isDirectory("\(volumes)/\(volume.name)/_data") {
      report(.missing, "directory \(volumes)/\(volume.name)/_data")
      // The data is lost; the volume is usable again.
      if request.repair { _ = try create(volume.name, volume.options) }
    }
    for name in present.subtracting(names).subtracting(made).sorted() {
      guard hasRecords || isEmpty(name) else {
        report(.leftover, "directory \(volumes)/\(name), kept because it has data and nothing at all is recorded")
        continue
      }
      report(.leftover, "directory \(volumes)/\(name)")
      if request.repair { try remove(name) }
    }
    let running = Set(request.known)
    for (volume, users) in state.withLock({ $0.users }) {
      for container in users.keys.sorted() where !running.contains(container) {
        report(.leftover, "mount \(volumes)/\(volume)/_data of the container \(container.short)")
        if request.repair { try unmount(volume, from: container) }
      }
    }
    for name in ((try? Files.list(trash)) ?? []).sorted() { report(.draining, "directory \(trash)/\(name)") }
    if request.repair { emptyTrash() }
    return differences
  }
}
