import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A detached POSIX thread.
public enum Thread {
  /// Runs `body` on a new thread with a stack of 512 KiB.
  ///
  /// - Returns: false when the system has no thread left (pthread_create(3) said EAGAIN).
  public static func start(_ body: @escaping @Sendable () -> Void) -> Bool { DetachedThread.start(body) }
}

/// Where one thread sleeps until it is woken: a word for futex(2), so that going to sleep and waking cost one call each.
/// A thread that is woken before it sleeps does not sleep.
final class Parking: @unchecked Sendable {
  // Unchecked: the word is only reached through atomic operations and the kernel.
  private let word = UnsafeMutablePointer<Atomic<UInt32>>.allocate(capacity: 1)

  init() { word.initialize(to: Atomic(0)) }

  deinit {
    word.deinitialize(count: 1)
    word.deallocate()
  }

  /// Wakes the thread that sleeps here, or the next one that wants to.
  func wake() {
    word.pointee.store(1, ordering: .releasing)
    linux_futex_wake(address, 1)
  }

  /// Sleeps until `wake`, for which nobody else may be waiting.
  ///
  /// - Parameter seconds: nil for as long as it takes.
  /// - Returns: false when `seconds` passed without it.
  func sleep(seconds: Int?) -> Bool {
    var limit = timespec(tv_sec: seconds ?? 0, tv_nsec: 0)
    while word.pointee.exchange(0, ordering: .acquiring) == 0 {
      let result =
        seconds == nil ? linux_futex_wait(address, 0, nil) : linux_futex_wait(address, 0, &limit)
      // A signal makes it longer than asked for, which nobody minds.
      if result != 0, errno == ETIMEDOUT { return word.pointee.exchange(0, ordering: .acquiring) != 0 }
    }
    return true
  }

  private var address: UnsafePointer<UInt32> {
    UnsafePointer(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self))
  }
}

/// Lets threads sleep until something was signalled, without losing a signal that came between the look and the sleep:
/// take a ticket, look, then wait after the ticket. It is an eventcount over pthread_cond_timedwait(3).
final class ConditionVariable: @unchecked Sendable {
  // Unchecked: the pthread objects are only reached through pthread calls, and `sequence` only under the mutex.
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var sequence: UInt64 = 0

  init() {
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func ticket() -> UInt64 {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return sequence
  }

  /// Wakes one sleeper, and every later `wait` whose ticket is older.
  func signal() {
    pthread_mutex_lock(mutex)
    sequence &+= 1
    pthread_cond_signal(condition)
    pthread_mutex_unlock(mutex)
  }

  /// - Returns: false when `seconds` passed without a signal after the ticket.
  func wait(after ticket: UInt64, seconds: Int) -> Bool {
    var deadline = timespec()
    clock_gettime(CLOCK_MONOTONIC, &deadline)
    deadline.tv_sec += seconds
    return wait(after: ticket, until: deadline)
  }

  /// - Parameter deadline: a time of CLOCK_MONOTONIC.
  func wait(after ticket: UInt64, until deadline: timespec) -> Bool {
    var deadline = deadline
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while sequence == ticket {
      if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT { return sequence != ticket }
    }
    return true
  }
}
