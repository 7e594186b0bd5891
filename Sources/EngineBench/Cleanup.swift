import Contracts
import Glibc

/// What has to be undone in the end: last made, first undone, also after a failure and after a signal.
package final class Cleanup {
  private var steps: [() -> Void] = []

  package init() {}

  package func add(_ step: @escaping () -> Void) { steps.append(step) }

  package func run() {
    while let step = steps.popLast() { step() }
  }
}

/// The signals that ask for the end: blocked, so that they wait until it is safe to look.
enum Interruption {
  private static let numbers = [SIGINT, SIGTERM, SIGHUP]

  private static func set(_ numbers: [Int32]) -> sigset_t {
    var set = sigset_t()
    sigemptyset(&set)
    for number in numbers { sigaddset(&set, number) }
    return set
  }

  /// Before there are threads, so that all of them block the signals.
  static func block() {
    signal(SIGPIPE, SIG_IGN)
    var set = set(numbers + [SIGCHLD])
    pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  /// Waits for the next signal, or for a change of a child.
  static func next() -> Int32 {
    var set = set(numbers + [SIGCHLD])
    while true {
      let number = sigwaitinfo(&set, nil)
      if number > 0 { return number }
    }
  }

  /// - Throws: `Interrupted` when a signal has come.
  static func check() throws { try sleep(milliseconds: 0) }

  /// - Throws: `Interrupted` when a signal has come, or comes meanwhile.
  static func sleep(milliseconds: Int) throws {
    var set = set(numbers)
    var time = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
    let number = sigtimedwait(&set, nil, &time)
    if number > 0 { throw Interrupted(signal: number) }
  }
}

struct Interrupted: Error {
  let signal: Int32
}
