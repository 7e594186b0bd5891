import Contracts
import Glibc
import Kernel
import Synchronization

/// Ends an exchange that does not get on: fewer than so many bytes within so long. It is time that counts and not the
/// whole: a slow line may take its hours. While the reader of the bytes is slow, the server has nothing to answer for.
final class Watchdog: Sendable {
  enum Reason: Sendable {
    case stalled
    case readerGone
  }

  private struct State {
    var windowStart = ContinuousClock.now
    var bytes = 0
    var limit: Duration
    var minimum = 1
    var isPaused = false
    var isStopped = false
    var hasAnswer = false
    var reason: Reason?
    var ticket: Timekeeper.Ticket?
  }

  private let state: Mutex<State>
  private let timekeeper: Timekeeper
  private let tick: Duration
  /// The end of a pipe whose reader is watched, or -1.
  private let sink: Int32

  init(_ timekeeper: Timekeeper, limit: Duration, sink: Int32 = -1) {
    self.timekeeper = timekeeper
    self.sink = sink
    tick = min(.seconds(1), limit / 4)
    state = Mutex(State(limit: limit))
  }

  /// Why it bit, if it did.
  var reason: Reason? { state.withLock { $0.reason } }

  /// Whether the server has answered at all.
  var hasAnswer: Bool { state.withLock { $0.hasAnswer } }

  func answered() { state.withLock { $0.hasAnswer = true } }

  /// Bytes got on their way.
  func progress(_ count: Int) { state.withLock { $0.bytes += count } }

  /// Another phase begins: within `limit`, at least `minimum` bytes must come.
  func restart(limit: Duration, minimum: Int) {
    state.withLock { state in
      state.windowStart = .now
      state.bytes = 0
      (state.limit, state.minimum) = (limit, max(1, minimum))
    }
  }

  func pause() { state.withLock { $0.isPaused = true } }

  func resume() {
    state.withLock { state in
      state.isPaused = false
      state.windowStart = .now
      state.bytes = 0
    }
  }

  /// Runs `body` in a task that is cancelled when the exchange does not get on, or when the caller is cancelled.
  func guarding<Value: Sendable>(
    on executor: ElasticExecutor, at address: String,
    _ body: @escaping @Sendable () async throws(Fault) -> Value
  ) async throws(Fault) -> Value {
    let task = Task(executorPreference: executor) { () async -> Result<Value, Fault> in
      do throws(Fault) {
        return .success(try await body())
      } catch {
        return .failure(error)
      }
    }
    schedule { task.cancel() }
    let result = await withTaskCancellationHandler {
      await task.value
    } onCancel: {
      task.cancel()
    }
    let (reason, ticket) = state.withLock { state -> (Reason?, Timekeeper.Ticket?) in
      state.isStopped = true
      return (state.reason, state.ticket)
    }
    if let ticket { timekeeper.cancel(ticket) }
    switch result {
    case .success(let value): return value
    case .failure(let fault):
      if Task.isCancelled { throw .cancellation }
      switch reason {
      case .stalled:
        var stalled = Fault(
          .transient, .unavailable, "\(address) stopped sending: too little arrived for too long")
        stalled.madeProgress = fault.madeProgress
        throw stalled
      case .readerGone: throw Fault(.cancelled, .cancelled, "the reader of the blob went away")
      case nil: throw fault
      }
    }
  }

  private func schedule(_ bite: @escaping @Sendable () -> Void) {
    let ticket = timekeeper.schedule(after: tick) { self.look(bite) }
    state.withLock { $0.ticket = ticket }
  }

  /// On the timekeeper's thread.
  private func look(_ bite: @escaping @Sendable () -> Void) {
    let isReaderGone = sink >= 0 && Self.hasLostReader(sink)
    let (bites, goesOn) = state.withLock { state -> (Bool, Bool) in
      if state.isStopped { return (false, false) }
      if isReaderGone {
        state.reason = .readerGone
        return (true, false)
      }
      let now = ContinuousClock.now
      if state.isPaused {
        state.windowStart = now
        state.bytes = 0
        return (false, true)
      }
      guard now - state.windowStart >= state.limit else { return (false, true) }
      if state.bytes < state.minimum {
        state.reason = .stalled
        return (true, false)
      }
      state.windowStart = now
      state.bytes = 0
      return (false, true)
    }
    if bites { bite() } else if goesOn { schedule(bite) }
  }

  /// poll(2): POLLERR on a pipe's writing end means that nobody can read it.
  static func hasLostReader(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: 0, revents: 0)
    return poll(&entry, 1, 0) > 0 && entry.revents & Int16(POLLERR) != 0
  }
}
