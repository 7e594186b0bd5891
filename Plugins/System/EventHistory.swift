import Contracts
import Synchronization

/// The last events, for those who ask later, and the clients that hear each as it comes.
final class EventHistory: Sendable {
  /// So many are remembered (Docker: 256).
  private static let limit = 256
  /// A client that does not take so many loses the oldest, so that it holds up nobody.
  private static let backlog = 4096

  private struct State {
    var events: [EngineEvent] = []
    var next: UInt64 = 0
    var listeners: [UInt64: AsyncStream<EngineEvent>.Continuation] = [:]
  }

  private let state = Mutex(State())

  func append(_ event: EngineEvent) {
    let listeners = state.withLock { state in
      if state.events.count >= Self.limit { state.events.removeFirst() }
      state.events.append(event)
      return Array(state.listeners.values)
    }
    for listener in listeners { listener.yield(event) }
  }

  /// What is remembered from `since` on, and everything from now on; nothing is lost or told twice in between.
  func listen(since: Timestamp?) -> (number: UInt64, past: [EngineEvent], stream: AsyncStream<EngineEvent>) {
    let (stream, continuation) = AsyncStream.makeStream(
      of: EngineEvent.self, bufferingPolicy: .bufferingNewest(Self.backlog))
    return state.withLock { state in
      state.next += 1
      state.listeners[state.next] = continuation
      let past = since.map { since in state.events.filter { $0.time >= since } } ?? []
      return (state.next, past, stream)
    }
  }

  /// Ends a client's stream.
  func end(_ number: UInt64) { state.withLock { $0.listeners.removeValue(forKey: number) }?.finish() }
}
