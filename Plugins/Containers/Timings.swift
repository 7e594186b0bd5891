import Glibc

/// How long one step of a start took.
struct StepTiming: Sendable, Equatable {
  var step: String
  /// Of CLOCK_MONOTONIC, from the end of the step before (or the start of a branch) to the end of this one.
  var nanoseconds: UInt64
}

/// Takes the time of one step after the other.
struct StepClock: Sendable {
  private(set) var steps: [StepTiming] = []
  private var last: UInt64

  init() {
    last = Self.now
    steps.reserveCapacity(8)
  }

  static var now: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  mutating func finish(_ step: String) {
    let now = Self.now
    steps.append(StepTiming(step: step, nanoseconds: now - last))
    last = now
  }
}
