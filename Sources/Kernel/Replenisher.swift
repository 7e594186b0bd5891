import LinuxSystem
import Synchronization

/// Decides when what is kept ready is made anew: when nobody has taken any for a while, or when nothing is left. What was
/// given back and is to go may wait for the same moments.
///
/// Making a namespace or a process right after one was taken competes with the container that took it, for the processor
/// and for the kernel's grace periods; one command later nobody notices.
public final class Replenisher: Sendable {
  private struct State {
    /// When one was taken, in nanoseconds of CLOCK_MONOTONIC.
    var last: Int64 = 0
    var waitsForQuiet = false
    var isUrgent = false
  }

  /// After this long without anybody, a short command has come to its end.
  public static let quiet = Duration.milliseconds(20)
  /// How long whoever took the last gets a start.
  public static let urgent = Duration.milliseconds(5)

  /// What is to be done then, on the bus's executor: it may block.
  public typealias Work = @Sendable () async -> Void

  private let bus: Bus
  private let state = Mutex(State())

  public init(_ bus: Bus) { self.bus = bus }

  /// One was taken.
  ///
  /// - Parameters:
  ///   - isLast: nothing is left.
  ///   - fill: makes more.
  public func taken(isLast: Bool, fill: @escaping Work) {
    let schedules = state.withLock { state -> Bool in
      state.last = MonotonicClock.now
      defer { if isLast { state.isUrgent = true } else { state.waitsForQuiet = true } }
      return isLast ? !state.isUrgent : !state.waitsForQuiet
    }
    if schedules { schedule(after: isLast ? Self.urgent : Self.quiet, isUrgent: isLast, fill) }
  }

  private func schedule(after delay: Duration, isUrgent: Bool, _ fill: @escaping Work) {
    _ = bus.timekeeper.schedule(after: delay) { [self] in due(isUrgent: isUrgent, fill) }
  }

  private func due(isUrgent: Bool, _ fill: @escaping Work) {
    let rest = state.withLock { state -> Int64 in
      if isUrgent {
        state.isUrgent = false
        return 0
      }
      let rest = state.last + Int64(Self.quiet / .nanoseconds(1)) - MonotonicClock.now
      if rest <= 0 { state.waitsForQuiet = false }
      return rest
    }
    if rest > 0 { return schedule(after: .nanoseconds(rest), isUrgent: false, fill) }
    Task(executorPreference: bus.executor) { await fill() }
  }
}
