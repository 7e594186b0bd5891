import Glibc
import LinuxSystem
import Synchronization

/// Fires deadlines from a thread of its own, so that they fire also when every other thread is blocked.
public final class Timekeeper: Sendable {
  /// What `cancel` takes back.
  public struct Ticket: Sendable, Hashable {
    fileprivate let due: UInt64
    fileprivate let number: UInt64
  }

  private struct State {
    var pending: [Ticket: @Sendable () -> Void] = [:]
    /// A binary heap by due time; cancelled tickets stay until they come up.
    var heap: [Ticket] = []
    var nextNumber: UInt64 = 0
    var runs = false
  }

  private let state = Mutex(State())
  private let wake = ConditionVariable()

  public init() {}

  /// Nanoseconds of CLOCK_MONOTONIC.
  public static func clock() -> UInt64 { UInt64(MonotonicClock.now) }

  /// Calls `action` once after `delay`, on the timekeeper's thread: it must not block.
  public func schedule(after delay: Duration, _ action: @escaping @Sendable () -> Void) -> Ticket {
    let (seconds, attoseconds) = delay.components
    let nanoseconds = UInt64(max(0, seconds)) &* 1_000_000_000 &+ UInt64(max(0, attoseconds) / 1_000_000_000)
    let due = Self.clock() &+ nanoseconds
    let (ticket, isFirst, starts) = state.withLock { state -> (Ticket, Bool, Bool) in
      let ticket = Ticket(due: due, number: state.nextNumber)
      state.nextNumber += 1
      state.pending[ticket] = action
      state.heap.push(ticket)
      let starts = !state.runs
      state.runs = true
      return (ticket, state.heap.first == ticket, starts)
    }
    if starts {
      if !Thread.start({ self.run() }) { state.withLock { $0.runs = false } }
    } else if isFirst {
      wake.signal()
    }
    return ticket
  }

  /// - Returns: false when the action was called already, or is being called.
  @discardableResult
  public func cancel(_ ticket: Ticket) -> Bool {
    state.withLock { state in
      let found = state.pending.removeValue(forKey: ticket) != nil
      if state.heap.count > 64 && state.heap.count > state.pending.count * 2 {
        let pending = state.pending
        state.heap = state.heap.filter { pending[$0] != nil }.sorted(by: <)
      }
      return found
    }
  }

  /// Suspends the calling task; wakes early when it is cancelled.
  public func sleep(_ delay: Duration) async {
    let once = Once<Void>()
    let ticket = schedule(after: delay) { once.resolve(()) }
    await withTaskCancellationHandler {
      await once.value
    } onCancel: {
      if cancel(ticket) { once.resolve(()) }
    }
  }

  private func run() {
    while true {
      let sequence = wake.ticket()
      let now = Self.clock()
      let (action, due) = state.withLock { state -> ((@Sendable () -> Void)?, UInt64?) in
        while let first = state.heap.first {
          guard state.pending[first] != nil else {
            state.heap.pop()
            continue
          }
          guard first.due <= now else { return (nil, first.due) }
          state.heap.pop()
          return (state.pending.removeValue(forKey: first), nil)
        }
        return (nil, nil)
      }
      if let action {
        action()
      } else {
        let until = due ?? now + 3_600_000_000_000
        _ = wake.wait(
          after: sequence,
          until: timespec(tv_sec: Int(until / 1_000_000_000), tv_nsec: Int(until % 1_000_000_000)))
      }
    }
  }
}

extension Timekeeper.Ticket: Comparable {
  public static func < (left: Self, right: Self) -> Bool {
    left.due == right.due ? left.number < right.number : left.due < right.due
  }
}

extension [Timekeeper.Ticket] {
  fileprivate mutating func push(_ ticket: Timekeeper.Ticket) {
    append(ticket)
    var index = count - 1
    while index > 0, self[index] < self[(index - 1) / 2] {
      swapAt(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
  }

  fileprivate mutating func pop() {
    swapAt(0, count - 1)
    removeLast()
    var index = 0
    while true {
      var least = index
      for child in [2 * index + 1, 2 * index + 2] where child < count && self[child] < self[least] { least = child }
      if least == index { return }
      swapAt(index, least)
      index = least
    }
  }
}

/// A value that is given once and awaited by any number of tasks; whoever gives it second is told so.
public final class Once<Value: Sendable>: Sendable {
  private enum State {
    case waiting([CheckedContinuation<Value, Never>])
    case resolved(Value)
  }

  private let state = Mutex(State.waiting([]))

  public init() {}

  /// - Returns: false when there was a value already; that one stays.
  @discardableResult
  public func resolve(_ value: Value) -> Bool {
    let waiting = state.withLock { state -> [CheckedContinuation<Value, Never>]? in
      guard case .waiting(let continuations) = state else { return nil }
      state = .resolved(value)
      return continuations
    }
    for continuation in waiting ?? [] { continuation.resume(returning: value) }
    return waiting != nil
  }

  public var resolved: Value? {
    state.withLock { state in
      guard case .resolved(let value) = state else { return nil }
      return value
    }
  }

  /// Waits for the value; not interrupted by cancellation.
  public var value: Value {
    get async {
      await withCheckedContinuation { continuation in
        let value = state.withLock { state -> Value? in
          switch state {
          case .resolved(let value):
            return value
          case .waiting(let continuations):
            state = .waiting(continuations + [continuation])
            return nil
          }
        }
        if let value { continuation.resume(returning: value) }
      }
    }
  }
}
