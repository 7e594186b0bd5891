import CLinux
import Glibc
import LinuxSystem

/// The system calls that a container cannot do without, with nothing around them: no engine, no message, no record, no
/// shim, and no program started but the container's own. What an engine takes beyond this is its own doing.
///
/// For a process with one thread, in network and mount namespaces of its own.
package final class RawFloor {
  package static let argument = "--raw-floor"

  private let rootfs: String
  private let directory: String
  private let bridge: Int32
  private let cgroups: [String]
  private let group: String
  private let limitsMemory: Bool
  private let filter = RawFloor.seccompFilter()

  /// - Parameters:
  ///   - rootfs: a root file system with `/bin/true` and the directories that file systems are mounted on.
  ///   - directory: where the writable layer goes; it has a directory `root`.
  ///   - hierarchies: the cgroup hierarchies in which a container gets a group; nil for all of them, and a limit
  ///     of the memory.
  ///   - group: the name of that group.
  /// - Returns: nil where the machine lets no bridge be made.
  package init?(
    rootfs: String, directory: String, hierarchies: [String]? = nil, group: String = "engine-raw-floor-\(getpid())"
  ) {
    mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil)
    guard let bridge = Netlink.makeBridge() else { return nil }
    self.rootfs = rootfs
    self.directory = directory
    self.bridge = bridge
    self.group = group
    cgroups = hierarchies ?? Self.allHierarchies()
    limitsMemory = hierarchies == nil
  }

  /// Answers each byte with the microseconds that a container took, as a Double; 0 for a failure.
  package static func serve(rootfs: String, directory: String) -> Int32 {
    guard let floor = RawFloor(rootfs: rootfs, directory: directory) else { return 1 }
    var byte: UInt8 = 0
    while read(0, &byte, 1) == 1 {
      var time = Double(floor.run(hasNetwork: true) ?? 0) / 1000
      _ = write(1, &time, MemoryLayout<Double>.size)
    }
    return 0
  }

  /// Makes one container, waits for its end and removes it.
  ///
  /// - Returns: the nanoseconds it took; nil for a failure.
  package func run(hasNetwork: Bool) -> Int64? {
    let begin = MonotonicClock.now
    let isGood = container(hasNetwork: hasNetwork)
    let time = MonotonicClock.now - begin
    // As the engine: what the kernel takes long for is deleted behind the user's back.
    if hasNetwork { Netlink.deleteLink("fl0") }
    return isGood ? time : nil
  }

  /// Where the controllers are mounted.
  private static func allHierarchies() -> [String] {
    let directory = opendir("/sys/fs/cgroup")
    guard let directory else { return [] }
    defer { closedir(directory) }
    var paths: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      let path = "/sys/fs/cgroup/\(name)"
      // cpu,cpuacct and net_cls,net_prio have two names each, one of them a link.
      var status = stat()
      guard !name.hasPrefix("."), lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR,
        access("\(path)/cgroup.procs", W_OK) == 0
      else { continue }
      paths.append(path)
    }
    return paths.isEmpty ? ["/sys/fs/cgroup"] : paths
  }

  private func container(hasNetwork: Bool) -> Bool {
    mkdir("\(directory)/upper", 0o755)
    mkdir("\(directory)/work", 0o755)
    var entries: [Int32] = []
    var unified: Int32 = -1
    for path in cgroups {
      let group = "\(path)/\(group)"
      mkdir(group, 0o755)
      if limitsMemory, path.hasSuffix("/memory") { Self.put("\(group)/memory.limit_in_bytes", "67108864") }
      let tasks = linux_open("\(group)/tasks", O_WRONLY | O_CLOEXEC, 0)
      // A thread that enters a group of version 1 by itself, and one that is born in a group of version 2, wait for
      // nobody; any other way takes the kernel 10 ms.
      if tasks >= 0 {
        entries.append(tasks)
      } else {
        unified = linux_open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
      }
    }
    var ends: [Int32] = [-1, -1]
    pipe2(&ends, O_CLOEXEC)
    var arguments = clone_args()
    var pidfd: Int32 = -1
    arguments.flags = UInt64(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_PIDFD)
    arguments.exit_signal = UInt64(SIGCHLD)
    if unified >= 0 {
      arguments.flags |= 0x2_0000_0000  // CLONE_INTO_CGROUP
      arguments.cgroup = UInt64(unified)
    }
    let pid = withUnsafeMutablePointer(to: &pidfd) { pointer in
      arguments.pidfd = UInt64(UInt(bitPattern: pointer))
      return pid_t(linux_clone3(&arguments, MemoryLayout<clone_args>.size))
    }
    if pid == 0 {
      var byte: UInt8 = 0
      for entry in entries { _ = write(entry, "0", 1) }
      _ = read(ends[0], &byte, 1)
      Self.inside(rootfs, directory, filter, hasNetwork: hasNetwork)
    }
    guard pid > 0 else { return false }
    let isAttached = !hasNetwork || Netlink.addVeth(to: bridge, of: .process(pid))
    _ = write(ends[1], "g", 1)
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
    close(pidfd)
    for descriptor in ends + entries + [unified] where descriptor >= 0 { close(descriptor) }
    for path in cgroups { rmdir("\(path)/\(group)") }
    rmdir("\(directory)/upper")
    rmdir("\(directory)/work/work")
    rmdir("\(directory)/work")
    return isAttached && status == 0
  }

  private static func inside(
    _ rootfs: String, _ directory: String, _ filter: [sock_filter], hasNetwork: Bool
  ) -> Never {
    guard !hasNetwork || Netlink.configureContainer() else { _exit(70) }
    sethostname("floor", 5)
    unshare(CLONE_NEWCGROUP)
    mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil)
    let root = "\(directory)/root"
    let options = "lowerdir=\(rootfs),upperdir=\(directory)/upper,workdir=\(directory)/work"
    guard mount("overlay", root, "overlay", 0, options) == 0 else { _exit(71) }
    chdir(root)
    guard linux_pivot_root(".", ".") == 0 else { _exit(72) }
    umount2(".", Int32(MNT_DETACH))
    chdir("/")
    let plain = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("proc", "/proc", "proc", plain, nil)
    mount("tmpfs", "/dev", "tmpfs", UInt(MS_NOSUID), "mode=755,size=65536k")
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] as [(String, UInt32)] {
      mknod("/dev/\(name)", S_IFCHR | 0o666, dev_t(1 << 8 | minor))
    }
    for name in ["pts", "shm", "mqueue"] { mkdir("/dev/\(name)", 0o755) }
    mount("devpts", "/dev/pts", "devpts", UInt(MS_NOSUID | MS_NOEXEC), "mode=0620,ptmxmode=0666")
    mount("shm", "/dev/shm", "tmpfs", plain, "mode=1777,size=65536k")
    mount("mqueue", "/dev/mqueue", "mqueue", plain, nil)
    mount("sysfs", "/sys", "sysfs", plain | UInt(MS_RDONLY), nil)
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"] {
      mount("/dev/null", path, nil, UInt(MS_BIND), nil)
    }
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
      mount(path, path, nil, UInt(MS_BIND | MS_REC), nil)
      mount(nil, path, nil, UInt(MS_REMOUNT | MS_BIND | MS_RDONLY) | plain, nil)
    }
    linux_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    linux_capset(0, 0, 0)
    var program = filter
    let isLoaded = program.withUnsafeMutableBufferPointer { buffer -> Bool in
      var header = sock_fprog(len: UInt16(buffer.count), filter: buffer.baseAddress)
      return linux_seccomp(UInt32(SECCOMP_SET_MODE_FILTER), 0, &header) == 0
    }
    guard isLoaded else { _exit(73) }
    linux_close_range(3, UInt32.max, 0)
    var argv: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
    var envp: [UnsafeMutablePointer<CChar>?] = [nil]
    execve("/bin/true", &argv, &envp)
    _exit(127)
  }

  /// As long as the tree that libseccomp makes of Docker's rules; it allows everything.
  private static func seccompFilter() -> [sock_filter] {
    let load = sock_filter(code: UInt16(BPF_LD | BPF_W | BPF_ABS), jt: 0, jf: 0, k: 0)
    let compare = sock_filter(code: UInt16(BPF_JMP | BPF_JEQ | BPF_K), jt: 0, jf: 0, k: 0xFFFF)
    let allow = sock_filter(code: UInt16(BPF_RET | BPF_K), jt: 0, jf: 0, k: 0x7FFF_0000)
    return [load] + [sock_filter](repeating: compare, count: 400) + [allow]
  }

  private static func put(_ path: String, _ text: String) {
    let file = linux_open(path, O_WRONLY | O_CLOEXEC, 0)
    guard file >= 0 else { return }
    _ = write(file, text, text.utf8.count)
    close(file)
  }
}
