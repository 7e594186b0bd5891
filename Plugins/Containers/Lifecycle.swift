import Contracts
import Kernel
import Logging
import Synchronization

/// The containers and what can be done to them. The operations are in Operations/.
final class Lifecycle: Sendable {
  let bus: Bus
  let log: Logger
  let name: String
  let table = ContainerTable()
  let history = StartHistory()
  /// Records that did not read at start-up, for `system check`.
  let unreadable = Mutex<[Storage.Unreadable]>([])
  /// Ends that were told before the containers were known again.
  let adopting = Mutex<[ObjectID: Signal<ExitStatus>]>([:])

  init(bus: Bus, log: Logger, name: String) {
    self.bus = bus
    self.log = log
    self.name = name
  }

  /// A call of the engine's own, for what nobody asked for and nobody may interrupt.
  var ownCall: Call { Call(bus: bus) }

  /// Runs an operation with a lease of its own, which the caller's lease gives back if the client goes away: an
  /// operation that fails leaves the caller's other acquisitions alone, and everything is undone when it returns.
  func leased<Value: Sendable>(
    _ what: String, _ call: Call, _ body: (Call) async throws(EngineError) -> Value
  ) async throws(EngineError) -> Value {
    let lease = Lease()
    await call.lease.hold(what) { await lease.abandon() }
    do throws(EngineError) {
      return try await body(call.leasing(to: lease))
    } catch {
      await lease.release()
      throw error
    }
  }

  /// Remembers how to undo a step. The undoing runs in a task of its own, so that the cancellation which may have
  /// caused it does not stop it.
  ///
  /// - Parameter entry: the new container that goes with the undoing; where that fails it stays, dead, so that what is
  ///   left has a name and can be removed. For one that was there before: nil, a failure is left to `system check`.
  func hold(
    _ what: String, of entry: ContainerEntry?, _ call: Call,
    _ undo: @escaping @Sendable (Call) async throws(EngineError) -> Void
  ) async {
    await call.lease.hold(what) { [self] in await self.undo(what, of: entry, undo) }
  }

  /// Undoes a step, as `hold` remembers it.
  func undo(
    _ what: String, of entry: ContainerEntry?, _ undo: @escaping @Sendable (Call) async throws(EngineError) -> Void
  ) async {
    let task = Task(executorPreference: bus.executor) { [self] in
      do throws(EngineError) {
        try await undo(ownCall)
      } catch {
        log.error("\(what) could not be undone: \(error)")
        guard let entry else { return }
        entry.update { state in
          state.isBeingRemoved = true
          state.isActive = false
          state.record.state.status = .dead
          state.record.state.error = "\(what) could not be undone: \(error)"
        }
        table.keep(entry)
      }
    }
    await task.value
  }

  func list(_ request: ContainerList) -> [ContainerRecord] {
    table.all.map(\.record)
      .filter { request.all || [.running, .paused, .restarting].contains($0.state.status) }
      .sorted { ($1.created, $1.id) < ($0.created, $0.id) }
  }

  func users(of resource: ContainerUsers.Resource) -> [ContainerUsers.User] {
    var users: [ContainerUsers.User] = []
    for entry in table.all {
      let state = entry.snapshot
      if state.isBeingRemoved { continue }
      let record = state.record
      let uses =
        switch resource {
        case .image(let id): record.imageID == id
        case .volume(let name):
          record.mountPoints.contains { $0.kind == .volume && $0.volume == name }
            || record.mounts.contains { $0.kind == .volume && $0.source == name }
        case .network(let id): record.endpoints.contains { $0.networkID == id }
        }
      if uses {
        users.append(
          ContainerUsers.User(
            id: record.id, containerName: record.name, isRunning: state.isActive || record.state.status.hasProcesses))
      }
    }
    return users.sorted { $0.id < $1.id }
  }

  /// The container if it runs.
  ///
  /// - Throws: `conflict` that says it is not running.
  func running(_ reference: String) throws(EngineError) -> ContainerEntry {
    let entry = try table.find(reference)
    guard entry.isRunning else { throw EngineError(.conflict, "container \(entry.id) is not running") }
    return entry
  }
}
