import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Adds up what a tree holds.
enum Usage {
  private struct Inode: Hashable {
    var device: dev_t
    var number: ino_t
  }

  /// Bytes of the regular files beneath a directory, a file with several names counted once; 0 where nothing is.
  static func bytes(beneath path: String) throws(EngineError) -> Int64 {
    var seen: Set<Inode> = []
    do {
      return try add(AT_FDCWD, path, depth: 0, &seen)
    } catch {
      throw EngineError(.internalFailure, "the container's layer cannot be measured: \(error)")
    }
  }

  /// Beyond 512 levels nothing is counted: each level holds a descriptor.
  private static func add(
    _ parent: Int32, _ name: UnsafePointer<CChar>, depth: Int, _ seen: inout Set<Inode>
  ) throws(SystemCallError) -> Int64 {
    let descriptor = linux_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
    guard descriptor >= 0, let stream = fdopendir(descriptor) else {
      if errno == ENOENT { return 0 }
      throw SystemCallError(call: "openat", subject: String(cString: name), number: errno)
    }
    defer { closedir(stream) }
    var total: Int64 = 0
    while let entry = readdir(stream) {
      total += try withUnsafePointer(to: &entry.pointee.d_name) { (tuple) throws(SystemCallError) -> Int64 in
        try tuple.withMemoryRebound(to: CChar.self, capacity: 256) { (child) throws(SystemCallError) -> Int64 in
          if strcmp(child, ".") == 0 || strcmp(child, "..") == 0 { return 0 }
          var status = stat()
          guard fstatat(descriptor, child, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return 0 }
          switch status.st_mode & S_IFMT {
          case S_IFREG:
            if status.st_nlink > 1, !seen.insert(Inode(device: status.st_dev, number: status.st_ino)).inserted {
              return 0
            }
            return Int64(status.st_size)
          case S_IFDIR: return depth < 512 ? try add(descriptor, child, depth: depth + 1, &seen) : 0
          default: return 0
          }
        }
      }
    }
    return total
  }
}
