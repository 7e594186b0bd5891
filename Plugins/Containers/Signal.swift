import Contracts
import Kernel
import Synchronization

/// A value that comes once and is awaited by any number of tasks, each of which may be cancelled or give up after a time.
final class Signal<Value: Sendable>: Sendable {
  private struct State {
    var value: Value?
    var next: UInt64 = 0
    var waiting: [UInt64: CheckedContinuation<Value?, Never>] = [:]
    /// Waiters that gave up before they came to wait.
    var givenUp: Set<UInt64> = []
  }

  private let state = Mutex(State())

  /// - Returns: false when there was a value already; that one stays.
  @discardableResult
  func resolve(_ value: Value) -> Bool {
    let waiting = state.withLock { state -> [CheckedContinuation<Value?, Never>]? in
      guard state.value == nil else { return nil }
      state.value = value
      defer { state.waiting = [:] }
      return Array(state.waiting.values)
    }
    for continuation in waiting ?? [] { continuation.resume(returning: value) }
    return waiting != nil
  }

  var resolved: Value? { state.withLock { $0.value } }

  /// Waits for the value.
  ///
  /// - Parameter timeout: nil to wait for ever.
  /// - Returns: nil when the calling task was cancelled or the time is over.
  func wait(_ timeout: Duration? = nil, by timekeeper: Timekeeper? = nil) async -> Value? {
    let number = state.withLock { state -> UInt64 in
      state.next += 1
      return state.next
    }
    let ticket = timeout.flatMap { limit in timekeeper?.schedule(after: limit) { self.giveUp(number) } }
    defer {
      if let ticket { timekeeper?.cancel(ticket) }
      state.withLock { _ = $0.givenUp.remove(number) }
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let (value, resumes) = state.withLock { state -> (Value?, Bool) in
          if let value = state.value { return (value, true) }
          if state.givenUp.remove(number) != nil { return (nil, true) }
          state.waiting[number] = continuation
          return (nil, false)
        }
        if resumes { continuation.resume(returning: value) }
      }
    } onCancel: {
      giveUp(number)
    }
  }

  private func giveUp(_ number: UInt64) {
    let continuation = state.withLock { state -> CheckedContinuation<Value?, Never>? in
      if let continuation = state.waiting.removeValue(forKey: number) { return continuation }
      if state.value == nil { state.givenUp.insert(number) }
      return nil
    }
    continuation?.resume(returning: nil)
  }
}

/// Serialises what is done to one container: first come, first served; waiting can be cancelled.
///
/// Nobody waits for a container's end while holding it, because the handling of the end takes it too.
final class OperationLock: Sendable {
  private struct State {
    var isHeld = false
    var queue: [Signal<Bool>] = []
  }

  private let state = Mutex(State())

  /// - Throws: `cancelled` when the calling task is cancelled before its turn.
  func acquire() async throws(EngineError) {
    let turn = state.withLock { state -> Signal<Bool>? in
      if !state.isHeld {
        state.isHeld = true
        return nil
      }
      let turn = Signal<Bool>()
      state.queue.append(turn)
      return turn
    }
    guard let turn else { return }
    if await turn.wait() != nil { return }
    // Cancelled: leave the queue, or pass on the turn that came at the same moment.
    let hadTurn = state.withLock { state -> Bool in
      guard let index = state.queue.firstIndex(where: { $0 === turn }) else { return true }
      state.queue.remove(at: index)
      return false
    }
    if hadTurn { release() }
    throw EngineError(.cancelled, "the operation was cancelled while it waited for another one on the same container")
  }

  func release() {
    let next = state.withLock { state -> Signal<Bool>? in
      if state.queue.isEmpty {
        state.isHeld = false
        return nil
      }
      return state.queue.removeFirst()
    }
    next?.resolve(true)
  }

  /// How many wait for their turn.
  var waiting: Int { state.withLock { $0.queue.count } }

  func withLock<Value: Sendable>(
    _ body: () async throws(EngineError) -> Value
  ) async throws(EngineError) -> Value {
    try await acquire()
    defer { release() }
    return try await body()
  }
}

/// What a step gave or why it failed, for steps that run beside each other.
func attempt<Value: Sendable>(
  _ body: @Sendable () async throws(EngineError) -> Value
) async -> Result<Value, EngineError> {
  do throws(EngineError) {
    return .success(try await body())
  } catch {
    return .failure(error)
  }
}
