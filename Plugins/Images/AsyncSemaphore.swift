import Contracts
import Synchronization

/// A number of places, given out in the order in which they are asked for; waiting ends with the task's cancellation.
final class AsyncSemaphore: Sendable {
  private struct State {
    var free: Int
    var next: UInt64 = 0
    var waiting: [(number: UInt64, continuation: CheckedContinuation<Bool, Never>)] = []
    /// Cancelled before they waited.
    var cancelled: Set<UInt64> = []
  }
  private let state: Mutex<State>

  init(_ count: Int) { state = Mutex(State(free: count)) }

  /// - Throws: `cancelled`; nothing is held then.
  func acquire() async throws(EngineError) {
    let number = state.withLock { state in
      state.next += 1
      return state.next
    }
    let isHeld = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let answer = state.withLock { state -> Bool? in
          if state.cancelled.remove(number) != nil { return false }
          if state.free > 0 {
            state.free -= 1
            return true
          }
          state.waiting.append((number, continuation))
          return nil
        }
        if let answer { continuation.resume(returning: answer) }
      }
    } onCancel: {
      let waiting = state.withLock { state -> CheckedContinuation<Bool, Never>? in
        guard let index = state.waiting.firstIndex(where: { $0.number == number }) else {
          state.cancelled.insert(number)
          return nil
        }
        return state.waiting.remove(at: index).continuation
      }
      waiting?.resume(returning: false)
    }
    state.withLock { _ = $0.cancelled.remove(number) }
    if !isHeld { throw EngineError(.cancelled, "interrupted") }
  }

  func release() {
    let next = state.withLock { state -> CheckedContinuation<Bool, Never>? in
      if state.waiting.isEmpty {
        state.free += 1
        return nil
      }
      return state.waiting.removeFirst().continuation
    }
    next?.resume(returning: true)
  }
}

/// One place for each blob, so that two who want the same one do not both fetch it.
final class BlobLocks: Sendable {
  private let table = Mutex<[Digest: (lock: AsyncSemaphore, users: Int)]>([:])

  /// - Returns: what gives the blob back, to be called once.
  /// - Throws: `cancelled`; nothing is held then.
  func acquire(_ digest: Digest) async throws(EngineError) -> @Sendable () -> Void {
    let lock = table.withLock { table in
      let entry = table[digest] ?? (AsyncSemaphore(1), 0)
      table[digest] = (entry.lock, entry.users + 1)
      return entry.lock
    }
    do throws(EngineError) {
      try await lock.acquire()
    } catch {
      forget(digest)
      throw error
    }
    return {
      lock.release()
      self.forget(digest)
    }
  }

  private func forget(_ digest: Digest) {
    table.withLock { table in
      guard let entry = table[digest] else { return }
      table[digest] = entry.users == 1 ? nil : (entry.lock, entry.users - 1)
    }
  }

  /// Blobs that somebody works on.
  var held: Set<Digest> { table.withLock { Set($0.keys) } }
}
