import CLinux
import Contracts
import Glibc
import LinuxSystem

extension ContainerGroups {
  /// Milliseconds that the kernel may take for stopping every process.
  private static let patience: Int32 = 10_000

  /// Stops or continues a container's processes (cgroup-v2, `cgroup.freeze`; cgroup-v1, freezer-subsystem).
  func freeze(_ container: ObjectID, _ isFrozen: Bool) throws(EngineError) {
    let group = try group(container)
    let isUnified = hierarchy(of: "unified") != nil
    guard let hierarchy = hierarchy(of: isUnified ? "unified" : "freezer"),
      let parent = hierarchy.existingDirectory()
    else { throw EngineError(.unsupported, "this machine has no cgroup that can freeze processes") }
    do throws(SystemCallError) {
      if isUnified {
        try hierarchy.files.write(at: parent.number, "\(group.name)/cgroup.freeze", isFrozen ? "1" : "0")
        try waitUntil(hierarchy, parent.number, "\(group.name)/cgroup.events", "frozen \(isFrozen ? 1 : 0)")
      } else {
        // It says FREEZING until the last process has stopped, and looking moves it on.
        let state = isFrozen ? "FROZEN" : "THAWED"
        try hierarchy.files.write(at: parent.number, "\(group.name)/freezer.state", state)
        try waitUntil(hierarchy, parent.number, "\(group.name)/freezer.state", state)
      }
    } catch {
      if isFrozen { try? thaw(container) }
      throw EngineError(.internalFailure, "the processes of \(container.short) cannot be frozen: \(error)")
    }
  }

  private func thaw(_ container: ObjectID) throws(EngineError) { try freeze(container, false) }

  /// Waits until a control file has a line; the kernel wakes who polls it when it changes.
  private func waitUntil(
    _ hierarchy: CgroupHierarchy, _ parent: Int32, _ path: String, _ line: String
  ) throws(SystemCallError) {
    if hierarchy.files.isSimulated { return }
    let file = try Files.open(at: parent, path, O_RDONLY)
    var left = Self.patience
    while true {
      try SystemCallError.check("lseek", path) { lseek(file.number, 0, SEEK_SET) }
      let text = String(decoding: try Files.readAll(file.number, subject: path), as: UTF8.self)
      if text.split(separator: "\n").contains(line[...]) { return }
      if left <= 0 { throw SystemCallError(call: "poll", subject: path, number: ETIMEDOUT) }
      var waiting = pollfd(fd: file.number, events: Int16(POLLPRI), revents: 0)
      // Files of v1 tell of no change.
      let pause: Int32 = path.hasSuffix("cgroup.events") ? 1000 : 5
      poll(&waiting, 1, pause)
      left -= pause
    }
  }
}
