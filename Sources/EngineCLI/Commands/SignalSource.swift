import CLinux
import Glibc
import LinuxSystem

/// The signals that this process gets, as a descriptor to poll (signalfd(2)).
struct SignalSource: ~Copyable {
  private let source: OwnedDescriptor

  /// - Parameter proxied: whether all signals are taken, to be sent on to the container; otherwise only the change of
  ///   the terminal's size is, and the others do to this process what they always do.
  init(proxied: Bool) throws(SystemCallError) {
    var set = sigset_t()
    if proxied {
      sigfillset(&set)
      // Not the container's business, or not to be caught; the last are the answers to this process's own mistakes.
      for number in [SIGCHLD, SIGPIPE, SIGURG, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT] {
        sigdelset(&set, number)
      }
    } else {
      sigemptyset(&set)
    }
    sigaddset(&set, SIGWINCH)
    sigprocmask(SIG_BLOCK, &set, nil)
    source = OwnedDescriptor(
      adopting: try SystemCallError.check("signalfd") { signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK)) })
  }

  var descriptor: Int32 { source.number }

  /// The next signal that waits, or nil.
  func next() -> Int32? {
    var information = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    guard read(source.number, &information, size) == size else { return nil }
    return Int32(information.ssi_signo)
  }
}
