import Contracts
import Kernel

extension Lifecycle {
  func attach(
    _ request: ContainerAttach, _ call: Call, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    let entry = try table.find(request.container)
    switch entry.record.state.status {
    case .running: break
    case .paused:
      throw EngineError(.conflict, "container \(request.container) is paused, unpause the container before attach")
    case .restarting:
      throw EngineError(.conflict, "container \(request.container) is restarting, wait until it is running")
    case .created, .exited, .removing, .dead:
      throw EngineError(.conflict, "You cannot attach to a stopped container, start it first")
    }
    guard let joined = try await join(entry, request.streams, call) else {
      throw EngineError(.conflict, "You cannot attach to a stopped container, start it first")
    }
    try await sink.yield(.created(entry.id, warnings: []))
    try await sink.yield(.started)
    return try await watch(joined.session, joined.client, sink)
  }

  /// Connects one more client to a container that runs; nil when it has just ended.
  func join(
    _ entry: ContainerEntry, _ streams: StandardStreams, _ call: Call
  ) async throws(EngineError) -> Launched? {
    let state = entry.snapshot
    guard let session = state.session else { return nil }
    let configuration = state.record.configuration
    let client = session.attach()
    var streams = streams
    // The end of a client's input is the end of the command's where the container was made for one client (Docker's
    // StdinOnce).
    streams.keepsInputOpen = configuration.keepsInputOpen && !configuration.attachesInput
    streams.client = client.number
    do throws(EngineError) {
      _ = try await call.request(RuntimeAttach(container: entry.id, streams: streams))
    } catch {
      session.forget(client)
      throw error
    }
    await tell("attach", state.record)
    return Launched(session: session, client: client, warnings: [])
  }

  /// Waits with an attached client until the container is cleaned up or the client lets go.
  func watch(
    _ session: Session, _ client: Session.Client, _ sink: Sink<ContainerRunElement>
  ) async throws(EngineError) -> ExitStatus? {
    defer { session.forget(client) }
    switch await client.outcome.wait() {
    case .ended(let status): return status
    case .detached:
      try await sink.yield(.detached)
      return nil
    case nil: throw EngineError(.cancelled, "the client went away; the container runs on")
    }
  }

  func detached(_ event: RuntimeDetached) {
    guard event.exec == nil, let state = table[event.container]?.snapshot else { return }
    state.session?.detached(event.client)
    state.startingSession?.detached(event.client)
  }
}
