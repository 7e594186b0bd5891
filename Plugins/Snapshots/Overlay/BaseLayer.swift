import Glibc
import LinuxSystem

/// The lowest layer of every container: what the runtime mounts over, for images that lack it. Without it each start
/// would make these entries in the container's own layer, and each removal would take them away again.
enum BaseLayer {
  private static let directories = ["dev", "etc", "proc", "sys"]
  private static let files = ["etc/hostname", "etc/hosts", "etc/resolv.conf"]

  /// Makes what is missing of it. The modes are set in any case, because a crash may have come before they were.
  static func make(at path: String) throws(SystemCallError) {
    try makeDirectory(path)
    for name in directories { try makeDirectory("\(path)/\(name)") }
    for name in files {
      let file = try Files.open("\(path)/\(name)", O_RDONLY | O_CREAT, mode: 0o644)
      try SystemCallError.check("fchmod", name) { fchmod(file.number, 0o644) }
    }
  }

  /// A directory that everybody may enter, whatever the daemon's umask.
  static func makeDirectory(_ path: String) throws(SystemCallError) {
    try Files.makeDirectory(path, mode: 0o755)
    try SystemCallError.check("chmod", path) { chmod(path, 0o755) }
  }
}
