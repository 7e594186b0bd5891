import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  func pause(_ request: ContainerPause, _ call: Call) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    return try await entry.lock.withLock { () async throws(EngineError) -> Done in
      switch entry.record.state.status {
      case .running: break
      case .paused: throw EngineError(.conflict, "Container \(entry.id) is already paused")
      case .restarting:
        throw EngineError(.conflict, "Container \(entry.id) is restarting, wait until the container is running")
      default: throw EngineError(.conflict, "container \(entry.id) is not running")
      }
      return try await freeze(entry, true, call)
    }
  }

  func unpause(_ request: ContainerUnpause, _ call: Call) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    return try await entry.lock.withLock { () async throws(EngineError) -> Done in
      guard entry.record.state.status == .paused else {
        throw EngineError(.conflict, "Container \(entry.id) is not paused")
      }
      return try await freeze(entry, false, call)
    }
  }

  /// Freezes or thaws under the container's lock, and notes it where a later engine finds it.
  private func freeze(_ entry: ContainerEntry, _ isFrozen: Bool, _ call: Call) async throws(EngineError) -> Done {
    _ = try await call.request(ResourceFreeze(container: entry.id, isFrozen: isFrozen))
    let record = entry.update { state -> ContainerRecord in
      state.record.state.status = isFrozen ? .paused : .running
      return state.record
    }
    try await Storage.write(StoredState(.running, record), entry.id, call)
    FaultPoint.reach("containers.pause.stored")
    await tell(isFrozen ? "pause" : "unpause", record)
    return Done()
  }
}
