import Synchronization

/// Things that were made before anybody asked for them, so that whoever wants one need not wait for its making.
///
/// One filling goes on at a time. After `close` nothing is kept and nothing is being made, so that nothing is left
/// behind by an engine that ends.
public final class Stock<Item: Sendable>: Sendable {
  private struct State {
    var idle: [Item] = []
    var filling: Once<Void>?
    var isClosed = false
  }

  /// Which one is taken next.
  public enum Place: Sendable { case takenNext, takenLast }

  private let state = Mutex(State())

  public init() {}

  /// Those that are ready, the one that is taken next at the end.
  public var idle: [Item] { state.withLock { $0.idle } }
  public var count: Int { state.withLock { $0.idle.count } }
  public var isEmpty: Bool { state.withLock { $0.idle.isEmpty } }

  /// Whether one more is kept where there may be so many.
  public func hasRoom(upTo limit: Int) -> Bool { state.withLock { !$0.isClosed && $0.idle.count < limit } }

  /// One that is ready, if any, and whether none is left.
  public func take() -> (item: Item?, isLast: Bool) {
    state.withLock { state in (state.idle.popLast(), state.idle.isEmpty) }
  }

  /// Keeps one more.
  ///
  /// - Returns: false when it is closed: then the item is the caller's still.
  public func keep(_ item: Item, _ place: Place = .takenNext) -> Bool {
    state.withLock { state -> Bool in
      guard !state.isClosed else { return false }
      state.idle.insert(item, at: place == .takenNext ? state.idle.count : 0)
      return true
    }
  }

  /// Makes those that are missing, and lets go of those that are too many, beginning with the one that would be taken
  /// last. Does nothing while somebody else fills it.
  ///
  /// - Parameters:
  ///   - count: so many are to be ready.
  ///   - limit: as many may stay as there are.
  ///   - make: one more; nil when it cannot be made, which ends the filling: nobody misses it, and whoever wants one
  ///     makes his own and says what is in the way.
  ///   - discard: lets one go.
  public func fill(
    to count: Int, keepingUpTo limit: Int = .max, make: @Sendable () async -> Item?,
    discard: @Sendable (Item) -> Void
  ) async {
    let filling = Once<Void>()
    let begins = state.withLock { state -> Bool in
      guard state.filling == nil, !state.isClosed else { return false }
      state.filling = filling
      return true
    }
    guard begins else { return }
    while let superfluous = state.withLock({ $0.idle.count > limit ? $0.idle.removeFirst() : nil }) {
      discard(superfluous)
    }
    while hasRoom(upTo: count), let item = await make() {
      if !keep(item) { discard(item) }
    }
    state.withLock { $0.filling = nil }
    filling.resolve(())
  }

  /// Ends it, and waits for what is being made.
  ///
  /// - Returns: those that were ready.
  public func close() async -> [Item] {
    let (idle, filling) = state.withLock { state -> ([Item], Once<Void>?) in
      state.isClosed = true
      defer { state.idle = [] }
      return (state.idle, state.filling)
    }
    await filling?.value
    return idle
  }
}
