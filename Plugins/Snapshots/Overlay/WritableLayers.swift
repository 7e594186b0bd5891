import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// The writable layer of each container: `containers/<ID>/upper`, and `work` beside it, which overlayfs needs empty.
final class WritableLayers: Sendable {
  let path: String
  private let host: PluginHost
  private let trash: Trash
  private let spares: DirectoryPool
  /// Journal entries by container.
  private let entries = Mutex<[ObjectID: UInt64]>([:])

  init(path: String, host: PluginHost, trash: Trash) {
    self.path = path
    self.host = host
    self.trash = trash
    spares = DirectoryPool(in: path, bus: host.bus) { (directory) throws(SystemCallError) in
      try Self.make("\(directory)/upper", 0o755)
      try Self.make("\(directory)/work", 0o700)
    }
  }

  private static func make(_ directory: String, _ mode: mode_t) throws(SystemCallError) {
    try SystemCallError.check("mkdir", directory) { mkdir(directory, mode) }
    try SystemCallError.check("chmod", directory) { chmod(directory, mode) }
  }

  /// Makes the layer of a container that wrote nothing like a new one, in the few calls that it takes where what overlayfs
  /// leaves is known: `work/work`, with the mark of a discardable mount. `upper` is always a new one, because somebody
  /// may still have the old mount.
  ///
  /// - Returns: false for any other layer, of which some is gone then.
  private static func renew(_ directory: String) -> Bool {
    guard rmdir("\(directory)/upper") == 0 else { return false }
    let work = "\(directory)/work/work"
    unlink("\(work)/incompat/volatile/dirty")
    rmdir("\(work)/incompat/volatile")
    rmdir("\(work)/incompat")
    guard rmdir(work) == 0, (try? Files.list("\(directory)/work")) == [] else { return false }
    return (try? make("\(directory)/upper", 0o755)) != nil
  }

  /// Keeps a layer's directory for another container.
  @Sendable private func reuse(_ directory: String) throws(SystemCallError) {
    let isNew = Self.renew(directory)
    if !isNew {
      for name in try Files.list(directory) { try Trash.remove("\(directory)/\(name)") }
    }
    try spares.give(back: directory, isPrepared: isNew)
  }

  func close() async { await spares.close() }

  func load() throws(EngineError) {
    do {
      try Files.makeDirectory(path)
      InodePlacement.spread(path)
      spares.clean()
    } catch {
      throw EngineError(.internalFailure, "the containers' layers cannot be kept: \(error)")
    }
    for entry in host.journal.entries(plugin: host.manifest.name, kind: "upper") {
      if Files.exists(entry.object), let container = ObjectID(entry.container) {
        entries.withLock { $0[container] = entry.number }
      } else {
        try host.journal.end([entry.number])
      }
    }
  }

  func directory(_ container: ObjectID) -> String { "\(path)/\(container.text)" }

  /// Makes the layer, or makes it ready to be mounted again.
  ///
  /// - Parameter top: the topmost layer of the image, whose root directory's mode and owner the whole shows.
  func make(_ container: ObjectID, above top: LayerStore.Layer?) throws(EngineError) {
    let directory = directory(container)
    if entries.withLock({ $0[container] }) == nil {
      let begun = try host.journal.begin(
        plugin: host.manifest.name, container: container.text, [("upper", directory)])
      entries.withLock { $0[container] = begun.first }
    }
    do throws(SystemCallError) {
      var isNew = true
      do throws(SystemCallError) {
        try spares.take(as: directory)
      } catch  where error.number == EEXIST {
        // A discardable mount marks its work directory so that it is not mounted again; nothing in it is needed.
        try TreeRemover.remove(AT_FDCWD, "\(directory)/work".utf8CString.map { $0 })
        try SystemCallError.check("mkdir", directory) { mkdir("\(directory)/work", 0o700) }
        isNew = mkdir("\(directory)/upper", 0o700) == 0
        if isNew { try SystemCallError.check("chmod", directory) { chmod("\(directory)/upper", 0o755) } }
      }
      FaultPoint.reach("overlay.mount.directory")
      if isNew, let top { try liken("\(directory)/upper", to: top) }
    } catch {
      throw LayerStore.storageError("the container's layer cannot be made", error)
    }
  }

  private func liken(_ upper: String, to top: LayerStore.Layer) throws(SystemCallError) {
    if top.uid != 0 || top.gid != 0 {
      try SystemCallError.check("chown", upper) { chown(upper, top.uid, top.gid) }
    }
    if top.mode != 0o755 { try SystemCallError.check("chmod", upper) { chmod(upper, top.mode) } }
  }

  /// Takes the layer out of sight; it is deleted in the background.
  func remove(_ container: ObjectID) throws(EngineError) {
    try trash.throwAway(directory(container), deletedBy: reuse)
    if let entry = entries.withLock({ $0.removeValue(forKey: container) }) { try host.journal.end([entry]) }
  }

  /// Containers that had a layer when this was last looked at, and whose layer is not there.
  func missing() -> [ObjectID] {
    entries.withLock { $0 }.keys.filter { !Files.exists(directory($0)) }.sorted()
  }

  /// Takes note that a layer is lost; the next mount makes a new one.
  func forget(_ container: ObjectID) throws(EngineError) {
    if let entry = entries.withLock({ $0.removeValue(forKey: container) }) { try host.journal.end([entry]) }
  }

  /// Containers that have a layer.
  func all() throws(EngineError) -> [ObjectID] {
    do {
      return try Files.list(path).compactMap { ObjectID($0) }
    } catch {
      throw EngineError(.internalFailure, "the containers' layers cannot be listed: \(error)")
    }
  }
}
