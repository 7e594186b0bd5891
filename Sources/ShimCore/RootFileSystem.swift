import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// Builds the container's file system in its new mount namespace: called in the child, once, in this order.
///
/// The root comes first and everything else is resolved inside it after pivot_root(2): the host's tree is out of reach
/// by then, so that no link, `..` or race in the image leads there (CVE-2021-30465).
struct RootFileSystem: ~Copyable {
  let plan: StartPlan
  private let root: OwnedDescriptor

  /// Makes the mount at `mount` the root of this process and lets go of the host's tree.
  init(plan: StartPlan, mount: Int32) throws(SetupFailure) {
    self.plan = plan
    root = try stage("making the root") { () throws(SystemCallError) in
      try SystemCallError.check("mount", "/") { Glibc.mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil) }
      try Mounts.attach(mount, at: AT_FDCWD, "/")
      try SystemCallError.check("fchdir") { fchdir(mount) }
      try SystemCallError.check("pivot_root") { linux_pivot_root(".", ".") }
      // The host's tree is now on top of the new root; without it `/` is the container's.
      try SystemCallError.check("umount2") { umount2(".", Int32(MNT_DETACH)) }
      try SystemCallError.check("chdir") { chdir("/") }
      return try Files.open("/", O_PATH | O_DIRECTORY)
    }
  }

  /// /proc, /sys, /dev and what is below them. Links of the image are not followed: the kernel's file systems go to
  /// the root's own directories.
  func mountKernelFileSystems(host: HostPieces) throws(SetupFailure) {
    let plain = UInt32(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    try place("proc", "proc", plain, at: "proc", mode: 0o555)
    try makeDevices(host: host)
    let sysfs = plan.isPrivileged ? plain : plain | UInt32(MOUNT_ATTR_RDONLY)
    try place("sysfs", "sysfs", sysfs, at: "sys", mode: 0o555)
    try mountCgroups(plain)
  }

  private func mountCgroups(_ plain: UInt32) throws(SetupFailure) {
    if plan.cgroupMounts.isEmpty { return }
    let attributes = plan.isPrivileged ? plain : plain | UInt32(MOUNT_ATTR_RDONLY)
    let isUnified = plan.cgroupMounts.count == 1 && plan.cgroupMounts[0].key.isEmpty
    if isUnified { return try place("cgroup2", "cgroup", attributes, at: "sys/fs/cgroup", mode: 0o755, make: false) }
    let base = try stage("making /sys/fs/cgroup") { () throws(SystemCallError) in
      try Mounts.make("tmpfs", [.value("source", "tmpfs"), .value("mode", "755")], attributes: plain)
    }
    try attach(base.number, at: "sys/fs/cgroup", make: false)
    for hierarchy in plan.cgroupMounts {
      try stage("mounting the cgroups \(hierarchy.key)") { () throws(SystemCallError) in
        try SystemCallError.check("mkdirat", hierarchy.key) { mkdirat(base.number, hierarchy.key, 0o755) }
        let mount =
          hierarchy.value.isEmpty
          ? try Mounts.make("cgroup2", [.value("source", "cgroup")], attributes: attributes)
          : try Mounts.make("cgroup", options(hierarchy.value), attributes: attributes)
        try Mounts.attach(mount.number, at: base.number, hierarchy.key)
      }
    }
    if !plan.isPrivileged {
      try stage("making /sys/fs/cgroup read-only") { () throws(SystemCallError) in
        try Mounts.setAttributes(base.number, set: UInt64(MOUNT_ATTR_RDONLY), recursive: false)
      }
    }
  }

  /// `cpu,cpuacct` or `name=systemd` as options of fsconfig(2).
  private func options(_ text: String) -> [Mounts.Option] {
    [.value("source", "cgroup")]
      + text.split(separator: ",").map { part in
        guard let sign = part.firstIndex(of: "=") else { return .flag(String(part)) }
        return .value(String(part[..<sign]), String(part[part.index(after: sign)...]))
      }
  }

  private func makeDevices(host: HostPieces) throws(SetupFailure) {
    let devices = try stage("making /dev") { () throws(SystemCallError) in
      try Mounts.make(
        "tmpfs", [.value("source", "tmpfs"), .value("mode", "755"), .value("size", "65536k")],
        attributes: UInt32(MOUNT_ATTR_NOSUID))
    }
    try attach(devices.number, at: "dev", make: true)
    try Devices.populate(devices.number, privileged: host.devices)
    let quiet = UInt32(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    try stage("mounting /dev/pts") { () throws(SystemCallError) in
      let terminals = try Mounts.make(
        "devpts",
        [.value("source", "devpts"), .value("mode", "0620"), .value("gid", "5"), .value("ptmxmode", "0666")],
        attributes: quiet)
      try Mounts.attach(terminals.number, at: devices.number, "pts")
    }
    let plain = quiet | UInt32(MOUNT_ATTR_NODEV)
    try stage("mounting /dev/shm") { () throws(SystemCallError) in
      guard plan.hasSharedMemory else { return }
      if host.sharedMemory >= 0 { return try Mounts.attach(host.sharedMemory, at: devices.number, "shm") }
      let shared = try Mounts.make(
        "tmpfs",
        [.value("source", "shm"), .value("mode", "1777"), .value("size", String(plan.sharedMemorySize))],
        attributes: plain)
      try Mounts.attach(shared.number, at: devices.number, "shm")
    }
    try stage("mounting /dev/mqueue") { () throws(SystemCallError) in
      do throws(SystemCallError) {
        let queues = try Mounts.make("mqueue", [.value("source", "mqueue")], attributes: plain)
        try Mounts.attach(queues.number, at: devices.number, "mqueue")
      } catch  where error.number == ENODEV {
        // A kernel without POSIX message queues: nothing in the container can miss them.
      }
    }
  }

  /// The volumes and the files that the engine writes, in the plan's order; later ones may lie in earlier ones.
  func attachVolumes(_ mounts: [Int32]) throws(SetupFailure) {
    for (plan, mount) in zip(plan.mounts, mounts) {
      let target = try makeTarget(plan.target, isDirectory: plan.isDirectory)
      try stage("mounting \(plan.target)") { () throws(SystemCallError) in
        try Mounts.attach(mount, at: target.number, "")
      }
    }
  }

  /// Opens the place of a mount, making what is missing of it. It must not be in /proc, where a mount would hide from
  /// the kernel's interfaces what later steps rely on (CVE-2019-16884).
  func makeTarget(_ path: String, isDirectory: Bool) throws(SetupFailure) -> OwnedDescriptor {
    let target = try stage("making the mount point \(path)") { () throws(SystemCallError) in
      do throws(SystemCallError) {
        return try Files.open(inRoot: root.number, path, O_PATH)
      } catch  where error.number == ENOENT {
        try makeMissing(path, isDirectory: isDirectory)
        return try Files.open(inRoot: root.number, path, O_PATH)
      }
    }
    var system = statfs()
    if fstatfs(target.number, &system) == 0, system.f_type == Int(PROC_SUPER_MAGIC) {
      throw SetupFailure(.invalidArgument, "\(path) cannot be mounted because it is inside /proc")
    }
    var status = stat()
    if fstat(target.number, &status) == 0, (status.st_mode & S_IFMT == S_IFDIR) != isDirectory {
      let kinds = isDirectory ? "a directory onto a file" : "a file onto a directory"
      throw SetupFailure(.invalidArgument, "\(path) cannot be mounted: that would be \(kinds)")
    }
    return target
  }

  /// Makes the components of `path` one after the other, each found or made beneath the root.
  private func makeMissing(_ path: String, isDirectory: Bool) throws(SystemCallError) {
    let components = path.split(separator: "/")
    var made = ""
    for (index, component) in components.enumerated() {
      let parent = try Files.open(inRoot: root.number, made.isEmpty ? "/" : made, O_PATH | O_DIRECTORY)
      made += "/\(component)"
      let isLast = index == components.count - 1
      if component == ".." || component == "." { continue }
      if isLast && !isDirectory {
        _ = try Files.open(at: parent.number, String(component), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, mode: 0o644)
      } else {
        do throws(SystemCallError) {
          try SystemCallError.check("mkdirat", made) { mkdirat(parent.number, String(component), 0o755) }
        } catch  where error.number == EEXIST {}
      }
    }
  }

  /// Hides files behind /dev/null and directories behind one empty read-only file system.
  func mask(_ paths: [String]) throws(SetupFailure) {
    if paths.isEmpty { return }
    // The node was made by `Devices` on a file system of this container's own; still it is looked at before it is
    // used, because a file in its place would become the content of every masked file (CVE-2025-31133).
    let null = try stage("opening /dev/null") { () throws(SystemCallError) in
      try Files.open("/dev/null", O_PATH | O_NOFOLLOW)
    }
    var status = stat()
    guard fstat(null.number, &status) == 0, status.st_mode & S_IFMT == S_IFCHR, status.st_rdev == makedev(1, 3) else {
      throw SetupFailure(.internalFailure, "masking paths: /dev/null is not the null device")
    }
    var empty: OwnedDescriptor?
    for path in paths {
      guard let target = try find(path) else { continue }
      var status = stat()
      guard fstat(target.number, &status) == 0 else { continue }
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      if isDirectory && empty == nil {
        empty = try stage("masking \(path)") { () throws(SystemCallError) in
          try Mounts.make(
            "tmpfs", [.value("source", "tmpfs"), .value("nr_inodes", "2")], attributes: UInt32(MOUNT_ATTR_RDONLY))
        }
      }
      let source = isDirectory ? empty?.number ?? -1 : null.number
      try stage("masking \(path)") { () throws(SystemCallError) in
        let cover = try Mounts.clone(at: source, "", recursive: false)
        try Mounts.attach(cover.number, at: target.number, "")
      }
    }
  }

  func makeReadOnly(_ paths: [String]) throws(SetupFailure) {
    for path in paths {
      guard let target = try find(path) else { continue }
      try stage("making \(path) read-only") { () throws(SystemCallError) in
        let copy = try Mounts.clone(at: target.number, "", recursive: true)
        try Mounts.setAttributes(copy.number, set: UInt64(MOUNT_ATTR_RDONLY), recursive: true)
        try Mounts.attach(copy.number, at: target.number, "")
      }
    }
  }

  /// Sets what /proc/sys has for the container's namespaces. A path is a path there: no `..`, no leading slash.
  func set(_ controls: [PairPlan]) throws(SetupFailure) {
    for control in controls {
      let path = control.key.contains("/") ? control.key : String(control.key.map { $0 == "." ? "/" : $0 })
      guard !path.hasPrefix("/"), !path.split(separator: "/").contains("..") else {
        throw SetupFailure(.invalidArgument, "sysctl \"\(control.key)\" is not a name of a kernel parameter")
      }
      try stage("setting the sysctl \(control.key)") { () throws(SystemCallError) in
        try Files.writeControl("/proc/sys/\(path)", control.value)
      }
    }
  }

  func makeRootReadOnly() throws(SetupFailure) {
    // A new look at "/": `root` was opened while it was already the root, so it is the same mount.
    try stage("making the root read-only") { () throws(SystemCallError) in
      try Mounts.setAttributes(root.number, set: UInt64(MOUNT_ATTR_RDONLY), recursive: false)
    }
  }

  private func find(_ path: String) throws(SetupFailure) -> OwnedDescriptor? {
    try stage("opening \(path)") { () throws(SystemCallError) -> OwnedDescriptor? in
      do throws(SystemCallError) {
        return try Files.open(inRoot: root.number, path, O_PATH)
      } catch  where error.number == ENOENT || error.number == ENOTDIR {
        return nil
      }
    }
  }

  private func place(
    _ type: String, _ source: String, _ attributes: UInt32, at path: String, mode: UInt32, make: Bool = true
  ) throws(SetupFailure) {
    let mount = try stage("mounting /\(path)") { () throws(SystemCallError) in
      try Mounts.make(type, [.value("source", source)], attributes: attributes)
    }
    try attach(mount.number, at: path, make: make)
  }

  /// Attaches at a directory of the root itself, reached without any link.
  private func attach(_ mount: Int32, at path: String, make: Bool) throws(SetupFailure) {
    try stage("mounting /\(path)") { () throws(SystemCallError) in
      if make {
        do throws(SystemCallError) {
          try SystemCallError.check("mkdirat", "/\(path)") { mkdirat(root.number, path, 0o755) }
        } catch  where error.number == EEXIST {}
      }
      var how = open_how()
      how.flags = UInt64(O_PATH | O_DIRECTORY | O_CLOEXEC)
      how.resolve = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
      let target = OwnedDescriptor(
        adopting: try SystemCallError.check("openat2", "/\(path)") { linux_openat2(root.number, path, &how) })
      try Mounts.attach(mount, at: target.number, "")
    }
  }
}
