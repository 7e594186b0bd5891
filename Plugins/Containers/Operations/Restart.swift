import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  /// Stops and starts. The client's death in between leaves the container stopped, as a failing start does.
  func restart(_ request: ContainerRestart, _ call: Call) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    entry.update { $0.isRestarting = true }
    do throws(EngineError) {
      _ = try await stop(
        ContainerStop(container: entry.id.text, timeout: request.timeout, signal: request.signal), call)
      let start = ContainerStart(container: entry.id.text, isAttached: false, streams: StandardStreams())
      _ = try await launchAgain(entry, start, call)
      entry.update { $0.isRestarting = false }
      await tell("restart", entry.record)
    } catch {
      let isLeft = entry.update { state -> Bool in
        state.isRestarting = false
        return state.record.configuration.removesItself && !state.record.state.status.hasProcesses
      }
      // It ended and was to go with its end.
      if isLeft { await complete(removalOf: entry, removesVolumes: true) }
      throw error
    }
    return Done()
  }

  func rename(_ request: ContainerRename, _ call: Call) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    guard !request.newName.isEmpty else {
      throw EngineError(.invalidArgument, "Neither old nor new names may be empty")
    }
    let name = try Names.validate(request.newName)
    return try await entry.lock.withLock { () async throws(EngineError) -> Done in
      guard table[entry.id] != nil else { throw EngineError(.notFound, "No such container: \(request.container)") }
      let former = entry.record.name
      if former == name {
        throw EngineError(.invalidArgument, "Renaming a container with the same name as its current name")
      }
      try table.rename(entry, to: name)
      do throws(EngineError) {
        try await Storage.create(entry.record, isRun: false, call)
      } catch {
        try? table.rename(entry, to: former)
        throw error
      }
      FaultPoint.reach("containers.rename.stored")
      await tell("rename", entry.record, ["oldName": "/\(former)"])
      return Done()
    }
  }
}
