import CLinux
import Glibc
import LinuxSystem

/// A device node of the host, which a privileged container gets too.
struct DeviceNode {
  var path: String
  var mode: UInt32
  var device: UInt64
}

/// What is taken from the host's tree before it is let go of.
struct HostPieces {
  /// Every device of the host for a privileged container; empty for others.
  var devices: [DeviceNode] = []
  /// The /dev/shm of the host or of another container, where the IPC namespace is shared with it.
  /// -1 for none; closed with everything else before the command runs.
  var sharedMemory: Int32 = -1
  /// The host's cgroup hierarchies in the plan's order, where its cgroup namespace is shared.
  var cgroups: [Int32] = []
}

/// The nodes of /dev (OCI runtime specification, config-linux.md, "Default Devices").
enum Devices {
  private static let standard: [(name: String, major: UInt32, minor: UInt32)] = [
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
  ]
  private static let links: [(name: String, target: String)] = [
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("core", "/proc/kcore"), ("ptmx", "pts/ptmx"),
  ]
  private static let directories = ["pts", "shm", "mqueue"]

  static func populate(_ directory: Int32) throws(SetupFailure) {
    let mask = umask(0)
    defer { umask(mask) }
    try stage("making the devices") { () throws(SystemCallError) in
      for device in standard {
        try SystemCallError.check("mknodat", "/dev/\(device.name)") {
          mknodat(directory, device.name, S_IFCHR | 0o666, makedev(device.major, device.minor))
        }
      }
      for link in links {
        try SystemCallError.check("symlinkat", "/dev/\(link.name)") { symlinkat(link.target, directory, link.name) }
      }
      for name in directories {
        try SystemCallError.check("mkdirat", "/dev/\(name)") { mkdirat(directory, name, 0o755) }
      }
    }
  }

  /// Adds what a privileged container has.
  static func add(_ nodes: [DeviceNode], to directory: Int32) throws(SetupFailure) {
    let mask = umask(0)
    defer { umask(mask) }
    try stage("making the devices") { () throws(SystemCallError) in
      for node in nodes { try make(node, in: directory) }
    }
  }

  private static func make(_ node: DeviceNode, in directory: Int32) throws(SystemCallError) {
    let parts = node.path.split(separator: "/")
    var parent = ""
    for part in parts.dropLast() {
      parent += parent.isEmpty ? String(part) : "/\(part)"
      if mkdirat(directory, parent, 0o755) != 0, errno != EEXIST {
        throw SystemCallError(call: "mkdirat", subject: "/dev/\(parent)", number: errno)
      }
    }
    if mknodat(directory, node.path, node.mode, dev_t(node.device)) != 0, errno != EEXIST {
      throw SystemCallError(call: "mknodat", subject: "/dev/\(node.path)", number: errno)
    }
  }

  /// The device nodes beneath the host's /dev, without terminals and what other mounts there hold.
  static func ofHost() -> [DeviceNode] {
    guard let top = Files.status("/dev") else { return [] }
    var nodes: [DeviceNode] = []
    collect("", depth: 0, device: top.st_dev, into: &nodes)
    return nodes
  }

  private static func collect(_ path: String, depth: Int, device: dev_t, into nodes: inout [DeviceNode]) {
    guard depth < 8, let names = try? Files.list(path.isEmpty ? "/dev" : "/dev/\(path)") else { return }
    for name in names where !(path.isEmpty && ["console", "ptmx"].contains(name)) {
      let child = path.isEmpty ? name : "\(path)/\(name)"
      var status = stat()
      guard lstat("/dev/\(child)", &status) == 0, status.st_dev == device else { continue }
      switch status.st_mode & S_IFMT {
      case S_IFDIR: collect(child, depth: depth + 1, device: device, into: &nodes)
      case S_IFCHR, S_IFBLK:
        nodes.append(DeviceNode(path: child, mode: status.st_mode, device: UInt64(status.st_rdev)))
      default: break
      }
    }
  }
}

/// makedev(3), which is a macro.
func makedev(_ major: UInt32, _ minor: UInt32) -> dev_t {
  gnu_dev_makedev(major, minor)
}
