import CLinux
import Glibc
import LinuxSystem
import ShimCore

// Started by the engine with its connection at descriptor 3 and a listening socket at 4; see docs/architecture.md.
let born = MonotonicClock.now
_ = linux_close_range(5, UInt32.max, 0)
_ = linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
// Executed through a descriptor, it would be called by its number.
_ = "engine-shim".withCString { linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
_ = linux_fcntl(3, F_SETFD, Int(FD_CLOEXEC))
_ = linux_fcntl(4, F_SETFD, Int(FD_CLOEXEC))
for number in [SIGPIPE, SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2] { signal(number, SIG_IGN) }
umask(0o077)
Shim.warmUp()
do {
  try Shim(engine: 3, listener: 4, born: born).run()
} catch {
  exit(1)
}
