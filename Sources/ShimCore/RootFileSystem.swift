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
  private let provisions: Provisions
  private let root: OwnedDescriptor

  /// Makes the mount at `mount` the root of this process and lets go of the tree that was there.
  ///
  /// - Parameter isTreeEmpty: it has nothing to let go of. Then it stays beneath the new root, as the kernel's own first
  ///   root (rootfs) is beneath every other: no `..` leads there, and there is nothing there.
  init(plan: StartPlan, mount: Int32, isTreeEmpty: Bool, provisions: Provisions) throws(SetupFailure) {
    self.plan = plan
    self.provisions = provisions
    root = try stage("making the root") { () throws(SystemCallError) in
      if isTreeEmpty {
        try Mounts.attach(mount, at: AT_FDCWD, "/")
        try SystemCallError.check("fchdir") { fchdir(mount) }
        try SystemCallError.check("chroot") { chroot(".") }
      } else {
        try Mounts.pivot(to: mount)
      }
      try SystemCallError.check("chdir") { chdir("/") }
      return try Files.open("/", O_PATH | O_DIRECTORY)
    }
  }

  /// As mount(2) takes them; `MOUNT_ATTR_*` have the same values.
  private static let plain = UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC)

  /// /proc, /sys, /dev and what is below them. Links of the image are not followed: the kernel's file systems go to
  /// the root's own directories.
  ///
  /// They are mounted by mount(2), one call each, in a directory that was reached without links, or in a file system of
  /// this container's own that nobody else has seen: with detached mounts each takes eight calls, and these are on the way
  /// of every start. What is read-only is so as a mount: a whole file system (`MS_RDONLY` of a first mount) may be another
  /// container's too.
  func mountKernelFileSystems(host: HostPieces) throws(SetupFailure) {
    try place("proc", "proc", at: "proc", makes: true)
    try makeDevices(host: host)
    try place("sysfs", "sysfs", at: "sys", makes: true)
    if !plan.isPrivileged { try makeMountReadOnly("sys", recursive: false) }
    try mountCgroups(host.cgroups)
  }

  /// - Parameter shared: the host's own mounts, where its cgroup namespace is shared. Mounted anew from there, a unified
  ///   hierarchy would lose its options on the host too: they are those of whoever mounts it last from the first
  ///   cgroup namespace (kernel/cgroup/cgroup.c, `apply_cgroup_root_flags`).
  private func mountCgroups(_ shared: [Int32]) throws(SetupFailure) {
    if plan.cgroupMounts.isEmpty { return }
    let isUnified = plan.cgroupMounts.count == 1 && plan.cgroupMounts[0].key.isEmpty
    if isUnified, let mount = shared.first {
      let target = try open("sys/fs/cgroup")
      try stage("mounting the cgroups") { () throws(SystemCallError) in try Self.attach(mount, at: target.number, "") }
    } else if isUnified {
      try place("cgroup2", "cgroup", at: "sys/fs/cgroup", makes: false)
    } else {
      try place("tmpfs", "tmpfs", at: "sys/fs/cgroup", makes: false, options: "mode=755")
      let base = try open("sys/fs/cgroup")
      try stage("mounting the cgroups") { () throws(SystemCallError) in
        try SystemCallError.check("fchdir", "/sys/fs/cgroup") { fchdir(base.number) }
        for (index, hierarchy) in plan.cgroupMounts.enumerated() {
          try SystemCallError.check("mkdir", hierarchy.key) { mkdir(hierarchy.key, 0o755) }
          if shared.indices.contains(index) {
            try Self.attach(shared[index], at: base.number, hierarchy.key)
            continue
          }
          let type = hierarchy.value.isEmpty ? "cgroup2" : "cgroup"
          try SystemCallError.check("mount", "/sys/fs/cgroup/\(hierarchy.key)") {
            Glibc.mount("cgroup", hierarchy.key, type, Self.plain, hierarchy.value.isEmpty ? nil : hierarchy.value)
          }
        }
      }
    }
    if !plan.isPrivileged { try makeMountReadOnly("sys/fs/cgroup", recursive: true) }
  }

  /// Attaches a copy of a mount of the host's with the attributes of what is mounted here.
  private static func attach(_ mount: Int32, at directory: Int32, _ path: String) throws(SystemCallError) {
    try Mounts.setAttributes(mount, set: UInt64(plain), recursive: false)
    try Mounts.attach(mount, at: directory, path)
  }

  private func makeDevices(host: HostPieces) throws(SetupFailure) {
    var fresh: OwnedDescriptor?
    if provisions.devices < 0 {
      fresh = try stage("making /dev") { () throws(SystemCallError) in try Provisions.makeDevices() }
      if let number = fresh?.number { try Devices.populate(number) }
    }
    let devices = fresh?.number ?? provisions.devices
    let target = try open("dev", makes: true)
    try stage("mounting /dev") { () throws(SystemCallError) in
      try Mounts.attach(devices, at: target.number, "")
    }
    if !host.devices.isEmpty { try Devices.add(host.devices, to: devices) }
    try attach(provisions.terminals, at: "pts", of: devices, makingIt: Provisions.makeTerminals)
    if plan.hasSharedMemory {
      if host.sharedMemory >= 0 {
        try stage("mounting /dev/shm") { () throws(SystemCallError) in
          try Mounts.attach(host.sharedMemory, at: devices, "shm")
        }
      } else {
        let size = plan.sharedMemorySize
        let made = size == Provisions.sharedMemorySize ? provisions.sharedMemory : -1
        try attach(made, at: "shm", of: devices) { () throws(SystemCallError) in try Provisions.makeSharedMemory(size) }
      }
    }
    // Those that were made belong to the shim's namespace.
    let hasOwnQueues = plan.freshNamespaces & UInt32(CLONE_NEWIPC) != 0
    do throws(SystemCallError) {
      if hasOwnQueues, provisions.queues >= 0 {
        try Mounts.attach(provisions.queues, at: devices, "mqueue")
      } else {
        let queues = try Provisions.makeQueues()
        try Mounts.attach(queues.number, at: devices, "mqueue")
      }
    } catch {
      // A kernel without POSIX message queues: nothing in the container can miss them.
      if error.number == ENODEV { return }
      throw SetupFailure(.internalFailure, "mounting /dev/mqueue: \(error)")
    }
  }

  /// Attaches what was made ahead, or makes it.
  private func attach(
    _ made: Int32, at name: String, of devices: Int32,
    makingIt make: () throws(SystemCallError) -> OwnedDescriptor
  ) throws(SetupFailure) {
    try stage("mounting /dev/\(name)") { () throws(SystemCallError) in
      if made >= 0 { return try Mounts.attach(made, at: devices, name) }
      let fresh = try make()
      try Mounts.attach(fresh.number, at: devices, name)
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
    var empty = -1 as Int32
    for path in paths {
      // /proc is the kernel's own, and no volume lies in it: a path there leads where it says.
      var kind = stat()
      if path.hasPrefix("/proc/") {
        let isThere = stat(path, &kind) == 0
        if !isThere && errno == ENOENT { continue }
        if !isThere || kind.st_mode & S_IFMT != S_IFDIR {
          if Glibc.mount("/dev/null", path, nil, UInt(MS_BIND), nil) == 0 || errno == ENOENT { continue }
          throw SetupFailure(.internalFailure, "masking \(path): mount: \(reason(errno))")
        }
      }
      guard let target = try find(path) else { continue }
      var status = stat()
      guard fstat(target.number, &status) == 0 else { continue }
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      if isDirectory && empty < 0 {
        // The first is attached itself: closing a mount that is attached nowhere waits for the whole system. It stays open
        // until the command is executed.
        empty = try stage("masking \(path)") { () throws(SystemCallError) in
          let made = provisions.cover >= 0 ? provisions.cover : try Provisions.makeCover().release()
          try Mounts.attach(made, at: target.number, "")
          return made
        }
        continue
      }
      let source = isDirectory ? empty : null.number
      try stage("masking \(path)") { () throws(SystemCallError) in
        let cover = try Mounts.clone(at: source, "", recursive: false)
        try Mounts.attach(cover.number, at: target.number, "")
      }
    }
  }

  func makeReadOnly(_ paths: [String]) throws(SetupFailure) {
    for path in paths {
      if path.hasPrefix("/proc/") {
        let failure = Glibc.mount(path, path, nil, UInt(MS_BIND | MS_REC), nil) == 0 ? 0 : errno
        if failure == ENOENT { continue }
        try stage("making \(path) read-only") { () throws(SystemCallError) in
          if failure != 0 { throw SystemCallError(call: "mount", subject: path, number: failure) }
          try SystemCallError.check("mount", path) {
            Glibc.mount(nil, path, nil, UInt(MS_REMOUNT | MS_BIND | MS_RDONLY) | Self.plain, nil)
          }
        }
        continue
      }
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

  /// Mounts a file system of the kernel's at a directory of the root itself.
  private func place(
    _ type: String, _ source: String, at path: String, makes: Bool, options: String? = nil
  ) throws(SetupFailure) {
    let target = try open(path, makes: makes)
    try stage("mounting /\(path)") { () throws(SystemCallError) in
      try SystemCallError.check("fchdir", "/\(path)") { fchdir(target.number) }
      try SystemCallError.check("mount", "/\(path)") { Glibc.mount(source, ".", type, Self.plain, options) }
    }
  }

  /// The mount at a path that `open` found free of links; the file system behind it stays as it is.
  private func makeMountReadOnly(_ path: String, recursive: Bool) throws(SetupFailure) {
    let mount = try open(path)
    try stage("making /\(path) read-only") { () throws(SystemCallError) in
      try Mounts.setAttributes(mount.number, set: UInt64(MOUNT_ATTR_RDONLY), recursive: recursive)
    }
  }

  /// Opens a directory of the root itself, reached without any link.
  private func open(_ path: String, makes: Bool = false) throws(SetupFailure) -> OwnedDescriptor {
    try stage("opening /\(path)") { () throws(SystemCallError) in
      var how = open_how()
      how.flags = UInt64(O_PATH | O_DIRECTORY | O_CLOEXEC)
      how.resolve = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
      var number = linux_openat2(root.number, path, &how)
      if number < 0, errno == ENOENT, makes {
        try SystemCallError.check("mkdirat", "/\(path)") { mkdirat(root.number, path, 0o755) }
        number = linux_openat2(root.number, path, &how)
      }
      return OwnedDescriptor(adopting: try SystemCallError.check("openat2", "/\(path)") { number })
    }
  }
}
