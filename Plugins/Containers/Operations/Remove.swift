import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  func remove(_ request: ContainerRemove, _ call: Call) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    // Somebody may start it again between its end and our turn.
    for _ in 0..<8 {
      if request.force { try await endNow(entry, call) }
      let isDone = try await entry.lock.withLock { () async throws(EngineError) -> Bool in
        guard table[entry.id] != nil else { return true }
        let record = entry.record
        if record.state.status == .restarting, !request.force {
          throw EngineError(
            .conflict,
            "cannot remove container \"/\(record.name)\": container is restarting: stop the container before removing "
              + "or force remove")
        }
        if record.state.status.hasProcesses {
          if request.force { return false }
          if record.state.status == .paused {
            throw EngineError(
              .conflict,
              "cannot remove container \"/\(record.name)\": container is paused and must be unpaused first")
          }
          throw EngineError(
            .conflict,
            "cannot remove container \"/\(record.name)\": container is running: stop the container before removing "
              + "or force remove")
        }
        // From here on a client that goes away changes nothing.
        let task = Task(executorPreference: bus.executor) { () -> Result<Void, EngineError> in
          await attempt { () async throws(EngineError) in
            try await self.destroy(
              entry, removesVolumes: request.removesVolumes || record.configuration.removesItself,
              self.ownCall.traced(at: call.tracePoint))
          }
        }
        try await task.value.get()
        return true
      }
      if isDone { return Done() }
    }
    throw EngineError(.conflict, "cannot remove container \"/\(entry.record.name)\": it is started again and again")
  }

  /// Kills a container that runs and waits until it is cleaned up.
  private func endNow(_ entry: ContainerEntry, _ call: Call) async throws(EngineError) {
    let state = entry.snapshot
    guard state.record.state.status.hasProcesses, let session = state.session else { return }
    try await signal(entry, 9, call)
    FaultPoint.reach("containers.remove.killed")
    try await settled(session)
  }

  /// Removes everything of a container that does not run. The entry's lock is held. What fails does not keep the rest
  /// from being tried; the record goes last, so that whatever is left can be attributed, and stays when something is.
  func destroy(_ entry: ContainerEntry, removesVolumes: Bool, _ call: Call) async throws(EngineError) {
    let id = entry.id
    let removesItself = entry.record.configuration.removesItself
    let record = entry.update { state -> ContainerRecord in
      state.isBeingRemoved = true
      state.record.state.status = .removing
      return state.record
    }
    if !removesItself {
      var stored = StoredState(.removing, record)
      stored.removesVolumes = removesVolumes
      do throws(EngineError) {
        try await Storage.write(stored, id, durability: .power, call)
      } catch {
        return try fail(entry, error)
      }
      FaultPoint.reach("containers.remove.marked")
    }
    var errors = await giveBack(record, call) {
      let snapshot = await attempt { () async throws(EngineError) -> Done in
        let done = try await call.request(SnapshotRemove(container: id))
        FaultPoint.reach("containers.remove.snapshot")
        return done
      }
      let log = await attempt { () async throws(EngineError) -> Done in
        try await removeLog(record, call)
        FaultPoint.reach("containers.remove.log")
        return Done()
      }
      return [snapshot, log]
    }
    FaultPoint.reach("containers.remove.cleaned")
    // Those that outlive the container.
    var keepsVolumes = !removesVolumes && !record.anonymousVolumes.isEmpty
    if removesVolumes {
      for volume in record.anonymousVolumes {
        do throws(EngineError) {
          _ = try await call.request(VolumeRemove(volume: volume, force: true))
        } catch  where error.code == .inUse || error.code == .notFound {
          // Another container took it over with --volumes-from.
          keepsVolumes = true
        } catch {
          errors.append(error)
        }
      }
      FaultPoint.reach("containers.remove.volumes")
    }
    if keepsVolumes {
      let result = await attempt { () async throws(EngineError) -> Done in
        try await call.request(VolumeKeep(container: id))
      }
      if case .failure(let error) = result { errors.append(error) }
    }
    if let error = errors.first { return try fail(entry, error) }
    do throws(EngineError) {
      try await Storage.delete(id, call)
    } catch {
      return try fail(entry, error)
    }
    FaultPoint.reach("containers.remove.forgotten")
    table.remove(id)
    await tell("destroy", record)
  }

  private func fail(_ entry: ContainerEntry, _ error: EngineError) throws(EngineError) {
    let name = entry.update { state -> String in
      state.record.state.status = .dead
      state.record.state.error = error.description
      return state.record.name
    }
    throw EngineError(error.code, "cannot remove container \"/\(name)\"", because: error)
  }
}
