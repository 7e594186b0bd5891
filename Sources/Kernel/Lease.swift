import Contracts
import Synchronization

/// What an unfinished operation has acquired. A lease belongs to the connection (or the root request) that asked; when
/// that dies or fails before the operation commits, everything is given back, last acquired first.
public final class Lease: Sendable {
  private struct Held {
    let what: String
    let giveBack: @Sendable () async -> Void
  }

  private enum State {
    case open([Held], isKept: Bool)
    case committed
    case released
  }

  private let state = Mutex(State.open([], isKept: false))

  public init() {}

  /// Remembers how to give `what` back. On a lease that was released already it is given back at once.
  public func hold(_ what: String, _ giveBack: @escaping @Sendable () async -> Void) async {
    let isReleased = state.withLock { state -> Bool in
      switch state {
      case .open(let held, let isKept):
        state = .open(held + [Held(what: what, giveBack: giveBack)], isKept: isKept)
        return false
      case .committed:
        return false
      case .released:
        return true
      }
    }
    if isReleased { await giveBack() }
  }

  /// From here on the end of whoever asked gives nothing back; the operation's own failure still does.
  ///
  /// - Throws: `cancelled` when everything was given back before.
  public func keep() throws(EngineError) {
    let isReleased = state.withLock { state -> Bool in
      if case .open(let held, _) = state { state = .open(held, isKept: true) }
      if case .released = state { return true }
      return false
    }
    if isReleased { throw Self.abandoned }
  }

  private static var abandoned: EngineError {
    EngineError(.cancelled, "the client went away before the operation was complete")
  }

  /// The operation is done: what it acquired has another owner now (a container's record).
  ///
  /// - Throws: `cancelled` when the lease was released before; the caller must then undo.
  public func commit() throws(EngineError) {
    let isReleased = state.withLock { state -> Bool in
      if case .released = state { return true }
      state = .committed
      return false
    }
    if isReleased { throw Self.abandoned }
  }

  /// Gives everything back unless it was committed. Safe to call more than once.
  public func release() async {
    let held = state.withLock { state -> [Held] in
      guard case .open(let held, _) = state else { return [] }
      state = .released
      return held
    }
    for entry in held.reversed() { await entry.giveBack() }
  }

  /// Everything has been given back, or is being.
  public var isReleased: Bool {
    state.withLock { state in if case .released = state { true } else { false } }
  }

  /// Whoever asked is gone: gives everything back, unless it was committed or is kept.
  public func abandon() async {
    let isKept = state.withLock { state in
      if case .open(_, isKept: true) = state { true } else { false }
    }
    if !isKept { await release() }
  }

  /// What is held now, for `bus tap` and for people.
  public var holding: [String] {
    state.withLock { state in
      guard case .open(let held, _) = state else { return [] }
      return held.map(\.what)
    }
  }
}
