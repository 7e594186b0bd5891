import CLinux
import Contracts
import Glibc

/// The process of a shim, by its number and by a descriptor that stays its own when the number is somebody else's
/// (pidfd_open(2)).
struct ShimProcess: Sendable {
  let pid: Int32
  /// Nil where none is to be had: the process is gone, or there are no descriptors left.
  let pidfd: Descriptor?
  /// How many containers it has served.
  private(set) var containers = 0

  init(_ pid: Int32) {
    self.pid = pid
    let number = pid > 0 ? pidfd_open(pid, 0) : -1
    pidfd = number >= 0 ? Descriptor(adopting: number) : nil
  }

  /// The same after one container more; nil where it cannot be told from another process.
  func serving() -> ShimProcess? {
    guard pidfd != nil else { return nil }
    var later = self
    later.containers += 1
    return later
  }

  func kill() {
    if let pidfd {
      _ = pidfd_send_signal(pidfd.number, SIGKILL, nil, 0)
    } else if pid > 0 {
      // Without a descriptor nobody watched it and reaped it, so the number is still its own.
      Glibc.kill(pid, SIGKILL)
    }
  }

  /// Waits until it has ended; it is a child of this process, or was.
  func reap() {
    var information = siginfo_t()
    if let pidfd {
      while waitid(idtype_t(rawValue: 3), id_t(pidfd.number), &information, WEXITED) != 0, errno == EINTR {}  // P_PIDFD
    } else {
      waitpid(pid, nil, 0)
    }
  }
}
