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

  private struct Names {
    var all: Set<String> = []
    var next = 0
  }

  private let base: String
  private let spares: DirectoryPool
  private let spawner: ShimSpawner
  private let count: Int
  private let stock = Stock<Shim>()
  private let directories = Mutex(Names())

  /// - Parameter count: how many are to stand by.
  init(base: String, spares: DirectoryPool, spawner: ShimSpawner, count: Int) {
    self.base = base
    self.spares = spares
    self.spawner = spawner
    self.count = count
  }

  /// The names of the directories of those that stand by or are about to.
  var names: Set<String> { directories.withLock { $0.all } }

  var isEmpty: Bool { stock.isEmpty }

  /// More stand by than are to when it is quiet.
  var hasTooMany: Bool { stock.count > count }

  /// The PIDs of those that stand by.
  var processes: [Int32] { stock.idle.map(\.process.pid) }

  /// Removes what an engine before this one left.
  func clean() {
    for name in (try? Files.list(base)) ?? [] where name.hasPrefix(Self.prefix) {
      try? ContainerDirectory(base: base, name: name).remove()
    }
  }

  /// One that lives, with the directory that it is given; nil when there is none.
  func take(for directory: ContainerDirectory) -> Shim? {
    while var shim = stock.take().item {
      var waiting = pollfd(fd: shim.socket.number, events: Int16(POLLIN), revents: 0)
      // It says nothing unasked: what can be read is its end.
      if poll(&waiting, 1, 0) == 0, rename(shim.directory.path, directory.path) == 0 {
        let name = shim.directory.name
        shim.directory = directory
        forget(name)
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
    guard count > 0, stock.hasRoom(upTo: max(count, Self.most)) else { return false }
    let name = newName()
    let directory = ContainerDirectory(base: base, name: name)
    guard (try? link.directory.clear()) != nil, rename(link.directory.path, directory.path) == 0 else {
      forget(name)
      return false
    }
    let shim = Shim(directory: directory, socket: link.socket, process: process)
    // It does what is asked after that: whoever takes it need not wait for an answer. Taken last: by then it has made
    // what a container needs.
    let isWanted = (try? link.send(.standBy)) != nil && stock.keep(shim, .takenLast)
    if !isWanted { discard(shim) }
    return true
  }

  private func newName() -> String {
    directories.withLock { names in
      names.next += 1
      let name = "\(Self.prefix)\(names.next)"
      names.all.insert(name)
      return name
    }
  }

  private func forget(_ name: String) {
    directories.withLock { _ = $0.all.remove(name) }
  }

  /// Starts those that are missing, and lets go of those that are too many.
  ///
  /// - Parameter limit: so many are enough.
  func fill(upTo limit: Int = .max) async {
    await stock.fill(to: min(count, limit), keepingUpTo: count) { [self] in
      let directory = ContainerDirectory(base: base, name: newName())
      guard let shim = try? start(in: directory) else {
        try? directory.remove()
        forget(directory.name)
        return nil
      }
      return shim
    } discard: { [self] in
      discard($0)
    }
  }

  private func start(in directory: ContainerDirectory) throws(SystemCallError) -> Shim {
    try spares.ensure(directory.path)
    let (socket, pid) = try spawner.spawn(in: directory, label: standbyLabel)
    return Shim(directory: directory, socket: socket, process: ShimProcess(pid))
  }

  /// Lets all of them go.
  func close() async {
    for shim in await stock.close() { discard(shim) }
  }

  private func discard(_ shim: Shim) {
    shim.process.kill()
    try? shim.directory.remove()
    shim.process.reap()
    forget(shim.directory.name)
  }
}
