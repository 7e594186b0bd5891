import LinuxSystem

/// Which device nodes a container may open. It has CAP_MKNOD, so without this it could make a node of the host's disk
/// and read it. The list is that of Docker and runc (OCI runtime specification, "Default Devices").
///
/// It is set once on the engine's own group in the v1 `devices` hierarchy, which every unprivileged container enters:
/// they need no group each there. A privileged container stays outside. In v2 `DeviceProgram` does the same.
enum DeviceRules {
  /// Character devices that may be opened, by major and minor; a nil minor stands for all.
  static let opened: [(major: Int32, minor: Int32?)] = [
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9),  // null, zero, full, random, urandom
    (5, 0), (5, 1), (5, 2), (136, nil),  // tty, console, ptmx, pts
  ]

  /// As devices.allow takes them: making any node is allowed, opening only these.
  static let allowed =
    ["c *:* m", "b *:* m"] + opened.map { "c \($0.major):\($0.minor.map { "\($0)" } ?? "*") rwm" }

  /// Restricts a group. On one that is restricted already nothing is taken away, not even for a moment, because
  /// containers run in it.
  static func restrict(_ files: ControlFiles, _ group: Int32) throws(SystemCallError) {
    let lines = Set(((try? files.read(at: group, "devices.list")) ?? "a *:* rwm").split(separator: "\n"))
    if lines.contains("a *:* rwm") { try files.write(at: group, "devices.deny", "a") }
    for rule in allowed where !lines.contains(rule[...]) { try files.write(at: group, "devices.allow", rule) }
  }
}
