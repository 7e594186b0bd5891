import Glibc

/// CLOCK_MONOTONIC (clock_gettime(2)): one clock for every process of the machine, and no system call on most of them.
public enum MonotonicClock {
  /// Nanoseconds since an arbitrary moment, usually the machine's start.
  public static var now: Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}
