import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// The descriptors of a process that is about to be set up, as the shim made them.
struct ChildDescriptors {
  /// What becomes 0, 1 and 2; -1 where a terminal takes their place.
  var standard: [Int32] = [-1, -1, -1]
  /// The status socket.
  var status: Int32 = -1
  var root: Int32 = -1
  /// See `StartPlan`; -1 for an exec, which waits for nothing.
  var gate: Int32 = -1
  var network: Int32 = -1
  /// An empty mount namespace to be copied; -1 where the process was cloned with a copy of the host's.
  var tree: Int32 = -1
  var cgroupEntries: [Int32] = []
  var mounts: [Int32] = []
  var provisions = Provisions.none
  /// For an exec: the pidfd of the container's first process, whose namespaces are joined.
  var container: Int32 = -1
  /// Pidfds of the processes whose namespaces the container shares, opened where their numbers mean something.
  var owners: [Int32: Int32] = [:]
}

/// What runs in a new process between clone3(2) and execve(2). The process is a fork of the single-threaded shim, so
/// everything may be called here.
final class Child {
  let descriptors: ChildDescriptors
  private var hasWaited = false
  private var log = StepLog(isInProcess: true, begin: MonotonicClock.now)

  init(descriptors: ChildDescriptors) { self.descriptors = descriptors }

  private func finished(_ step: String) { log.finish(step, now: MonotonicClock.now) }

  private func warn(_ text: String) { StatusReport.send(.warning(text), to: descriptors.status) }

  /// Ends in execve(2) or in a report of what failed.
  func start(_ plan: StartPlan) -> Never {
    finish { () throws(SetupFailure) in
      try prepare(plan.process)
      try joinNamespaces(plan)
      try setNames(plan)
      let host = try hostPieces(plan)
      finished("namespaces")
      let files = try RootFileSystem(
        plan: plan, mount: descriptors.root, isTreeEmpty: descriptors.tree >= 0, provisions: descriptors.provisions)
      finished("pivot_root")
      try files.mountKernelFileSystems(host: host)
      finished("/proc, /dev, /sys")
      if !plan.systemControls.isEmpty {
        // Those of an interface are there when the interface is.
        try awaitStart()
        try files.set(plan.systemControls)
      }
      try files.attachVolumes(descriptors.mounts)
      finished("volumes, files")
      // Before the masks: /proc is still whole, and nothing of the image has run.
      if !plan.isPrivileged {
        try files.makeReadOnly(plan.readOnlyPaths)
        try files.mask(plan.maskedPaths)
        finished("masks")
      }
      let terminal = try openTerminal(plan.process, plan.streams, console: true)
      if terminal >= 0 { finished("terminal") }
      if plan.isRootReadOnly {
        try makeWorkingDirectory(plan.process.workingDirectory)
        try files.makeRootReadOnly()
        finished("read-only root")
      }
      return (plan.process, plan.usesInit, terminal)
    }
  }

  /// The same for a process that joins a container.
  func join(_ plan: ExecPlan) -> Never {
    finish { () throws(SetupFailure) in
      try prepare(plan.process)
      try stage("joining the container") { () throws(SystemCallError) in
        let kinds = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP
        try SystemCallError.check("setns") { setns(descriptors.container, kinds) }
      }
      finished("namespaces")
      let terminal = try openTerminal(plan.process, plan.streams, console: false)
      if terminal >= 0 { finished("terminal") }
      return (plan.process, false, terminal)
    }
  }

  private func finish(_ setUp: () throws(SetupFailure) -> (ProcessPlan, Bool, Int32)) -> Never {
    do throws(SetupFailure) {
      let (process, usesInit, terminal) = try setUp()
      throw try execute(process, usesInit: usesInit, terminal: terminal)
    } catch {
      // The streams are in place by now or not; either way the status socket is where it was or at 3.
      StatusReport.send(.failure(error.kind, error.message), to: isClosed ? 3 : descriptors.status)
      _exit(127)
    }
  }

  /// Waits until the engine lets the command be executed; once.
  private func awaitStart() throws(SetupFailure) {
    if hasWaited || descriptors.gate < 0 { return }
    hasWaited = true
    var byte: UInt8 = 0
    var count = read(descriptors.gate, &byte, 1)
    while count < 0 && errno == EINTR { count = read(descriptors.gate, &byte, 1) }
    guard count == 1 else { throw SetupFailure(.internalFailure, "the engine ended before it started the container") }
    finished("wait for the start")
  }

  /// After `takeStreams` the status socket is descriptor 3 and everything else is closed.
  private var isClosed: Bool { fcntlFlags(descriptors.status) < 0 || descriptors.status == 3 }

  private func fcntlFlags(_ number: Int32) -> Int32 { linux_fcntl(number, F_GETFD, 0) }

  /// What has to be done on the host's side of the namespaces.
  private func prepare(_ process: ProcessPlan) throws(SetupFailure) {
    // Not dumpable: a process of the container that sees this one must not open its memory or its descriptors
    // (CVE-2016-9962). execve(2) undoes it.
    _ = linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _ = linux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0)
    _ = setsid()
    try Self.enterGroups(descriptors.cgroupEntries)
    finished("enter cgroups")
    if process.setsScore { try Privileges.setScore(process.score, warn: warn) }
    try Privileges.set(process.limits, warn: warn)
  }

  /// Moves this process into groups of version 1, by their opened `tasks`.
  static func enterGroups(_ entries: [Int32]) throws(SetupFailure) {
    for entry in entries {
      try stage("entering the cgroup") { () throws(SystemCallError) in
        try SystemCallError.check("write") { write(entry, "0", 1) }
      }
    }
  }

  private func joinNamespaces(_ plan: StartPlan) throws(SetupFailure) {
    if descriptors.tree >= 0 {
      try stage("making the mount namespace") { () throws(SystemCallError) in
        try SystemCallError.check("setns") { setns(descriptors.tree, CLONE_NEWNS) }
        try SystemCallError.check("unshare") { unshare(CLONE_NEWNS) }
      }
    }
    if descriptors.network >= 0 {
      try stage("joining the network namespace") { () throws(SystemCallError) in
        try SystemCallError.check("setns") { setns(descriptors.network, CLONE_NEWNET) }
      }
    }
    let sharesHostIPC = plan.otherNamespaces.contains { $0.kind == UInt32(CLONE_NEWIPC) && $0.process == 0 }
    if sharesHostIPC, descriptors.provisions.hostIPC >= 0 {
      try stage("joining the host's IPC namespace") { () throws(SystemCallError) in
        try SystemCallError.check("setns") { setns(descriptors.provisions.hostIPC, CLONE_NEWIPC) }
      }
    }
    for namespace in plan.otherNamespaces where namespace.process != 0 && namespace.kind != UInt32(CLONE_NEWPID) {
      let pid = namespace.process
      try stage("joining a namespace of process \(pid)") { () throws(SystemCallError) in
        try SystemCallError.check("setns") { setns(descriptors.owners[pid] ?? -1, Int32(bitPattern: namespace.kind)) }
      }
    }
    // After the cgroups were entered, so that they are the root of what the container sees.
    if plan.freshNamespaces & UInt32(CLONE_NEWCGROUP) != 0 {
      try stage("making the cgroup namespace") { () throws(SystemCallError) in
        try SystemCallError.check("unshare") { unshare(CLONE_NEWCGROUP) }
      }
    }
  }

  private func setNames(_ plan: StartPlan) throws(SetupFailure) {
    guard plan.freshNamespaces & UInt32(CLONE_NEWUTS) != 0 else { return }
    try stage("setting the host name") { () throws(SystemCallError) in
      try SystemCallError.check("sethostname", plan.hostname) { sethostname(plan.hostname, plan.hostname.utf8.count) }
      if plan.domainname.isEmpty { return }
      try SystemCallError.check("setdomainname", plan.domainname) {
        setdomainname(plan.domainname, plan.domainname.utf8.count)
      }
    }
  }

  private func hostPieces(_ plan: StartPlan) throws(SetupFailure) -> HostPieces {
    var pieces = HostPieces()
    if plan.isPrivileged { pieces.devices = Devices.ofHost() }
    if plan.sharesHostCgroups {
      for hierarchy in plan.cgroupMounts {
        let path = hierarchy.key.isEmpty ? "/sys/fs/cgroup" : "/sys/fs/cgroup/\(hierarchy.key)"
        pieces.cgroups.append(
          try stage("sharing \(path)") { () throws(SystemCallError) in try Self.copy(path).release() })
      }
    }
    guard let source = plan.otherNamespaces.first(where: { $0.kind == UInt32(CLONE_NEWIPC) }) else { return pieces }
    pieces.sharedMemory = try stage("sharing /dev/shm") { () throws(SystemCallError) in
      if source.process == 0 { return try Self.copy("/dev/shm").release() }
      // A mount can only be copied from within its own mount namespace.
      let own = try Files.open("/proc/self/ns/mnt", O_RDONLY)
      try SystemCallError.check("setns") { setns(descriptors.owners[source.process] ?? -1, CLONE_NEWNS) }
      let copy = try Self.copy("/dev/shm")
      try SystemCallError.check("setns") { setns(own.number, CLONE_NEWNS) }
      return copy.release()
    }
    return pieces
  }

  /// A mount of the tree that is still there, which what is mounted in the container does not propagate to.
  private static func copy(_ path: String) throws(SystemCallError) -> OwnedDescriptor {
    let mount = try Mounts.clone(path, recursive: false)
    try Mounts.setAttributes(mount.number, set: 0, propagation: UInt64(MS_PRIVATE), recursive: false)
    return mount
  }

  /// Makes a pty in the container's own devpts and hands its master to the shim.
  ///
  /// - Returns: the slave, or -1 without a terminal.
  private func openTerminal(
    _ process: ProcessPlan, _ streams: StreamPlan, console: Bool
  ) throws(SetupFailure) -> Int32 {
    guard process.terminal else { return -1 }
    let slave = try stage("making the terminal") { () throws(SystemCallError) -> Int32 in
      let master = try Files.open("/dev/pts/ptmx", O_RDWR | O_NOCTTY)
      var system = statfs()
      // What is mounted there must be a devpts: anything else is a trick of the container.
      guard fstatfs(master.number, &system) == 0, system.f_type == Int(DEVPTS_SUPER_MAGIC) else {
        throw SystemCallError(call: "open", subject: "/dev/pts/ptmx", number: ENODEV)
      }
      var unlocked: Int32 = 0
      try SystemCallError.check("ioctl(TIOCSPTLCK)") {
        linux_ioctl_pointer(master.number, unlockTerminal, &unlocked)
      }
      if streams.rows > 0 && streams.columns > 0 { setSize(master.number, streams.rows, streams.columns) }
      let slave = try SystemCallError.check("ioctl(TIOCGPTPEER)") {
        linux_ioctl_value(master.number, openTerminalPeer, UInt(O_RDWR | O_NOCTTY | O_CLOEXEC))
      }
      guard StatusReport.send(.terminal, to: descriptors.status, descriptors: [master.number, slave]) else {
        throw SystemCallError(call: "sendmsg", number: errno)
      }
      return slave
    }
    guard console else { return slave }
    try stage("mounting /dev/console") { () throws(SystemCallError) in
      _ = try Files.open("/dev/console", O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, mode: 0o600)
      let target = try Files.open("/dev/console", O_PATH | O_NOFOLLOW)
      let copy = try Mounts.clone(at: slave, "", recursive: false)
      try Mounts.attach(copy.number, at: target.number, "")
    }
    return slave
  }

  /// Puts the streams at 0, 1 and 2 and the status socket at 3, and closes everything else: from here on the process
  /// holds nothing of the host (CVE-2024-21626).
  private func takeStreams(terminal: Int32) throws(SetupFailure) {
    try stage("taking the streams") { () throws(SystemCallError) in
      // Moved above 9 first, so that no dup2 overwrites one that is still needed.
      var moved: [Int32] = []
      for number in descriptors.standard.map({ $0 < 0 ? terminal : $0 }) + [descriptors.status] {
        moved.append(try SystemCallError.check("fcntl") { linux_fcntl(number, F_DUPFD_CLOEXEC, 10) })
      }
      for index in 0..<3 { try SystemCallError.check("dup2") { dup2(moved[index], Int32(index)) } }
      try SystemCallError.check("dup3") { dup3(moved[3], 3, O_CLOEXEC) }
      try SystemCallError.check("close_range") { linux_close_range(4, UInt32.max, 0) }
      if terminal >= 0 { try SystemCallError.check("ioctl(TIOCSCTTY)") { linux_ioctl_value(0, UInt(TIOCSCTTY), 0) } }
    }
  }

  /// Makes the working directory where it is missing, as Docker does, with nothing followed out of the root.
  private func makeWorkingDirectory(_ path: String) throws(SetupFailure) {
    var status = stat()
    if stat(path, &status) == 0 { return }
    try stage("making the working directory \(path)") { () throws(SystemCallError) in
      let root = try Files.open("/", O_PATH | O_DIRECTORY)
      var made = ""
      for component in path.split(separator: "/") {
        let parent = try Files.open(inRoot: root.number, made.isEmpty ? "/" : made, O_PATH | O_DIRECTORY)
        made += "/\(component)"
        if mkdirat(parent.number, String(component), 0o755) != 0, errno != EEXIST {
          throw SystemCallError(call: "mkdir", subject: made, number: errno)
        }
      }
    }
  }

  private func enterWorkingDirectory(_ path: String) throws(SetupFailure) {
    let path = path.isEmpty ? "/" : path
    try stage("changing to the working directory \(path)") { () throws(SystemCallError) in
      try SystemCallError.check("chdir", path) { chdir(path) }
      var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
      // The kernel answers "(unreachable)..." for a directory outside the root.
      guard getcwd(&buffer, buffer.count) != nil, buffer[0] == 47 else {
        throw SystemCallError(call: "getcwd", subject: path, number: EXDEV)
      }
    }
  }

  private func execute(
    _ process: ProcessPlan, usesInit: Bool, terminal: Int32
  ) throws(SetupFailure) -> SetupFailure {
    guard let name = process.arguments.first else {
      throw SetupFailure(.invalidArgument, "no command is specified")
    }
    let identity = try Users.resolve(
      process.user, additional: process.additionalGroups, passwd: Users.read("/etc/passwd"),
      group: Users.read("/etc/group"))
    var environment = process.environment
    if !environment.contains(where: { $0.hasPrefix("HOME=") }) { environment.append("HOME=\(identity.home)") }
    try makeWorkingDirectory(process.workingDirectory)
    finished("user")
    try awaitStart()
    try takeStreams(terminal: terminal)
    // /dev/stdout must open for a user who is not root, so the pipes become the user's (but not /dev/null).
    for number in 0..<Int32(3) where identity.user != 0 {
      var status = stat()
      if fstat(number, &status) == 0, status.st_mode & S_IFMT != S_IFCHR || terminal >= 0 {
        fchown(number, identity.user, UInt32.max)
      }
    }
    try Privileges.become(identity, capabilities: process.capabilities)
    // A change of credentials cleared it.
    _ = linux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0)
    _ = linux_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    try enterWorkingDirectory(process.workingDirectory)
    umask(0o022)
    finished("streams, user IDs")
    // Before the filter, which may not let it: each of the two loads its own.
    if usesInit {
      try Init.start(process, status: 3)
      finished("init")
    }
    try Privileges.finish(process)
    finished("seccomp")
    // As the user, so that what the user may not execute is found out here.
    let path = try Execute.find(name, environment: environment)
    Execute.resetSignals()
    finished("find command")
    // Without it the shim would wait for ever.
    guard StatusReport.send(.ready(log.steps), to: 3) else {
      throw SetupFailure(.internalFailure, "reporting to the shim: sendmsg: \(reason(errno))")
    }
    return Execute.run(path, name, process.arguments, environment)
  }
}

/// TIOCSWINSZ (ioctl_tty(2)).
func setSize(_ terminal: Int32, _ rows: UInt16, _ columns: UInt16) {
  var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
  _ = linux_ioctl_pointer(terminal, UInt(TIOCSWINSZ), &size)
}

extension StartPlan {
  /// It sees the host's cgroups as the host does.
  var sharesHostCgroups: Bool { otherNamespaces.contains { $0.kind == UInt32(CLONE_NEWCGROUP) } }
  /// Its /dev/shm is the host's or another container's.
  var sharesMemory: Bool { otherNamespaces.contains { $0.kind == UInt32(CLONE_NEWIPC) } }
}
