import Contracts
import Glibc
import Kernel
import LinuxSystem

extension Lifecycle {
  func stop(_ request: ContainerStop, _ call: Call) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    let wanted = try request.signal.map { (text) throws(EngineError) in try Signals.parse(text) }
    // Waits for a start that is under way; the lock is not held while waiting for the end, which takes it.
    let session = try await entry.lock.withLock { () async throws(EngineError) -> Session? in
      if await giveUp(entry, byUser: true) { return nil }
      let state = entry.snapshot
      guard state.record.state.status.hasProcesses else { return nil }
      let own = state.record.stopSignal
      let number: Int32 = if let wanted { wanted } else { own.isEmpty ? SIGTERM : try Signals.parse(own) }
      entry.update { $0.record.state.wasStoppedByUser = true }
      try await signal(entry, number, call)
      FaultPoint.reach("containers.stop.signalled")
      return state.session
    }
    guard let session else { return Done() }
    let record = entry.record
    let seconds = request.timeout ?? entry.record.configuration.stopTimeout ?? 10
    if seconds < 0 {
      try await settled(session)
    } else if await session.settled.wait(.seconds(seconds), by: bus.timekeeper) == nil {
      guard !Task.isCancelled else { throw cancelled }
      try await signal(entry, SIGKILL, of: session, call)
      FaultPoint.reach("containers.stop.killed")
      try await settled(session)
    }
    await tell("stop", record)
    return Done()
  }

  func kill(_ request: ContainerKill, _ call: Call) async throws(EngineError) -> Done {
    let number = try Signals.parse(request.signal.isEmpty ? "KILL" : request.signal)
    let entry = try table.find(request.container)
    guard entry.isRunning else {
      throw EngineError(
        .conflict, "cannot kill container: \(request.container): container \(entry.id) is not running")
    }
    let own = entry.record.stopSignal
    let stop = own.isEmpty ? SIGTERM : try Signals.parse(own)
    if number == SIGKILL || number == stop { entry.update { $0.record.state.wasStoppedByUser = true } }
    try await signal(entry, number, call)
    FaultPoint.reach("containers.kill.signalled")
    return Done()
  }

  /// How it ended, or ended the last time when it does not run now.
  func wait(_ request: ContainerWait) async throws(EngineError) -> ExitStatus {
    let state = try table.find(request.container).snapshot
    if let session = state.session { return try await settled(session) }
    return ExitStatus(
      code: state.record.state.exitCode, finished: state.record.state.finished, reason: state.record.state.error)
  }

  /// Sends a signal; a process that is gone already is no error.
  func signal(
    _ entry: ContainerEntry, _ number: Int32, of session: Session? = nil, _ call: Call
  ) async throws(EngineError) {
    if session?.settled.resolved != nil { return }
    do throws(EngineError) {
      _ = try await call.request(RuntimeSignal(container: entry.id, signal: number))
    } catch  where error.code == .notFound || error.code == .conflict { return }
    await tell("kill", entry.record, ["signal": "\(number)"])
    // What is to end has to move for it.
    let record = entry.record
    guard record.state.status == .paused else { return }
    let stop = record.stopSignal.isEmpty ? SIGTERM : try Signals.parse(record.stopSignal)
    guard number == SIGKILL || number == stop else { return }
    _ = try await call.request(ResourceFreeze(container: entry.id, isFrozen: false))
    entry.update { if $0.record.state.status == .paused { $0.record.state.status = .running } }
  }

  /// Waits until a container that ends is cleaned up.
  @discardableResult
  func settled(_ session: Session) async throws(EngineError) -> ExitStatus {
    guard let status = await session.settled.wait() else { throw cancelled }
    return status
  }

  private var cancelled: EngineError {
    EngineError(.cancelled, "the client went away before the container had ended")
  }
}
