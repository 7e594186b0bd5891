import Glibc
import LinuxSystem

/// Where a driver under examination keeps its state: a directory of `/tmp` that is locked (flock(2)) for as long as the
/// examination lives. The next examination removes those whose lock nobody has any more.
struct VerificationDirectory: ~Copyable {
  private static let place = "/tmp"
  private static let prefix = "engine-verify-"

  let path: String
  private let lock: OwnedDescriptor

  init() throws(SystemCallError) {
    Self.removeOrphans()
    for _ in 0..<16 {
      var template = Array("\(Self.place)/\(Self.prefix)XXXXXX".utf8CString)
      guard mkdtemp(&template) != nil else {
        throw SystemCallError(call: "mkdtemp", subject: Self.place, number: errno)
      }
      let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
      // Until it is locked, another examination may take it for an orphan.
      if let lock = try? Self.lock(path), Files.exists(path) {
        self.path = path
        self.lock = lock
        return
      }
    }
    throw SystemCallError(call: "flock", subject: Self.place, number: EAGAIN)
  }

  /// What the driver has mounted in it is not its own to delete.
  ///
  /// - Returns: what stays, in words.
  consuming func remove() -> String? { Self.remove(path) }

  private static func lock(_ path: String) throws(SystemCallError) -> OwnedDescriptor {
    let directory = try Files.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    try SystemCallError.check("flock", path) { flock(directory.number, LOCK_EX | LOCK_NB) }
    return directory
  }

  private static func removeOrphans() {
    for name in (try? Files.list(place)) ?? [] where name.hasPrefix(prefix) {
      let path = "\(place)/\(name)"
      // Anybody may make such a name in /tmp.
      guard let directory = try? lock(path) else { continue }
      var status = stat()
      guard fstat(directory.number, &status) == 0, status.st_uid == geteuid() else { continue }
      _ = withExtendedLifetime(directory) { remove(path) }
    }
  }

  private static func remove(_ path: String) -> String? {
    let lines = ((try? Files.readText("/proc/self/mountinfo")) ?? "").split(separator: "\n")
    for line in lines.reversed() {
      let fields = line.split(separator: " ")
      guard fields.count > 4, fields[4].hasPrefix(path + "/") else { continue }
      let mount = unescaped(fields[4])
      if umount2(mount, Int32(MNT_DETACH) | Int32(UMOUNT_NOFOLLOW)) != 0 {
        return "\(mount) cannot be unmounted, so \(path) stays: \(SystemCallError.text(errno))"
      }
    }
    do throws(SystemCallError) {
      try Files.removeTree(path)
      return nil
    } catch {
      return "\(path) stays: \(error)"
    }
  }

  /// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits (proc_pid_mountinfo(5)).
  private static func unescaped(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "\\"), let value = UInt8(String(rest.prefix(3)) ?? "", radix: 8) {
        bytes.append(value)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
