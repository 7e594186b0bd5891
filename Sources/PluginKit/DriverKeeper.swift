import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// One process of a driver under examination. A thread of its own starts it and waits for its end, so the kernel kills
/// the driver together with this program, however that ends (PR_SET_PDEATHSIG counts from the thread that forks).
final class DriverKeeper: Sendable {
  private struct State {
    /// 0 before the process is there, and once it may have been reaped.
    var pid: Int32 = 0
    var failure: SystemCallError?
    var end: ChildProcess.End?
  }

  private let state = Mutex(State())
  /// The process is there, or cannot be.
  private let started: OneTimeEvent
  /// The process is gone.
  private let gone: OneTimeEvent

  /// - Throws: what starting the program said.
  init(_ command: [String], environment: [String], descriptors: [Int32]) throws(SystemCallError) {
    started = try OneTimeEvent()
    gone = try OneTimeEvent()
    let isRunning = DetachedThread.start { [state = self] in state.keep(command, environment, descriptors) }
    guard isRunning else { throw SystemCallError(call: "pthread_create", number: EAGAIN) }
    started.wait(milliseconds: -1)
    if let failure = state.withLock({ $0.failure }) { throw failure }
  }

  /// The whole life of the thread.
  private func keep(_ command: [String], _ environment: [String], _ descriptors: [Int32]) {
    do throws(SystemCallError) {
      let process = try ChildProcess(
        command, environment: environment, descriptors: descriptors, diesWithThread: true)
      state.withLock { $0.pid = process.pid }
      started.raise()
      var events = [pollfd(fd: process.pidfd.number, events: Int16(POLLIN), revents: 0)]
      while poll(&events, 1, -1) < 0 && errno == EINTR {}
      // Before it is reaped, so that nobody's signal goes to another process of the same number.
      state.withLock { $0.pid = 0 }
      // What the driver started in its group goes with it.
      process.signal(SIGKILL)
      let end = process.wait()
      state.withLock { $0.end = end }
    } catch {
      state.withLock { $0.failure = error }
      started.raise()
    }
    gone.raise()
  }

  /// Kills the process with its group, and returns when it is gone.
  func kill() {
    state.withLock { state in
      if state.pid != 0, Glibc.kill(-state.pid, SIGKILL) != 0 { Glibc.kill(state.pid, SIGKILL) }
    }
    gone.wait(milliseconds: -1)
  }

  /// How the process ended by itself.
  ///
  /// - Returns: nil when it still runs after so many milliseconds.
  func end(within milliseconds: Int32) -> ChildProcess.End? {
    gone.wait(milliseconds: milliseconds)
    return state.withLock { $0.end }
  }
}
