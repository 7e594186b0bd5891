import CLinux
import Glibc
import LinuxSystem

/// The edge to the cgroup file systems: every call on them goes through here, relative to an open directory.
///
/// A simulated tree is a plain directory for tests of what this machine does not mount: a written file is made where
/// the kernel would have it, and removing a group removes its files with it, as rmdir(2) does on a cgroup.
struct ControlFiles: Sendable {
  var isSimulated = false

  func makeDirectory(at parent: Int32, _ name: String) throws(SystemCallError) {
    try SystemCallError.check("mkdirat", name) { mkdirat(parent, name, 0o755) }
  }

  /// One write(2), which is how control files take a value.
  func write(at parent: Int32, _ path: String, _ value: String) throws(SystemCallError) {
    let file = try Files.open(
      at: parent, path, isSimulated ? O_WRONLY | O_CREAT | O_TRUNC : O_WRONLY, mode: 0o644)
    try SystemCallError.check("write", "\(path) \(value)") { Glibc.write(file.number, value, value.utf8.count) }
  }

  func read(at parent: Int32, _ path: String) throws(SystemCallError) -> String {
    let file = try Files.open(at: parent, path, O_RDONLY)
    return String(decoding: try Files.readAll(file.number, subject: path), as: UTF8.self)
  }

  /// The file through which a process enters a group.
  func openEntry(at parent: Int32, _ path: String) throws(SystemCallError) -> OwnedDescriptor {
    try Files.open(at: parent, path, isSimulated ? O_WRONLY | O_CREAT : O_WRONLY, mode: 0o644)
  }

  /// The names of the groups in a group.
  func groups(at parent: Int32, _ path: String) throws(SystemCallError) -> [String] {
    let directory = try Files.open(at: parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).release()
    guard let stream = fdopendir(directory) else {
      let number = errno
      close(directory)
      throw SystemCallError(call: "fdopendir", subject: path, number: number)
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      guard entry.pointee.d_type == DT_DIR else { continue }
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }

  /// Removes a group.
  ///
  /// - Returns: false when it is still in use (EBUSY); true also when there is none.
  func removeDirectory(at parent: Int32, _ path: String) throws(SystemCallError) -> Bool {
    if isSimulated {
      try Files.removeTree("/proc/self/fd/\(parent)/\(path)")
      return true
    }
    do {
      try SystemCallError.check("rmdir", path) { unlinkat(parent, path, Int32(AT_REMOVEDIR)) }
    } catch  where error.number == ENOENT {
    } catch  where error.number == EBUSY {
      return false
    }
    return true
  }
}
