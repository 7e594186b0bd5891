import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  /// The runtime told that a container ended. What follows takes the container's lock, so it runs in a task of its
  /// own: the runtime must not wait for it, because it is asked to remove the container in the course of it.
  func exited(_ event: RuntimeExited) {
    // Under the lock, so that whoever takes the signal out of the table afterwards sees what it was told.
    let isAwaited = adopting.withLock { $0[event.container]?.resolve(event.status) != nil }
    if isAwaited { return }
    guard let entry = table[event.container] else { return }
    Task(executorPreference: bus.executor) { await self.settle(entry, event.status) }
  }

  /// Puts the time in which the command ran into the trace of who started it, if there is one.
  private static func trace(_ record: ContainerRecord, _ began: Int64, _ status: ExitStatus, _ call: Call) {
    guard let point = call.tracePoint else { return }
    var end = MonotonicClock.now
    // The shim tells when that was by the other clock; no trace is so long that the two part.
    if status.finished != .never { end -= max(0, Timestamp.now.nanoseconds - status.finished.nanoseconds) }
    point.append(
      [TimedStep("the command", .process, begin: began, end: max(began, end))], process: record.state.pid,
      program: "container")
  }

  /// Gives back what a container held while it ran; with `--rm` removes it. Does nothing for one that does not run.
  func settle(_ entry: ContainerEntry, _ status: ExitStatus) async {
    do throws(EngineError) {
      try await entry.lock.acquire()
    } catch {
      log.error("the end of container \(entry.id) was not handled: \(error)")
      return
    }
    defer { entry.lock.release() }
    let state = entry.snapshot
    guard state.record.state.status.hasProcesses else { return }
    let call = ownCall.traced(at: state.session?.trace)
    let record = state.record
    if let began = state.session?.began { Self.trace(record, began, status, call) }
    var ended = record
    ended.state.wasKilledForMemory = await wasKilledForMemory(record, status, call)
    ended.state.status = .exited
    ended.state.pid = 0
    ended.state.shimPID = 0
    ended.state.exitCode = status.code
    ended.state.error = status.reason
    ended.state.finished = status.finished
    ended.endpoints = []
    ended.publishedPorts = []
    ended.cgroupPaths = [:]
    ended.generatedPaths = nil
    let isBroughtBack = entry.update { [ended] state -> Bool in
      // Which signal it was told and by whom may have changed in between.
      let wasStoppedByUser = state.record.state.wasStoppedByUser
      state.record = ended
      state.record.state.wasStoppedByUser = wasStoppedByUser
      state.execs = [:]
      guard Self.isBroughtBack(state, status) else { return false }
      state.record.state.status = .restarting
      state.record.state.restartCount += 1
      return true
    }
    if ended.state.wasKilledForMemory { await tell("oom", record) }
    await tell("disconnect", record.endpoints, of: record)
    let seconds = Self.upTime(from: record.state.started, to: status.finished) / 1_000_000_000
    await tell("die", record, ["exitCode": "\(status.code)", "execDuration": "\(seconds)"])
    if record.configuration.removesItself && !state.isRestarting {
      do throws(EngineError) {
        try await destroy(entry, removesVolumes: true, call)
      } catch {
        log.error("container \(entry.id) could not be removed after its end: \(error)")
      }
    } else {
      // First, because the runtime forgets how it ended; what a crash leaves after this is removed at the next start.
      do throws(EngineError) {
        try await Storage.write(StoredState(.stopped, entry.record), entry.id, call)
      } catch {
        log.error("the end of container \(entry.id) could not be stored: \(error)")
      }
      FaultPoint.reach("containers.exit.stored")
      for error in await giveBack(record, call) {
        log.error("container \(entry.id) left something behind: \(error)")
      }
      FaultPoint.reach("containers.exit.cleaned")
    }
    let session = entry.update { state -> Session? in
      state.isActive = false
      defer { state.session = nil }
      return state.session
    }
    session?.end(status)
    if isBroughtBack { bringBack(entry) }
  }

  /// Asked before the cgroup goes. Only a limit, or a death by KILL, can have been a lack of memory.
  private func wasKilledForMemory(_ record: ContainerRecord, _ status: ExitStatus, _ call: Call) async -> Bool {
    guard status.code == 137 || record.configuration.limits.memory > 0 else { return false }
    do throws(EngineError) {
      return try await call.request(ResourceRead(container: record.id)).oomKills > 0
    } catch {
      return false
    }
  }

  /// Network, cgroup, process and mounts: what a container has only while it runs. Every step is tried.
  ///
  /// - Parameter files: what comes after all but the network, which the kernel takes long for.
  func giveBack(
    _ record: ContainerRecord, _ call: Call, files: () async -> [Result<Done, EngineError>] = { [] }
  ) async -> [EngineError] {
    let id = record.id
    async let network = attempt { () async throws(EngineError) -> Done in
      let done = try await call.request(NetworkDetach(container: id))
      FaultPoint.reach("containers.exit.detached")
      return done
    }
    var results = [
      await attempt { () async throws(EngineError) -> Done in
        let done = try await call.request(ResourceRemove(container: id))
        FaultPoint.reach("containers.exit.cgroup")
        return done
      },
      await attempt { () async throws(EngineError) -> Done in
        let done = try await call.request(RuntimeRemove(container: id))
        FaultPoint.reach("containers.exit.runtime")
        return done
      },
    ]
    if !record.mounts.isEmpty {
      results.append(
        await attempt { () async throws(EngineError) -> Done in
          try await call.request(VolumeUnmount(container: id))
        })
    }
    results += await files()
    results.append(await network)
    return results.compactMap { result in
      if case .failure(let error) = result { error } else { nil }
    }
  }
}
