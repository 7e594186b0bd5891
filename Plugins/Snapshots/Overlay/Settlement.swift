import CLinux
import Contracts
import Glibc
import LinuxSystem

/// What of an unpacked layer can only be done when the layers below it are there.
struct Settlement {
  let directory: LayerDirectory
  /// The layers below as one read-only file system, or -1.
  let lower: Int32

  static func isWhiteout(_ status: stat) -> Bool { status.st_mode & S_IFMT == S_IFCHR && status.st_rdev == 0 }

  static func missingTarget(_ name: UnsafePointer<CChar>, _ target: String) -> EngineError {
    EntryPath.refusal(name, "the target of the hard link is neither in this layer nor below it: \(target)")
  }

  /// Resolved as if the layers below were `/`; the last component is not followed.
  private func openLower(_ path: UnsafePointer<CChar>, _ flags: Int32) -> Int32 {
    if lower < 0 {
      errno = ENOENT
      return -1
    }
    var how = open_how()
    how.flags = UInt64(UInt32(bitPattern: flags | O_NOFOLLOW | O_CLOEXEC))
    how.resolve = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return LayerDirectory.open(lower, path, &how)
  }

  // MARK: Hard links

  /// Makes a hard link whose target was not in this layer when its entry came. A target in a lower layer is copied up
  /// first, as overlayfs does for link(2).
  func link(_ path: UnsafePointer<CChar>, to target: UnsafePointer<CChar>) throws(EngineError) {
    let link = try EntryPath(path, of: path, what: "its name")
    let other = try EntryPath(target, of: path, what: "the target of the hard link")
    if status(link) != nil {
      // A later entry of the same name came first.
      return
    }
    if let existing = status(other) {
      if Self.isWhiteout(existing) { throw Self.missingTarget(path, "\(other)") }
    } else {
      try copyUp(other, named: path)
    }
    let holder = OwnedDescriptor(adopting: try duplicateParent(of: other, path))
    let place = try directory.parent(of: link, entry: path)
    let result = other.last.withUnsafeBufferPointer { from in
      link.last.withUnsafeBufferPointer { to in
        from.baseAddress.flatMap { from in to.baseAddress.map { linkat(holder.number, from, place, $0, 0) } } ?? -1
      }
    }
    if result < 0 { throw directory.failure(errno, path) }
  }

  private func duplicateParent(
    of path: EntryPath, _ name: UnsafePointer<CChar>
  ) throws(EngineError) -> Int32 {
    let copy = linux_fcntl(try directory.parent(of: path, entry: name), F_DUPFD_CLOEXEC, 3)
    if copy < 0 { throw directory.failure(errno, name) }
    return copy
  }

  private func status(_ path: EntryPath) -> stat? {
    let parent = path.parent
    let holder = OwnedDescriptor(
      adopting: parent.isEmpty
        ? linux_fcntl(directory.root, F_DUPFD_CLOEXEC, 3)
        : directory.open(Array(parent) + [0], O_PATH | O_DIRECTORY))
    guard holder.number >= 0 else { return nil }
    var status = stat()
    let result = path.last.withUnsafeBufferPointer { last in
      last.baseAddress.map { fstatat(holder.number, $0, &status, AT_SYMLINK_NOFOLLOW) } ?? -1
    }
    return result == 0 ? status : nil
  }

  private func copyUp(_ path: EntryPath, named name: UnsafePointer<CChar>) throws(EngineError) {
    let found = OwnedDescriptor(adopting: openLower(path.bytes, O_PATH))
    var status = stat()
    guard found.number >= 0, fstat(found.number, &status) == 0 else {
      throw Self.missingTarget(name, "\(path)")
    }
    let parent = try directory.parent(of: path, entry: name)
    let last = Array(path.last)
    switch status.st_mode & S_IFMT {
    case S_IFREG: try copyFile(path, status, to: parent, last, name)
    case S_IFLNK:
      var target = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
      guard readlinkat(found.number, "", &target, target.count - 1) >= 0, symlinkat(target, parent, last) == 0 else {
        throw directory.failure(errno, name)
      }
      try copyOwner(status, parent, last, name)
    case S_IFDIR: throw EntryPath.refusal(name, "the target of the hard link is a directory")
    default:
      if mknodat(parent, last, status.st_mode, status.st_rdev) < 0 { throw directory.failure(errno, name) }
      try copyOwner(status, parent, last, name)
      fchmodat(parent, last, status.st_mode & 0o7777, 0)
    }
  }

  private func copyOwner(
    _ status: stat, _ parent: Int32, _ last: [CChar], _ name: UnsafePointer<CChar>
  ) throws(EngineError) {
    if fchownat(parent, last, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) < 0 {
      throw directory.failure(errno, name)
    }
    let times = [status.st_mtim, status.st_mtim]
    utimensat(parent, last, times, AT_SYMLINK_NOFOLLOW)
  }

  private func copyFile(
    _ path: EntryPath, _ status: stat, to parent: Int32, _ last: [CChar], _ name: UnsafePointer<CChar>
  ) throws(EngineError) {
    let source = OwnedDescriptor(adopting: openLower(path.bytes, O_RDONLY))
    guard source.number >= 0 else { throw directory.failure(errno, name) }
    let file = OwnedDescriptor(
      adopting: linux_openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600))
    guard file.number >= 0, ftruncate(file.number, status.st_size) == 0 else { throw directory.failure(errno, name) }
    var offset: off_t = 0
    while true {
      // Holes stay holes.
      let start = lseek(source.number, offset, SEEK_DATA)
      if start < 0 { break }
      let end = lseek(source.number, start, SEEK_HOLE)
      var (from, to) = (start, start)
      while from < end {
        let count = copy_file_range(source.number, &from, file.number, &to, Int(end - from), 0)
        if count < 0 && errno == EINTR { continue }
        if count == 0 { break }
        if count < 0 { throw directory.failure(errno, name) }
      }
      offset = end
    }
    fchown(file.number, status.st_uid, status.st_gid)
    copyAttributes(from: source.number, to: file.number)
    fchmod(file.number, status.st_mode & 0o7777)
    let times = [status.st_mtim, status.st_mtim]
    futimens(file.number, times)
  }

  // MARK: Directories

  /// Directories that no entry described get what they have in the layers below, or 0755 of root.
  func describeImplied(_ paths: PathList) {
    paths.forEach { path in
      let opened = OwnedDescriptor(adopting: directory.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
      var status = stat()
      guard opened.number >= 0, fstat(opened.number, &status) == 0,
        status.st_mode & 0o7777 == LayerDirectory.impliedMode
      else { return }
      copyMetadata(of: path, to: opened.number)
    }
  }

  func copyMetadata(of path: UnsafePointer<CChar>, to descriptor: Int32) {
    let source = OwnedDescriptor(adopting: openLower(path, O_RDONLY | O_DIRECTORY))
    var status = stat()
    guard source.number >= 0, fstat(source.number, &status) == 0 else {
      fchmod(descriptor, 0o755)
      return
    }
    fchown(descriptor, status.st_uid, status.st_gid)
    copyAttributes(from: source.number, to: descriptor)
    fchmod(descriptor, status.st_mode & 0o7777)
    let times = [status.st_mtim, status.st_mtim]
    futimens(descriptor, times)
  }

  /// The attributes that a layer may carry, see `LayerExtractor`.
  private func copyAttributes(from source: Int32, to target: Int32) {
    var names = [CChar](repeating: 0, count: 64 << 10)
    let length = flistxattr(source, &names, names.count)
    if length <= 0 { return }
    var value = [UInt8](repeating: 0, count: 64 << 10)
    names.withUnsafeBufferPointer { names in
      guard let base = names.baseAddress else { return }
      var start = 0
      while start < length {
        let name = base + start
        start += strlen(name) + 1
        guard LayerExtractor.isKept(attribute: name) else { continue }
        let count = fgetxattr(source, name, &value, value.count)
        if count >= 0 { fsetxattr(target, name, value, count, 0) }
      }
    }
  }
}
