import CLinux
import Glibc
import LinuxSystem
import ShimCore

// Started by the engine with its connection at descriptor 3, a listening socket at 4 and at 5, where it has one, an empty
// mount namespace; see docs/architecture.md. At 6 it keeps the host's IPC namespace.
var born = MonotonicClock.now
_ = linux_close_range(6, UInt32.max, 0)
_ = linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
// Executed through a descriptor, it would be called by its number.
_ = "engine-shim".withCString { linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
_ = linux_fcntl(3, F_SETFD, Int(FD_CLOEXEC))
_ = linux_fcntl(4, F_SETFD, Int(FD_CLOEXEC))
var surroundings = Shim.Surroundings(engine: 3, listener: 4)
if linux_fcntl(5, F_SETFD, Int(FD_CLOEXEC)) == 0 { surroundings.tree = 5 }
let hostIPC = linux_open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC, 0)
if hostIPC >= 0, dup3(hostIPC, 6, O_CLOEXEC) == 6 || hostIPC == 6 { surroundings.hostIPC = 6 }
for number in [SIGPIPE, SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2] { signal(number, SIG_IGN) }
umask(0o077)
Shim.warmUp()

/// Serves one container. What it has is let go of on return, before its descriptors are closed by their numbers.
func serve(_ surroundings: Shim.Surroundings, born: Int64) -> Bool {
  do {
    return try Shim(surroundings, born: born).run()
  } catch {
    exit(1)
  }
}

while serve(surroundings, born: born) {
  born = MonotonicClock.now
  _ = linux_close_range(7, UInt32.max, 0)
}
