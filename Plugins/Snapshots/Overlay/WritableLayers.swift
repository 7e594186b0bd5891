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
  /// Journal entries by container.
  private let entries = Mutex<[ObjectID: UInt64]>([:])

  init(path: String, host: PluginHost, trash: Trash) {
    self.path = path
    self.host = host
    self.trash = trash
  }

  func load() throws(EngineError) {
    do {
      try Files.makeDirectory(path)
      InodePlacement.spread(path)
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
      if mkdir(directory, 0o700) < 0 {
        guard errno == EEXIST else { throw SystemCallError(call: "mkdir", subject: directory, number: errno) }
        // A discardable mount marks its work directory so that it is not mounted again; nothing in it is needed.
        try TreeRemover.remove(AT_FDCWD, "\(directory)/work".utf8CString.map { $0 })
      }
      FaultPoint.reach("overlay.mount.directory")
      let upper = "\(directory)/upper"
      if mkdir(upper, 0o755) == 0 {
        try SystemCallError.check("chmod", upper) { chmod(upper, top?.mode ?? 0o755) }
        if let top, top.uid != 0 || top.gid != 0 {
          try SystemCallError.check("chown", upper) { chown(upper, top.uid, top.gid) }
          try SystemCallError.check("chmod", upper) { chmod(upper, top.mode) }
        }
      } else if errno != EEXIST {
        throw SystemCallError(call: "mkdir", subject: upper, number: errno)
      }
      try SystemCallError.check("mkdir", directory) { mkdir("\(directory)/work", 0o700) }
    } catch {
      throw LayerStore.storageError("the container's layer cannot be made", error)
    }
  }

  /// Takes the layer out of sight; it is deleted in the background.
  func remove(_ container: ObjectID) throws(EngineError) {
    try trash.throwAway(directory(container))
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
