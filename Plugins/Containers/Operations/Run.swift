import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  /// Creates and starts in one go: everything or nothing.
  func run(
    _ request: ContainerRun, _ call: Call, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    let steps = StartSteps()
    let (entry, launched, warnings) = try await leased("run", call) {
      (call) async throws(EngineError) -> (ContainerEntry, Launched, [String]) in
      let made = try await make(request.containerName, request.configuration, isRun: true, steps, call)
      let streams = streams(request.streams, request.configuration)
      let launched = try await launch(made.entry, streams, new: made, steps, call) { () async throws(EngineError) in
        try await sink.yield(.created(made.entry.id, warnings: made.warnings))
      }
      made.entry.lock.release()
      return (made.entry, launched, launched.warnings)
    }
    if !warnings.isEmpty { try await sink.yield(.created(entry.id, warnings: warnings)) }
    try await sink.yield(.started)
    return request.isDetached ? nil : try await watch(launched.session, launched.client, sink)
  }

  func start(
    _ request: ContainerStart, _ call: Call, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    let entry = try table.find(request.container)
    let launched = try await launchAgain(entry, request, call) { () async throws(EngineError) in
      if request.isAttached { try await sink.yield(.created(entry.id, warnings: [])) }
    }
    let warnings = launched?.warnings ?? []
    if !warnings.isEmpty { try await sink.yield(.created(entry.id, warnings: warnings)) }
    try await sink.yield(.started)
    guard request.isAttached, let launched else { return nil }
    return try await watch(launched.session, launched.client, sink)
  }

  /// Starts a container that was made before; nil when it runs already.
  func launchAgain(
    _ entry: ContainerEntry, _ request: ContainerStart, _ call: Call, isPolicy: Bool = false,
    announce: @escaping @Sendable () async throws(EngineError) -> Void = {}
  ) async throws(EngineError) -> Launched? {
    try await leased("start", call) { (call) async throws(EngineError) -> Launched? in
      try await entry.lock.withLock { () async throws(EngineError) -> Launched? in
        do throws(EngineError) {
          return try await startLocked(entry, request, call, isPolicy: isPolicy, announce)
        } catch {
          await call.lease.release()
          throw error
        }
      }
    }
  }

  /// - Parameter isPolicy: it is the restart policy that asks, and only as long as the container waits for it.
  private func startLocked(
    _ entry: ContainerEntry, _ request: ContainerStart, _ call: Call, isPolicy: Bool,
    _ announce: () async throws(EngineError) -> Void
  ) async throws(EngineError) -> Launched? {
    let state = entry.snapshot
    switch state.record.state.status {
    case .paused where !request.isAttached:
      throw EngineError(.conflict, "cannot start a paused container, try unpause instead")
    case .restarting where isPolicy: break
    case _ where isPolicy: return nil
    case .running, .paused, .restarting: return request.isAttached ? try await join(entry, request.streams, call) : nil
    case .removing, .dead:
      throw EngineError(.conflict, "container \(entry.id) is marked for removal and cannot be started")
    case .created, .exited: break
    }
    guard table[entry.id] != nil else { throw EngineError(.notFound, "No such container: \(request.container)") }
    if !isPolicy {
      entry.update { state in
        state.record.state.restartCount = 0
        state.restartDelay = 0
      }
    }
    let steps = StartSteps()
    var mark = steps.begin
    try await Storage.write(StoredState(.starting, state.record), entry.id, call)
    await hold("state of container \(state.record.name)", of: nil, call) { (call) async throws(EngineError) in
      try await Storage.write(StoredState(.stopped, entry.record), entry.id, call)
    }
    steps.finish("store state", &mark)
    FaultPoint.reach("containers.start.recorded")
    do throws(EngineError) {
      _ = try await call.request(RuntimePrepare(container: entry.id))
      steps.finish("spawn shim", &mark)
      let streams = streams(request.streams, state.record.configuration)
      return try await launch(entry, streams, new: nil, steps, call, announce: announce)
    } catch {
      entry.update { state in
        state.record.state.error = error.description
        state.record.state.exitCode = Self.exitCode(of: error)
      }
      throw error
    }
  }

  /// The exit code that Docker gives a container whose start failed.
  static func exitCode(of error: EngineError) -> Int32 {
    switch error.code {
    case .commandNotFound: 127
    case .notExecutable: 126
    default: 128
    }
  }

  private func streams(_ streams: StandardStreams, _ configuration: ContainerConfiguration) -> StandardStreams {
    var streams = streams
    streams.keepsInputOpen = configuration.keepsInputOpen
    return streams
  }
}
