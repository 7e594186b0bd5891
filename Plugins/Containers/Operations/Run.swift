import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  /// Creates and starts in one go: everything or nothing.
  func run(
    _ request: ContainerRun, _ call: Call, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    let steps = StartSteps()
    let (entry, session, warnings) = try await leased("run", call) {
      (call) async throws(EngineError) -> (ContainerEntry, Session, [String]) in
      let (entry, warnings) = try await make(
        request.containerName, request.configuration, isRun: true, steps, call)
      let streams = streams(request.streams, request.configuration)
      let launched = try await launch(entry, streams, isRun: true, steps, call)
      entry.lock.release()
      return (entry, launched.session, warnings + launched.warnings)
    }
    try await sink.yield(.created(entry.id, warnings: warnings))
    try await sink.yield(.started)
    return request.isDetached ? nil : try await watch(session, sink)
  }

  func start(
    _ request: ContainerStart, _ call: Call, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    let entry = try table.find(request.container)
    let (session, warnings) = try await leased("start", call) {
      (call) async throws(EngineError) -> (Session?, [String]) in
      try await entry.lock.withLock { () async throws(EngineError) -> (Session?, [String]) in
        do throws(EngineError) {
          return try await startLocked(entry, request, call)
        } catch {
          await call.lease.release()
          throw error
        }
      }
    }
    // An attached client learns the ID, under which it passes signals on.
    if request.isAttached || !warnings.isEmpty { try await sink.yield(.created(entry.id, warnings: warnings)) }
    try await sink.yield(.started)
    return request.isAttached ? try await watch(session, sink) : nil
  }

  private func startLocked(
    _ entry: ContainerEntry, _ request: ContainerStart, _ call: Call
  ) async throws(EngineError) -> (session: Session?, warnings: [String]) {
    let state = entry.snapshot
    switch state.record.state.status {
    case .running, .paused, .restarting:
      if request.isAttached {
        let streams = streams(request.streams, state.record.configuration)
        _ = try await call.request(RuntimeAttach(container: entry.id, streams: streams))
      }
      return (state.session, [])
    case .removing, .dead:
      throw EngineError(.conflict, "container \(entry.id) is marked for removal and cannot be started")
    case .created, .exited: break
    }
    guard table[entry.id] != nil else { throw EngineError(.notFound, "No such container: \(request.container)") }
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
      return try await launch(entry, streams, isRun: false, steps, call)
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

  /// Waits with an attached client until the container is cleaned up or the client lets go.
  private func watch(
    _ session: Session?, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    guard let session else { return nil }
    switch await session.attachment.wait() {
    case .ended(let status): return status
    case .detached:
      try await sink.yield(.detached)
      return nil
    case nil: throw EngineError(.cancelled, "the client went away; the container runs on")
    }
  }

  func detached(_ event: RuntimeDetached) {
    guard event.exec == nil, let entry = table[event.container] else { return }
    let session = entry.update { state -> Session? in
      // Whoever attaches next waits anew.
      guard let session = state.session else { return nil }
      state.session = Session(continuing: session)
      return session
    }
    session?.attachment.resolve(.detached)
  }
}
