import Contracts
import Kernel
import Synchronization

/// So many at once; the others wait in the order they came.
final class Slots: Sendable {
  private struct State {
    var free: Int
    var waiting: [Once<Bool>] = []
  }

  private let state: Mutex<State>

  init(_ count: Int) { state = Mutex(State(free: count)) }

  /// How many wait, those that were cancelled meanwhile included.
  var waiting: Int { state.withLock { $0.waiting.count } }

  /// - Throws: `cancelled` when the caller is before it is its turn.
  func take() async throws(EngineError) {
    let turn = Once<Bool>()
    state.withLock { state in
      if state.free > 0 {
        state.free -= 1
        turn.resolve(true)
      } else {
        state.waiting.append(turn)
      }
    }
    let isTaken = await withTaskCancellationHandler {
      await turn.value
    } onCancel: {
      turn.resolve(false)
    }
    if !isTaken { throw EngineError(.cancelled, "the request to the registry was cancelled") }
  }

  func giveBack() {
    while true {
      let next = state.withLock { state -> Once<Bool>? in
        if state.waiting.isEmpty {
          state.free += 1
          return nil
        }
        return state.waiting.removeFirst()
      }
      // One that was cancelled meanwhile passes its turn on.
      if next?.resolve(true) ?? true { return }
    }
  }
}
