import CLinux
import Glibc

/// The file system calls that the engine needs, with owned descriptors and typed errors.
public enum Files {
  /// `O_TMPFILE` of open(2), a macro that is not imported: a file without a name in the directory that is opened.
  public static let nameless: Int32 = 0o20000000 | O_DIRECTORY

  /// open(2); close-on-exec is always added.
  public static func open(_ path: String, _ flags: Int32, mode: UInt32 = 0) throws(SystemCallError) -> OwnedDescriptor {
    OwnedDescriptor(adopting: try SystemCallError.check("open", path) { linux_open(path, flags | O_CLOEXEC, mode) })
  }

  /// openat(2); close-on-exec is always added.
  public static func open(
    at directory: Int32, _ path: String, _ flags: Int32, mode: UInt32 = 0
  ) throws(SystemCallError) -> OwnedDescriptor {
    OwnedDescriptor(
      adopting: try SystemCallError.check("openat", path) { linux_openat(directory, path, flags | O_CLOEXEC, mode) })
  }

  /// openat2(2) with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`: `path` is resolved as if `root` were `/`, so that
  /// neither `..` nor a link nor a race can lead out of it.
  public static func open(
    inRoot root: Int32, _ path: String, _ flags: Int32, mode: UInt32 = 0
  ) throws(SystemCallError) -> OwnedDescriptor {
    var how = open_how()
    how.flags = UInt64(UInt32(bitPattern: flags | O_CLOEXEC))
    how.mode = flags & O_CREAT != 0 || flags & nameless == nameless ? UInt64(mode) : 0
    how.resolve = UInt64(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return OwnedDescriptor(
      adopting: try SystemCallError.check("openat2", path) { linux_openat2(root, path, &how) })
  }

  /// The whole content of a file, at most `limit` bytes.
  ///
  /// - Throws: `EFBIG` when the file is longer than `limit`.
  public static func read(_ path: String, limit: Int = 16 << 20) throws(SystemCallError) -> [UInt8] {
    let file = try open(path, O_RDONLY)
    return try readAll(file.number, subject: path, limit: limit)
  }

  /// Everything up to the end of `descriptor`, at most `limit` bytes.
  public static func readAll(
    _ descriptor: Int32, subject: String = "", limit: Int = 16 << 20
  ) throws(SystemCallError) -> [UInt8] {
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 8192)
    while true {
      let count = try SystemCallError.check("read", subject) { Glibc.read(descriptor, &chunk, chunk.count) }
      if count == 0 { return content }
      if content.count + count > limit { throw SystemCallError(call: "read", subject: subject, number: EFBIG) }
      content.append(contentsOf: chunk[..<count])
    }
  }

  /// The file's content as text; bytes that are not UTF-8 become U+FFFD.
  public static func readText(_ path: String, limit: Int = 16 << 20) throws(SystemCallError) -> String {
    String(decoding: try read(path, limit: limit), as: UTF8.self)
  }

  /// Writes all of `bytes`, however many calls it takes.
  public static func writeAll(
    _ descriptor: Int32, _ bytes: [UInt8], subject: String = ""
  ) throws(SystemCallError) {
    var offset = 0
    while offset < bytes.count {
      offset += try SystemCallError.check("write", subject) {
        bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), bytes.count - offset) }
      }
    }
  }

  /// Writes into an existing file in one write(2), as control files in /proc, /sys and cgroups want it.
  public static func writeControl(_ path: String, _ text: String) throws(SystemCallError) {
    let file = try open(path, O_WRONLY)
    let bytes = Array(text.utf8)
    try SystemCallError.check("write", path) { Glibc.write(file.number, bytes, bytes.count) }
  }

  /// Replaces `path` in one step: a new file beside it, then rename(2). With `durable`, the file and its directory
  /// are synced, so that after a power failure the old or the new content is there, never half of either.
  public static func replace(
    _ path: String, with bytes: [UInt8], mode: UInt32 = 0o600, durable: Bool
  ) throws(SystemCallError) {
    let temporary = "\(path).new"
    do {
      let file = try open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
      try writeAll(file.number, bytes, subject: temporary)
      if durable { try SystemCallError.check("fsync", temporary) { fsync(file.number) } }
    } catch {
      unlink(temporary)
      throw error
    }
    try SystemCallError.check("rename", path) { rename(temporary, path) }
    guard durable, let slash = path.lastIndex(of: "/") else { return }
    let directory = try open(String(path[...slash]), O_RDONLY | O_DIRECTORY)
    try SystemCallError.check("fsync", path) { fsync(directory.number) }
  }

  /// Writes back everything of the file system that a directory is on (syncfs(2)).
  public static func syncFileSystem(of directory: String) throws(SystemCallError) {
    let descriptor = try open(directory, O_RDONLY | O_DIRECTORY)
    try SystemCallError.check("syncfs", directory) { syncfs(descriptor.number) }
  }

  /// mkdir(2); an existing directory is not an error.
  public static func makeDirectory(_ path: String, mode: UInt32 = 0o700) throws(SystemCallError) {
    do {
      try SystemCallError.check("mkdir", path) { mkdir(path, mode) }
    } catch  where error.number == EEXIST && isDirectory(path) {}
  }

  /// Makes `path` and what is missing above it.
  public static func makeDirectories(_ path: String, mode: UInt32 = 0o700) throws(SystemCallError) {
    if isDirectory(path) { return }
    if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
      try makeDirectories(String(path[..<slash]), mode: mode)
    }
    try makeDirectory(path, mode: mode)
  }

  /// stat(2), or nil when there is nothing at `path`; links are followed.
  public static func status(_ path: String) -> stat? {
    var status = stat()
    return stat(path, &status) == 0 ? status : nil
  }

  public static func exists(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0
  }

  public static func isDirectory(_ path: String) -> Bool {
    guard let status = status(path) else { return false }
    return status.st_mode & S_IFMT == S_IFDIR
  }

  /// The names in a directory, without `.` and `..`, in no particular order.
  public static func list(_ path: String) throws(SystemCallError) -> [String] {
    guard let stream = opendir(path) else { throw SystemCallError(call: "opendir", subject: path, number: errno) }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }

  /// unlink(2); a missing file is not an error.
  public static func remove(_ path: String) throws(SystemCallError) {
    do {
      try SystemCallError.check("unlink", path) { unlink(path) }
    } catch  where error.number == ENOENT {}
  }

  /// Removes a directory and everything in it without following links and without leaving its file system; nothing
  /// there is not an error. Names are handled as bytes, so any name goes.
  public static func removeTree(_ path: String) throws(SystemCallError) {
    var status = stat()
    guard lstat(path, &status) == 0 else {
      if errno == ENOENT { return }
      throw SystemCallError(call: "lstat", subject: path, number: errno)
    }
    guard status.st_mode & S_IFMT == S_IFDIR else { return try remove(path) }
    try emptyDirectory(AT_FDCWD, path, device: status.st_dev, subject: path)
    try SystemCallError.check("rmdir", path) { rmdir(path) }
  }

  /// The same for what a directory holds, which stays.
  public static func empty(_ path: String) throws(SystemCallError) {
    var status = stat()
    try SystemCallError.check("lstat", path) { lstat(path, &status) }
    try emptyDirectory(AT_FDCWD, path, device: status.st_dev, subject: path)
  }

  private static func emptyDirectory(
    _ parent: Int32, _ name: UnsafePointer<CChar>, device: dev_t, subject: String
  ) throws(SystemCallError) {
    let descriptor = try SystemCallError.check("openat", subject) {
      linux_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
    }
    guard let stream = fdopendir(descriptor) else {
      let number = errno
      close(descriptor)
      throw SystemCallError(call: "fdopendir", subject: subject, number: number)
    }
    defer { closedir(stream) }
    while let entry = readdir(stream) {
      try withUnsafePointer(to: &entry.pointee.d_name) { (tuple) throws(SystemCallError) in
        try tuple.withMemoryRebound(to: CChar.self, capacity: 256) { (child) throws(SystemCallError) in
          if strcmp(child, ".") == 0 || strcmp(child, "..") == 0 { return }
          var status = stat()
          guard fstatat(descriptor, child, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return }
          var flags: Int32 = 0
          if status.st_mode & S_IFMT == S_IFDIR {
            guard status.st_dev == device else {
              throw SystemCallError(call: "unlinkat", subject: "\(subject)/\(String(cString: child))", number: EBUSY)
            }
            try emptyDirectory(descriptor, child, device: device, subject: subject)
            flags = Int32(AT_REMOVEDIR)
          }
          try SystemCallError.check("unlinkat", "\(subject)/\(String(cString: child))") {
            unlinkat(descriptor, child, flags)
          }
        }
      }
    }
  }
}
