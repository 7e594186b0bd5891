import CLinux
import Glibc
import LinuxSystem
import ShimCore

// Started by the engine with its connection at descriptor 3, a listening socket at 4 and at 5, where it has one, an empty
// mount namespace; see docs/architecture.md.
let born = MonotonicClock.now
_ = linux_close_range(6, UInt32.max, 0)
_ = linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
// Executed through a descriptor, it would be called by its number.
_ = "engine-shim".withCString { linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
_ = linux_fcntl(3, F_SETFD, Int(FD_CLOEXEC))
_ = linux_fcntl(4, F_SETFD, Int(FD_CLOEXEC))
let hasTree = linux_fcntl(5, F_SETFD, Int(FD_CLOEXEC)) == 0
for number in [SIGPIPE, SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2] { signal(number, SIG_IGN) }
umask(0o077)
Shim.warmUp()
do {
  try Shim(engine: 3, listener: 4, tree: hasTree ? 5 : -1, born: born).run()
} catch {
  exit(1)
}
