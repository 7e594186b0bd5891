import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// One hierarchy with the engine's own group at its top, beneath which every container has a group.
///
/// Nothing outside the engine's own group is changed, with one exception that the kernel demands: in the unified
/// hierarchy a controller must be enabled in the root's `cgroup.subtree_control` before a group below can use it
/// (cgroup-v2, "Enabling and Disabling"). That is only ever added to.
final class CgroupHierarchy: Sendable {
  let mount: CgroupMount
  /// The name of the engine's own group.
  let name: String
  let files: ControlFiles
  private let opened = Mutex<Descriptor?>(nil)
  private let enabled = Mutex<Set<String>>([])

  init(mount: CgroupMount, name: String, files: ControlFiles) {
    self.mount = mount
    self.name = name
    self.files = files
  }

  /// The path of the engine's group.
  var path: String { "\(mount.path)/\(name)" }

  /// The controllers that a container's group may use: in v2 those that could be enabled.
  func carries(_ controller: String) -> Bool { mount.controllers.contains(controller) }

  /// The engine's group, made and prepared when it is asked for the first time.
  func directory() throws(SystemCallError) -> Descriptor {
    try opened.withLock { (opened) throws(SystemCallError) -> Descriptor in
      if let opened { return opened }
      let root = try Files.open(mount.path, O_RDONLY | O_DIRECTORY)
      do throws(SystemCallError) {
        try files.makeDirectory(at: root.number, name)
      } catch  where error.number == EEXIST {}
      let group = Descriptor(adopting: try Files.open(at: root.number, name, O_RDONLY | O_DIRECTORY).release())
      if mount.version == .v1 {
        if carries("cpuset") { try inheritCPUSet(root: root.number, group: group.number) }
        if carries("devices") { try DeviceRules.restrict(files, group.number) }
      }
      opened = group
      return group
    }
  }

  /// The engine's group, if this process has prepared it.
  var openedDirectory: Descriptor? { opened.withLock { $0 } }

  /// The engine's group, if it is there; never makes it.
  func existingDirectory() -> Descriptor? {
    if let opened = openedDirectory { return opened }
    guard let group = try? Files.open(path, O_RDONLY | O_DIRECTORY) else { return nil }
    return Descriptor(adopting: group.release())
  }

  /// A v1 cpuset is empty when it is made, and takes no process before it has CPUs and memory nodes.
  private func inheritCPUSet(root: Int32, group: Int32) throws(SystemCallError) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
      let own = (try? files.read(at: group, file))?.trimmed ?? ""
      if own.isEmpty { try files.write(at: group, file, try files.read(at: root, file).trimmed) }
    }
  }

  /// Enables controllers of the unified hierarchy for the containers' groups.
  ///
  /// - Returns: those that could not be enabled.
  func enable(_ controllers: [String]) throws(SystemCallError) -> [String] {
    guard mount.version == .v2 else { return [] }
    let group = try directory()
    let wanted = enabled.withLock { enabled in
      controllers.filter { mount.controllers.contains($0) && !enabled.contains($0) }
    }
    var refused = controllers.filter { !mount.controllers.contains($0) }
    if wanted.isEmpty { return refused }
    let root = try Files.open(mount.path, O_RDONLY | O_DIRECTORY)
    for controller in wanted {
      do {
        try files.write(at: root.number, "cgroup.subtree_control", "+\(controller)")
        try files.write(at: group.number, "cgroup.subtree_control", "+\(controller)")
        enabled.withLock { _ = $0.insert(controller) }
      } catch {
        refused.append(controller)
      }
    }
    return refused
  }

  /// Removes the engine's own group if no container's group is in it.
  ///
  /// - Returns: false when it is still in use.
  func close() throws(SystemCallError) -> Bool {
    opened.withLock { $0 = nil }
    enabled.withLock { $0 = [] }
    guard let root = try? Files.open(mount.path, O_RDONLY | O_DIRECTORY) else { return true }
    if files.isSimulated, let group = existingDirectory(), try !files.groups(at: group.number, ".").isEmpty {
      return false
    }
    return try files.removeDirectory(at: root.number, name)
  }
}

extension String {
  var trimmed: String {
    var text = self[...]
    while let last = text.last, last.isWhitespace { text.removeLast() }
    while let first = text.first, first.isWhitespace { text.removeFirst() }
    return String(text)
  }
}
