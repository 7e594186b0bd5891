import CLinux
import Glibc
import LinuxSystem

/// Copies a directory tree with everything that belongs to it: owners, modes, times, extended attributes, links, hard
/// links, holes, device nodes.
///
/// Every step is relative to an open directory and follows no link, so a tree made to lead out of itself does not.
/// Names are handled as bytes, so any name goes.
struct TreeCopy {
  /// Where the copy goes, for finding a hard link's first name again.
  private let root: Int32
  private struct File: Hashable {
    var device: dev_t
    var inode: ino_t
  }
  /// Files with several names that were copied already, with their path in the copy.
  private var copied: [File: [CChar]] = [:]
  private var path: [UInt8] = []

  init(root: Int32) { self.root = root }

  // MARK: Directories

  static func isEmpty(_ directory: Int32) throws(SystemCallError) -> Bool {
    var found = false
    try forEachName(in: directory) { (_) throws(SystemCallError) in
      found = true
      return false
    }
    return !found
  }

  /// Removes everything in a directory.
  static func empty(_ directory: Int32) throws(SystemCallError) {
    var names: [[CChar]] = []
    try forEachName(in: directory) { (name) throws(SystemCallError) in
      names.append(Array(UnsafeBufferPointer(start: name, count: strlen(name) + 1)))
      return true
    }
    for name in names {
      var status = stat()
      if fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0 { continue }
      if status.st_mode & S_IFMT == S_IFDIR {
        let nested = try openDirectory(directory, name)
        try empty(nested.number)
        try SystemCallError.check("unlinkat") { unlinkat(directory, name, Int32(AT_REMOVEDIR)) }
      } else {
        try SystemCallError.check("unlinkat") { unlinkat(directory, name, 0) }
      }
    }
  }

  /// - Parameter body: returns false to stop.
  private static func forEachName(
    in directory: Int32, _ body: (UnsafePointer<CChar>) throws(SystemCallError) -> Bool
  ) throws(SystemCallError) {
    // A descriptor of its own: reading moves the position of the open file.
    let copy = try SystemCallError.check("openat") {
      linux_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    }
    guard let stream = fdopendir(copy) else {
      let number = errno
      close(copy)
      throw SystemCallError(call: "fdopendir", number: number)
    }
    defer { closedir(stream) }
    while let entry = readdir(stream) {
      let goesOn = try withUnsafePointer(to: &entry.pointee.d_name) { (tuple) throws(SystemCallError) -> Bool in
        try tuple.withMemoryRebound(to: CChar.self, capacity: 256) { (name) throws(SystemCallError) -> Bool in
          if strcmp(name, ".") == 0 || strcmp(name, "..") == 0 { return true }
          return try body(name)
        }
      }
      if !goesOn { return }
    }
  }

  private static func openDirectory(
    _ parent: Int32, _ name: UnsafePointer<CChar>
  ) throws(SystemCallError) -> OwnedDescriptor {
    OwnedDescriptor(
      adopting: try SystemCallError.check("openat", String(cString: name)) {
        linux_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
      })
  }

  /// Copies what is in `source`, and its own metadata, to the empty directory `target`.
  mutating func copyDirectory(_ source: Int32, _ target: Int32) throws(SystemCallError) {
    var status = stat()
    try SystemCallError.check("fstat") { fstat(source, &status) }
    var names: [[CChar]] = []
    try Self.forEachName(in: source) { (name) throws(SystemCallError) in
      names.append(Array(UnsafeBufferPointer(start: name, count: strlen(name) + 1)))
      return true
    }
    for name in names {
      let length = path.count
      path.append(contentsOf: name.dropLast().map { UInt8(bitPattern: $0) })
      try copyEntry(source, target, name)
      path.removeSubrange(length...)
    }
    try Self.copyAttributes(from: Self.path(source, [46, 0]), to: Self.path(target, [46, 0]))
    try SystemCallError.check("fchown") { fchown(target, status.st_uid, status.st_gid) }
    try SystemCallError.check("fchmod") { fchmod(target, status.st_mode & 0o7777) }
    var times = [status.st_atim, status.st_mtim]
    try SystemCallError.check("futimens") { futimens(target, &times) }
  }

  private mutating func copyEntry(_ source: Int32, _ target: Int32, _ name: [CChar]) throws(SystemCallError) {
    var status = stat()
    let subject = String(decoding: path, as: UTF8.self)
    try SystemCallError.check("fstatat", subject) { fstatat(source, name, &status, AT_SYMLINK_NOFOLLOW) }
    let kind = status.st_mode & S_IFMT
    if kind == S_IFDIR {
      try SystemCallError.check("mkdirat", subject) { mkdirat(target, name, 0o700) }
      let from = try Self.openDirectory(source, name)
      let to = try Self.openDirectory(target, name)
      path.append(UInt8(ascii: "/"))
      return try copyDirectory(from.number, to.number)
    }
    let file = File(device: status.st_dev, inode: status.st_ino)
    if status.st_nlink > 1, let first = copied[file] {
      var how = open_how()
      how.flags = UInt64(UInt32(bitPattern: O_PATH | O_NOFOLLOW | O_CLOEXEC))
      how.resolve = UInt64(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
      let known = OwnedDescriptor(
        adopting: try SystemCallError.check("openat2", subject) { linux_openat2(root, first, &how) })
      try SystemCallError.check("linkat", subject) { linkat(known.number, "", target, name, AT_EMPTY_PATH) }
      return
    }
    switch kind {
    case S_IFREG: try copyContent(source, target, name, status.st_size, subject)
    case S_IFLNK: try copyLink(source, target, name, subject)
    default: try SystemCallError.check("mknodat", subject) { mknodat(target, name, status.st_mode, status.st_rdev) }
    }
    if status.st_nlink > 1 { copied[file] = path.map { CChar(bitPattern: $0) } + [0] }
    try SystemCallError.check("fchownat", subject) {
      fchownat(target, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW)
    }
    if kind != S_IFLNK {
      // After the owner, whose change clears the set-user-ID bit. The entry was made just now and is no link.
      try SystemCallError.check("fchmodat", subject) { fchmodat(target, name, status.st_mode & 0o7777, 0) }
    }
    try Self.copyAttributes(from: Self.path(source, name), to: Self.path(target, name))
    var times = [status.st_atim, status.st_mtim]
    try SystemCallError.check("utimensat", subject) { utimensat(target, name, &times, AT_SYMLINK_NOFOLLOW) }
  }

  // MARK: Content

  private func copyContent(
    _ source: Int32, _ target: Int32, _ name: [CChar], _ size: off_t, _ subject: String
  ) throws(SystemCallError) {
    let from = OwnedDescriptor(
      adopting: try SystemCallError.check("openat", subject) {
        linux_openat(source, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
      })
    let to = OwnedDescriptor(
      adopting: try SystemCallError.check("openat", subject) {
        linux_openat(target, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
      })
    if size == 0 { return }
    // Shares the blocks where the file system can (ioctl_ficlone(2)).
    if linux_ioctl_value(to.number, UInt(FICLONE_REQUEST), UInt(from.number)) == 0 { return }
    var offset: off_t = 0
    while offset < size {
      let start = lseek(from.number, offset, SEEK_DATA)
      if start < 0 {
        // ENXIO: a hole up to the end; anything else: a file system that knows no holes.
        if errno == ENXIO { break }
        try copyRange(from.number, to.number, offset, size, subject)
        break
      }
      let end = lseek(from.number, start, SEEK_HOLE)
      let stop = end < 0 ? size : min(end, size)
      try copyRange(from.number, to.number, start, stop, subject)
      offset = max(stop, start + 1)
    }
    try SystemCallError.check("ftruncate", subject) { ftruncate(to.number, size) }
  }

  private func copyRange(
    _ from: Int32, _ to: Int32, _ start: off_t, _ end: off_t, _ subject: String
  ) throws(SystemCallError) {
    var input = start
    var output = start
    while input < end {
      let count = copy_file_range(from, &input, to, &output, Int(end - input), 0)
      if count > 0 { continue }
      if count == 0 { return }
      let number = errno
      if number == EINTR { continue }
      // Between file systems that cannot (copy_file_range(2), ERRORS), the kernel still copies by sendfile(2).
      guard [EXDEV, EINVAL, EOPNOTSUPP, ENOSYS].contains(number) else {
        throw SystemCallError(call: "copy_file_range", subject: subject, number: number)
      }
      try SystemCallError.check("lseek", subject) { lseek(to, output, SEEK_SET) }
      while input < end {
        let sent = try SystemCallError.check("sendfile", subject) { sendfile(to, from, &input, Int(end - input)) }
        if sent == 0 { return }
      }
      return
    }
  }

  private func copyLink(
    _ source: Int32, _ target: Int32, _ name: [CChar], _ subject: String
  ) throws(SystemCallError) {
    var text = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let length = try SystemCallError.check("readlinkat", subject) { readlinkat(source, name, &text, Int(PATH_MAX)) }
    text[length] = 0
    try SystemCallError.check("symlinkat", subject) { symlinkat(text, target, name) }
  }

  // MARK: Extended attributes

  /// A name in an open directory as a path: l*xattr(2) take no directory.
  private static func path(_ directory: Int32, _ name: [CChar]) -> [CChar] {
    "/proc/self/fd/\(directory)/".utf8.map { CChar(bitPattern: $0) } + name
  }

  /// Copies what the file systems on both sides keep (xattr(7)); what the target cannot keep is left out.
  private static func copyAttributes(from: [CChar], to: [CChar]) throws(SystemCallError) {
    let length = llistxattr(from, nil, 0)
    if length <= 0 { return }
    var list = [CChar](repeating: 0, count: length)
    let filled = llistxattr(from, &list, length)
    if filled <= 0 { return }
    for name in list[..<filled].split(separator: 0) {
      let name = Array(name) + [0]
      // overlayfs's own bookkeeping must not reach what may be a layer's directory.
      if strncmp(name, "trusted.overlay.", 16) == 0 { continue }
      let size = lgetxattr(from, name, nil, 0)
      if size < 0 { continue }
      var value = [UInt8](repeating: 0, count: size)
      let read = lgetxattr(from, name, &value, size)
      if read < 0 { continue }
      if lsetxattr(to, name, value, read, 0) < 0 {
        let number = errno
        if [EOPNOTSUPP, EPERM, EINVAL].contains(number) { continue }
        let text = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        throw SystemCallError(call: "lsetxattr", subject: text, number: number)
      }
    }
  }
}

/// `FICLONE` of linux/fs.h: `_IOW(0x94, 9, int)`.
private let FICLONE_REQUEST: UInt32 = 0x4004_9409
