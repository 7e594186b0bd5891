import CLinux
import Contracts
import Glibc
import LinuxSystem

/// The process that the user started: it lets another one do everything, in namespaces of its own, and removes what is
/// left on the host when that has ended, however it ended.
enum Guardian {
  /// Runs `body` in a new process with new network, mount and PID namespaces, which takes its children along when it
  /// ends; before there are threads.
  ///
  /// - Returns: its exit status.
  static func run(_ body: () -> Int32) throws(EngineError) -> Int32 {
    var arguments = clone_args()
    arguments.flags = UInt64(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID)
    arguments.exit_signal = UInt64(SIGCHLD)
    let child = pid_t(linux_clone3(&arguments, MemoryLayout<clone_args>.size))
    if child == 0 {
      // Also when this process is killed: nothing of the rest survives the first process of a PID namespace.
      _ = linux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0)
      _exit(body())
    }
    guard child > 0 else {
      throw EngineError(.unavailable, "the benchmarks cannot run here: clone3: \(SystemCallError.text(errno))")
    }
    return wait(for: child)
  }

  /// Sleeps until the process has ended. What asks this one to end is told to that one, which takes down what it made;
  /// who asks again does not want to wait for that.
  private static func wait(for child: pid_t) -> Int32 {
    var requests = 0
    while true {
      var status: Int32 = 0
      let waited = waitpid(child, &status, WNOHANG)
      if waited == child {
        return linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
      }
      if waited < 0 && errno != EINTR { return 1 }
      let signal = Interruption.next()
      if signal == SIGCHLD { continue }
      requests += 1
      kill(child, requests > 2 ? SIGKILL : signal)
    }
  }
}
