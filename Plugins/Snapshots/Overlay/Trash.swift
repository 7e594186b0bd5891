import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Where trees go that are to be removed: one rename(2) takes them out of sight at once, and a thread of its own deletes
/// them, after whoever removed them has been answered: deleting right away would keep the disk and a processor from what
/// remains to be done. What it holds after a crash is found again at the next start.
final class Trash: Sendable {
  /// Deletes a tree, or keeps what of it is of use.
  typealias Deletion = @Sendable (String) throws(SystemCallError) -> Void

  private struct Tree {
    var path: String
    var entries: [UInt64]
    var delete: Deletion = Trash.remove
  }

  private struct State {
    var pending: [Tree] = []
    var works = false
    /// Trees that could not be deleted, with the reason.
    var failed: [String: String] = [:]
  }

  let path: String
  private let host: PluginHost
  private let state = Mutex(State())

  init(path: String, host: PluginHost) {
    self.path = path
    self.host = host
  }

  /// Goes on with what a former engine left.
  func load() throws(EngineError) {
    do {
      try Files.makeDirectory(path)
      for name in try Files.list(path) { delete(Tree(path: "\(path)/\(name)", entries: [])) }
    } catch {
      throw EngineError(.internalFailure, "the trash cannot be listed: \(error)")
    }
    for entry in host.journal.entries(plugin: host.manifest.name, kind: "trash") {
      if !Files.exists(entry.object) { try host.journal.end([entry.number]) }
    }
  }

  /// Moves a tree away and deletes it in the background. Nothing at `tree` is not an error.
  ///
  /// - Parameter delete: what is done with it then.
  func throwAway(_ tree: String, deletedBy delete: @escaping Deletion = Trash.remove) throws(EngineError) {
    let target = "\(path)/\(ObjectID.random().text.prefix(20))"
    let entries = try host.journal.begin(plugin: host.manifest.name, [("trash", target)])
    if rename(tree, target) < 0 {
      let number = errno
      try host.journal.end(entries)
      if number == ENOENT { return }
      throw EngineError(.internalFailure, "\(tree) cannot be removed: \(SystemCallError.text(number))")
    }
    FaultPoint.reach("overlay.remove.renamed")
    self.delete(Tree(path: target, entries: entries, delete: delete))
  }

  /// What is being deleted, and what could not be.
  var contents: (draining: [String], failed: [String]) {
    state.withLock { state in (state.pending.map(\.path), state.failed.keys.sorted()) }
  }

  /// Tries again what could not be deleted.
  func retry() {
    let again = state.withLock { state -> [String] in
      defer { state.failed = [:] }
      return Array(state.failed.keys)
    }
    for tree in again { delete(Tree(path: tree, entries: [])) }
  }

  private func delete(_ tree: Tree) {
    let starts = state.withLock { state -> Bool in
      state.pending.append(tree)
      if state.works { return false }
      state.works = true
      return true
    }
    guard starts else { return }
    _ = host.bus.timekeeper.schedule(after: Replenisher.quiet) { [self] in
      if !Thread.start({ self.work() }) { state.withLock { $0.works = false } }
    }
  }

  @Sendable static func remove(_ tree: String) throws(SystemCallError) {
    try TreeRemover.remove(AT_FDCWD, tree.utf8CString.map { $0 })
  }

  private func work() {
    while true {
      let next = state.withLock { state -> Tree? in
        if state.pending.isEmpty { state.works = false }
        return state.pending.first
      }
      guard let next else { return }
      var reason: String?
      do {
        try next.delete(next.path)
        let open =
          next.entries.isEmpty
          ? host.journal.entries(plugin: host.manifest.name, kind: "trash").filter { $0.object == next.path }.map(
            \.number)
          : next.entries
        try host.journal.end(open)
      } catch {
        reason = "\(error)"
        host.log.error("a removed tree cannot be deleted: \(error)")
      }
      state.withLock { state in
        state.pending.removeFirst()
        if let reason { state.failed[next.path] = reason }
      }
    }
  }
}
