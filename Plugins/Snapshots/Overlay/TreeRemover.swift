import CLinux
import Glibc
import LinuxSystem

/// Removes trees that containers and archives made, whatever they did there: any names, any depth, no link followed,
/// no mount entered.
enum TreeRemover {
  /// Deeper than this, directories are moved up instead of entered, so that neither descriptors nor the stack run out.
  private static let maximumDepth = 48

  /// Removes `name` (NUL-terminated) in a directory; nothing there is not an error.
  ///
  /// - Throws: the first call that failed; what it can reach is removed all the same.
  static func remove(_ parent: Int32, _ name: [CChar]) throws(SystemCallError) {
    if unlinkat(parent, name, 0) == 0 || errno == ENOENT { return }
    guard errno == EISDIR || errno == EPERM else { throw failure("unlinkat", name) }
    var moved = 0
    // Each pass removes what it reaches and moves what lies too deep to the top of the tree.
    while true {
      let before = moved
      try empty(parent, name, depth: 0, top: -1, moved: &moved)
      if moved == before { break }
    }
    if unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT { throw failure("rmdir", name) }
  }

  private static func empty(
    _ parent: Int32, _ name: UnsafePointer<CChar>, depth: Int, top: Int32, moved: inout Int
  ) throws(SystemCallError) {
    let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
    var how = open_how()
    how.flags = UInt64(UInt32(bitPattern: flags))
    how.resolve = UInt64(RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    let descriptor = depth == 0 ? linux_openat(parent, name, flags, 0) : linux_openat2(parent, name, &how)
    if descriptor < 0 && errno == ENOENT { return }
    guard descriptor >= 0, let stream = fdopendir(descriptor) else { throw failure("openat2", name) }
    defer { closedir(stream) }
    let top = top < 0 ? descriptor : top
    while let entry = readdir(stream) {
      try withUnsafePointer(to: &entry.pointee.d_name) { (tuple) throws(SystemCallError) in
        try tuple.withMemoryRebound(to: CChar.self, capacity: 256) { (child) throws(SystemCallError) in
          if strcmp(child, ".") == 0 || strcmp(child, "..") == 0 { return }
          if unlinkat(descriptor, child, 0) == 0 || errno == ENOENT { return }
          guard errno == EISDIR || errno == EPERM else { throw failure("unlinkat", child) }
          if unlinkat(descriptor, child, AT_REMOVEDIR) == 0 { return }
          guard errno == ENOTEMPTY || errno == EEXIST else { throw failure("rmdir", child) }
          if depth >= maximumDepth {
            // The name holds a slash nowhere and is longer than any that could collide by chance.
            repeat {
              moved += 1
            } while renameat2(descriptor, child, top, ".deep.\(getpid()).\(moved)", 1) < 0 && errno == EEXIST
            return
          }
          try empty(descriptor, child, depth: depth + 1, top: top, moved: &moved)
          if unlinkat(descriptor, child, AT_REMOVEDIR) < 0 && errno != ENOENT { throw failure("rmdir", child) }
        }
      }
    }
  }

  private static func failure(_ call: String, _ name: UnsafePointer<CChar>) -> SystemCallError {
    let number = errno
    return SystemCallError(call: call, subject: String(cString: name), number: number)
  }
}
