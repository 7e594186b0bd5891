import Glibc
import LinuxSystem

/// The cgroup hierarchies of this machine as they were, and what the benchmarks leave in them: nothing.
struct CgroupPlaces {
  struct Hierarchy {
    var path: String
    var isUnified: Bool
    /// The controllers of a hierarchy of version 1, or those that are enabled below the root of version 2.
    var controllers: [String]
  }

  let hierarchies: [Hierarchy]

  init() {
    let lines = ((try? Files.readText("/proc/self/mountinfo")) ?? "").split(separator: "\n")
    var found: [Hierarchy] = []
    for line in lines {
      let fields = line.split(separator: " ")
      guard let dash = fields.firstIndex(of: "-"), fields.count > dash + 3, fields.count > 4 else { continue }
      let path = String(fields[4])
      if found.contains(where: { $0.path == path }) { continue }
      switch fields[dash + 1] {
      case "cgroup2":
        found.append(Hierarchy(path: path, isUnified: true, controllers: Self.enabled(path)))
      case "cgroup":
        found.append(
          Hierarchy(path: path, isUnified: false, controllers: fields[dash + 3].split(separator: ",").map(String.init)))
      default: break
      }
    }
    hierarchies = found
  }

  /// Those in which the engine gives every container a group (`ContainerGroups` of the cgroups plugin).
  var forContainers: [String] {
    hierarchies.filter { $0.isUnified || $0.controllers.contains("memory") || $0.controllers.contains("cpu") }.map(
      \.path)
  }

  /// Removes groups of these names, and disables the controllers that the engine has enabled for them.
  func restore(_ names: [String]) {
    for hierarchy in hierarchies {
      for name in names { Self.remove("\(hierarchy.path)/\(name)") }
      guard hierarchy.isUnified else { continue }
      for controller in Self.enabled(hierarchy.path) where !hierarchy.controllers.contains(controller) {
        try? Files.writeControl("\(hierarchy.path)/cgroup.subtree_control", "-\(controller)")
      }
    }
  }

  private static func enabled(_ path: String) -> [String] {
    ((try? Files.readText("\(path)/cgroup.subtree_control")) ?? "").split(whereSeparator: \.isWhitespace)
      .map(String.init)
  }

  /// Removes a group with the groups in it. What ends in them at this moment may keep them for a little while.
  private static func remove(_ path: String) {
    for attempt in 0..<100 {
      if rmdir(path) == 0 || errno == ENOENT { return }
      if attempt > 0 { usleep(10_000) }
      for name in (try? Files.list(path)) ?? [] where Files.isDirectory("\(path)/\(name)") { remove("\(path)/\(name)") }
    }
  }
}
