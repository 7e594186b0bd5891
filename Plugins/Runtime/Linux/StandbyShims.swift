import Contracts
import Glibc
import Kernel
import LinuxSystem
import ShimProtocol
import Synchronization

/// Shims that were started before anybody asked for them, so that a container need not wait for one to load, and those
/// whose container is gone, which serve the next. Each has a directory of its own already, which is given its container's
/// name when one takes it. A shim that stands by ends with its engine, because that is all it is connected to.
final class StandbyShims: Sendable {
  struct Shim: Sendable {
    var directory: ContainerDirectory
    var socket: Descriptor
    var process: ShimProcess
  }

  /// No container's ID begins so.
  static let prefix = "standby-"

  /// As many may stand by while containers come and go: those that are too many go when it is quiet.
  private static let most = 32
  /// So many containers are served by one process, so that what it was given for them stays little.
  private static let mostContainers = 100

  private struct State {
    var idle: [Shim] = []
    var names: Set<String> = []
    var next = 0
    var isFilling = false
    var isClosed = false
  }

  private let base: String
  private let spares: DirectoryPool
  private let spawner: ShimSpawner
  private let count: Int
  private let state = Mutex(State())

  /// - Parameter count: how many are to stand by.
  init(base: String, spares: DirectoryPool, spawner: ShimSpawner, count: Int) {
    self.base = base
    self.spares = spares
    self.spawner = spawner
    self.count = count
  }

  /// The names of the directories of those that stand by or are about to.
  var names: Set<String> { state.withLock { $0.names } }

  var isEmpty: Bool { state.withLock { $0.idle.isEmpty } }

  /// More stand by than are to when it is quiet.
  var hasTooMany: Bool { state.withLock { $0.idle.count > count } }

  /// The PIDs of those that stand by.
  var processes: [Int32] { state.withLock { $0.idle.map(\.process.pid) } }

  /// Removes what an engine before this one left.
  func clean() {
    for name in (try? Files.list(base)) ?? [] where name.hasPrefix(Self.prefix) {
      try? ContainerDirectory(base: base, name: name).remove()
    }
  }

  /// One that lives, with the directory that it is given; nil when there is none.
  func take(for directory: ContainerDirectory) -> Shim? {
    while var shim = state.withLock({ $0.idle.popLast() }) {
      var waiting = pollfd(fd: shim.socket.number, events: Int16(POLLIN), revents: 0)
      // It says nothing unasked: what can be read is its end.
      if poll(&waiting, 1, 0) == 0, rename(shim.directory.path, directory.path) == 0 {
        let name = shim.directory.name
        shim.directory = directory
        _ = state.withLock { $0.names.remove(name) }
        return shim
      }
      discard(shim)
    }
    return nil
  }

  /// Takes a shim of this engine's back that told the end of its container and that it can serve again, with the
  /// container's directory.
  ///
  /// - Returns: whether it stands by now. If not, it and the directory are as they were.
  func take(back link: ShimLink) -> Bool {
    guard let process = link.process?.serving(), process.containers < Self.mostContainers else { return false }
    let name = state.withLock { state -> String? in
      state.isClosed || count == 0 || state.idle.count >= max(count, Self.most) ? nil : newName(&state)
    }
    guard let name else { return false }
    let directory = ContainerDirectory(base: base, name: name)
    guard (try? link.directory.clear()) != nil, rename(link.directory.path, directory.path) == 0 else {
      _ = state.withLock { $0.names.remove(name) }
      return false
    }
    let shim = Shim(directory: directory, socket: link.socket, process: process)
    // It does what is asked after that: whoever takes it need not wait for an answer.
    let isWanted =
      (try? link.send(.standBy)) != nil
      && state.withLock { state -> Bool in
        // Taken last: by then it has made what a container needs.
        if !state.isClosed { state.idle.insert(shim, at: 0) }
        return !state.isClosed
      }
    if !isWanted { discard(shim) }
    return true
  }

  private func newName(_ state: inout State) -> String {
    state.next += 1
    let name = "\(Self.prefix)\(state.next)"
    state.names.insert(name)
    return name
  }

  /// Starts those that are missing, and lets go of those that are too many. One that cannot be started is not missed: a
  /// container starts its own then, and says what is in the way.
  ///
  /// - Parameter limit: so many are enough.
  func fill(upTo limit: Int = .max) {
    let begins = state.withLock { state -> Bool in
      guard !state.isFilling, !state.isClosed else { return false }
      state.isFilling = true
      return true
    }
    guard begins else { return }
    defer { state.withLock { $0.isFilling = false } }
    while let superfluous = state.withLock({ $0.idle.count > count ? $0.idle.removeFirst() : nil }) {
      discard(superfluous)
    }
    while true {
      let name = state.withLock { state -> String? in
        guard !state.isClosed, state.idle.count < min(count, limit) else { return nil }
        return newName(&state)
      }
      guard let name else { return }
      let directory = ContainerDirectory(base: base, name: name)
      guard let shim = try? start(in: directory) else {
        try? directory.remove()
        _ = state.withLock { $0.names.remove(name) }
        return
      }
      let isWanted = state.withLock { state -> Bool in
        if !state.isClosed { state.idle.append(shim) }
        return !state.isClosed
      }
      if !isWanted { discard(shim) }
    }
  }

  private func start(in directory: ContainerDirectory) throws(SystemCallError) -> Shim {
    try spares.ensure(directory.path)
    let (socket, pid) = try spawner.spawn(in: directory, label: standbyLabel)
    return Shim(directory: directory, socket: socket, process: ShimProcess(pid))
  }

  /// Lets all of them go.
  func close() {
    let idle = state.withLock { state -> [Shim] in
      state.isClosed = true
      defer { state.idle = [] }
      return state.idle
    }
    for shim in idle { discard(shim) }
  }

  private func discard(_ shim: Shim) {
    shim.process.kill()
    try? shim.directory.remove()
    shim.process.reap()
    _ = state.withLock { $0.names.remove(shim.directory.name) }
  }
}
