import Contracts
import Kernel
import Synchronization

/// One run of a container, from its start until everything of it is cleaned up.
final class Session: Sendable {
  enum Outcome: Sendable, Equatable {
    case ended(ExitStatus)
    case detached
  }
  /// A client that is attached.
  struct Client: Sendable {
    var number: UInt32
    /// Resolved when the client has nothing more to wait for.
    var outcome = Signal<Outcome>()
  }
  private struct State {
    var ended: ExitStatus?
    var began: Int64?
    var clients: [UInt32: Client] = [:]
  }

  /// The container ended and what it held is given back; with `--rm`, everything of it is gone.
  let settled = Signal<ExitStatus>()
  /// Where the request that started it is traced: what its end brings about belongs there too.
  let trace: TracePoint?
  private let state = Mutex(State())

  init(trace: TracePoint?) { self.trace = trace }

  /// When the container's command was executed, on CLOCK_MONOTONIC; nil for one that a former engine started.
  var began: Int64? { state.withLock { $0.began } }

  func begin(at time: Int64?) { state.withLock { $0.began = time } }

  /// A new client; its number means no other one, also of a former engine.
  func attach() -> Client {
    let client = Client(number: UInt32.random(in: 1...UInt32.max))
    let ended = state.withLock { state -> ExitStatus? in
      state.clients[client.number] = client
      return state.ended
    }
    if let ended { client.outcome.resolve(.ended(ended)) }
    return client
  }

  func forget(_ client: Client) { state.withLock { _ = $0.clients.removeValue(forKey: client.number) } }

  /// A client let go by its keys or by its end.
  func detached(_ number: UInt32) {
    state.withLock { $0.clients.removeValue(forKey: number) }?.outcome.resolve(.detached)
  }

  /// The run is over.
  func end(_ status: ExitStatus) {
    settled.resolve(status)
    let clients = state.withLock { state in
      state.ended = status
      return Array(state.clients.values)
    }
    for client in clients { client.outcome.resolve(.ended(status)) }
  }
}

/// A container in memory: its record, what is being done to it, and who waits for it.
final class ContainerEntry: Sendable {
  struct State: Sendable {
    var record: ContainerRecord
    /// Something of it may be on the host: it is starting, running, or being cleaned up.
    var isActive = false
    /// It is being removed, so it no longer counts as a user of its image, volumes and networks.
    var isBeingRemoved = false
    var session: Session?
    /// The session of a start that is under way: its client may let go before anybody is told of the start.
    var startingSession: Session?
    var execs: [ObjectID: Int32] = [:]
    /// It is started again after its end, so that `--rm` waits.
    var isRestarting = false
    /// Nanoseconds between its last end and its start by the restart policy; 0 before the first.
    var restartDelay: UInt64 = 0
  }

  let id: ObjectID
  let lock = OperationLock()
  private let state: Mutex<State>

  init(_ record: ContainerRecord) {
    id = record.id
    state = Mutex(State(record: record))
  }

  var record: ContainerRecord { state.withLock { $0.record } }
  var snapshot: State { state.withLock { $0 } }
  var isRunning: Bool { state.withLock { $0.record.state.status.hasProcesses } }
  /// Without the rest of the record, which is long.
  var pid: Int32 { state.withLock { $0.record.state.pid } }

  @discardableResult
  func update<Value: Sendable>(_ change: (inout State) -> Value) -> Value {
    state.withLock { state in change(&state) }
  }
}

/// Every container, by ID and by name. No lock is held across an await.
final class ContainerTable: Sendable {
  private struct State {
    var byID: [ObjectID: ContainerEntry] = [:]
    var byName: [String: ObjectID] = [:]
  }

  private let state = Mutex(State())

  /// Adds a container under its name.
  ///
  /// - Throws: `conflict` in Docker's words when the name is taken.
  func insert(_ entry: ContainerEntry, name: String) throws(EngineError) {
    let holder = state.withLock { state -> ObjectID? in
      if let holder = state.byName[name] { return holder }
      state.byName[name] = entry.id
      state.byID[entry.id] = entry
      return nil
    }
    if let holder {
      throw EngineError(
        .conflict,
        "Conflict. The container name \"/\(name)\" is already in use by container \"\(holder)\". You have to remove "
          + "(or rename) that container to be able to reuse that name.")
    }
  }

  /// Makes sure that a container is found by its ID, and by its name unless another one has that now.
  func keep(_ entry: ContainerEntry) {
    let name = entry.record.name
    state.withLock { state in
      state.byID[entry.id] = entry
      if state.byName[name] == nil { state.byName[name] = entry.id }
    }
  }

  /// Gives a container another name.
  ///
  /// - Throws: `conflict` in Docker's words when the name is taken.
  func rename(_ entry: ContainerEntry, to name: String) throws(EngineError) {
    let holder = state.withLock { state -> ObjectID? in
      if let holder = state.byName[name] { return holder }
      let former = entry.update { current in
        defer { current.record.name = name }
        return current.record.name
      }
      if state.byName[former] == entry.id { state.byName[former] = nil }
      state.byName[name] = entry.id
      return nil
    }
    if let holder {
      throw EngineError(
        .conflict,
        "Error when allocating new name: Conflict. The container name \"/\(name)\" is already in use by container "
          + "\"\(holder)\". You have to remove (or rename) that container to be able to reuse that name.")
    }
  }

  func isFree(_ name: String) -> Bool { state.withLock { $0.byName[name] == nil } }

  func remove(_ id: ObjectID) {
    state.withLock { state in
      guard let entry = state.byID.removeValue(forKey: id) else { return }
      let name = entry.record.name
      if state.byName[name] == id { state.byName[name] = nil }
    }
  }

  subscript(id: ObjectID) -> ContainerEntry? { state.withLock { $0.byID[id] } }

  var all: [ContainerEntry] { state.withLock { Array($0.byID.values) } }

  /// Finds a container by its whole ID, its name (with or without a slash in front), or a unique prefix of its ID.
  ///
  /// - Throws: `notFound`, or `invalidArgument` for a prefix of several.
  func find(_ reference: String) throws(EngineError) -> ContainerEntry {
    let name = reference.hasPrefix("/") ? String(reference.dropFirst()) : reference
    guard !name.isEmpty else { throw EngineError(.invalidArgument, "the container's name or ID is empty") }
    let (found, isAmbiguous) = state.withLock { state -> (ContainerEntry?, Bool) in
      if let id = ObjectID(name), let entry = state.byID[id] { return (entry, false) }
      if let id = state.byName[name] { return (state.byID[id], false) }
      var found: ContainerEntry?
      for (id, entry) in state.byID where id.text.hasPrefix(name) {
        if found != nil { return (nil, true) }
        found = entry
      }
      return (found, false)
    }
    if let found { return found }
    if isAmbiguous { throw EngineError(.invalidArgument, "multiple IDs found with provided prefix: \(name)") }
    throw EngineError(.notFound, "No such container: \(reference)")
  }
}
