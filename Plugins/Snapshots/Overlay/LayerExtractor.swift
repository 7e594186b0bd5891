import CArchive
import CLinux
import ContentStreams
import Contracts
import Glibc
import LinuxSystem

/// Unpacks the tar stream of one layer (OCI image specification, layer.md) in the form overlayfs keeps layers:
/// whiteouts as character devices 0/0, opaque directories by the attribute `trusted.overlay.opaque`.
final class LayerExtractor {
  private typealias Name = UnsafePointer<CChar>

  private let directory: LayerDirectory
  private let reader: ArchiveReader
  /// Nothing lies below this layer, so whiteouts have nothing to hide.
  private let isLowest: Bool
  private let uninterrupted: () throws(EngineError) -> Void
  private let policy: UnpackPolicy
  private var metadata = DirectoryMetadata()
  private var entries = 0
  private var describesRoot = false
  /// Hard links whose target is not in this layer: pairs of the link's path and the target's.
  private var deferredLinks = PathList()
  private var hasDeferredLinks = false
  /// Bytes of the blocks of regular files so far, and how many there may be.
  private var taken: Int64 = 0
  private let limit: Int64
  /// Bytes of the regular files so far.
  private(set) var size: Int64 = 0

  /// - Parameters:
  ///   - root: an open directory, borrowed, into which the layer goes.
  ///   - limit: bytes that its files may take on the disk.
  ///   - uninterrupted: asked at each entry; throws when the work is to stop.
  init(
    root: Int32, reader: ArchiveReader, isLowest: Bool, policy: UnpackPolicy, limit: Int64 = .max,
    uninterrupted: @escaping () throws(EngineError) -> Void
  ) {
    directory = LayerDirectory(root: root)
    self.reader = reader
    self.isLowest = isLowest
    self.policy = policy
    self.limit = limit
    self.uninterrupted = uninterrupted
  }

  /// Unpacks the stream; `settle` must follow.
  ///
  /// - Throws: `invalidArgument` that names a hostile or broken entry, `resourceExhausted` when the disk is full.
  func run() throws(EngineError) {
    while try reader.next() {
      try uninterrupted()
      entries += 1
      if entries > policy.maximumEntries {
        throw EngineError(
          .resourceExhausted, "the layer is refused: it has more than the \(policy.maximumEntries) entries allowed")
      }
      guard let entry = reader.entry, let name = archive_entry_pathname(entry) else {
        throw EngineError(.invalidArgument, "the archive is refused: an entry has no name")
      }
      let path = try EntryPath(name, of: name, what: "its name")
      try unpack(entry, name, path)
    }
  }

  /// Whether `settle` looks at the layers below.
  var needsLower: Bool { !isLowest && (hasDeferredLinks || !directory.implied.isEmpty || !describesRoot) }

  /// Does what needs the layers below, and what comes last.
  ///
  /// - Parameter lower: an open directory, the layers below as one; -1 where there are none.
  func settle(lower: Int32) throws(EngineError) {
    let settlement = Settlement(directory: directory, lower: lower)
    var link: UnsafePointer<CChar>?
    try deferredLinks.forEach { (path) throws(EngineError) in
      guard let first = link else {
        link = path
        return
      }
      link = nil
      try settlement.link(first, to: path)
    }
    settlement.describeImplied(directory.implied)
    metadata.applyLast(in: directory)
    if !describesRoot { settlement.copyMetadata(of: ".", to: directory.root) }
  }

  private func unpack(_ entry: OpaquePointer, _ name: Name, _ path: EntryPath) throws(EngineError) {
    if path.isRoot {
      if archive_entry_filetype(entry) == S_IFDIR {
        describesRoot = true
        try finishDirectory(directory.root, entry, name, path)
      }
      return
    }
    let parent = try directory.parent(of: path, entry: name)
    if try unpackWhiteout(parent, name, path) { return }
    if let target = archive_entry_hardlink(entry) {
      return try link(target, parent, name, path)
    }
    switch archive_entry_filetype(entry) {
    case S_IFREG: try unpackFile(entry, parent, name, path)
    case S_IFDIR: try unpackDirectory(entry, parent, name, path)
    case S_IFLNK:
      guard let target = archive_entry_symlink(entry) else {
        throw EntryPath.refusal(name, "a symbolic link without a target")
      }
      try create(parent, name, path) { symlinkat(target, parent, $0) }
      try finishNode(entry, parent, name, path, mode: nil)
    case let type where type == S_IFCHR || type == S_IFBLK || type == S_IFIFO:
      if type != S_IFIFO && !policy.allowsDevices {
        throw EntryPath.refusal(name, "device nodes in layers are not allowed by this engine's configuration")
      }
      let mode = type | archive_entry_perm(entry)
      try create(parent, name, path) { mknodat(parent, $0, mode, archive_entry_rdev(entry)) }
      try finishNode(entry, parent, name, path, mode: archive_entry_perm(entry))
    default: throw EntryPath.refusal(name, "it is of a kind that a layer cannot hold")
    }
  }

  // MARK: Kinds of entries

  private func unpackFile(
    _ entry: OpaquePointer, _ parent: Int32, _ name: Name, _ path: EntryPath
  ) throws(EngineError) {
    let number = try create(parent, name, path) {
      linux_openat(parent, $0, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    }
    let file = OwnedDescriptor(adopting: number)
    var end: Int64 = 0
    var allocated: Int64 = 0
    while let (bytes, offset) = try reader.block() {
      try count(offset, bytes.count, &allocated)
      var done = 0
      while done < bytes.count {
        let count = pwrite(
          file.number, bytes.baseAddress?.advanced(by: done), bytes.count - done, off_t(offset) + done)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { throw directory.failure(count == 0 ? ENOSPC : errno, name) }
        done += count
      }
      end = max(end, offset + Int64(bytes.count))
    }
    let length = archive_entry_size(entry)
    guard end <= length else { throw EntryPath.refusal(name, "it is longer than it says") }
    if end < length, ftruncate(file.number, off_t(length)) < 0 { throw directory.failure(errno, name) }
    let (sum, overflows) = size.addingReportingOverflow(length)
    if length < 0 || overflows { throw EntryPath.refusal(name, "it says that it is larger than any file can be") }
    size = sum
    // Large files begin their way to the disk while others are unpacked; the sync before the record then has less to do.
    if length >= 1 << 20 { sync_file_range(file.number, 0, 0, UInt32(SYNC_FILE_RANGE_WRITE)) }
    try finishFile(file.number, entry, name)
  }

  /// Counts the blocks that a piece of a file takes. Holes take none: a sparse file costs what it holds.
  ///
  /// - Parameter allocated: how far the file's blocks reach so far.
  private func count(_ offset: Int64, _ length: Int, _ allocated: inout Int64) throws(EngineError) {
    let start = max(offset & ~4095, allocated)
    let end = (offset &+ Int64(length) &+ 4095) & ~4095
    if length == 0 || end <= start { return }
    allocated = end
    taken += end - start
    if taken > limit {
      throw EngineError(
        .resourceExhausted, "the layer is refused: it takes more than the \(limit) bytes allowed on the disk")
    }
  }

  private func unpackDirectory(
    _ entry: OpaquePointer, _ parent: Int32, _ name: Name, _ path: EntryPath
  ) throws(EngineError) {
    var hidesLower = false
    if withLast(path, { mkdirat(parent, $0, 0o700) }) < 0 {
      guard errno == EEXIST else { throw directory.failure(errno, name) }
      let existing = status(parent, path)
      if existing?.st_mode ?? 0 & S_IFMT != S_IFDIR {
        // A whiteout of the same name came first: what the lower layers have there stays hidden.
        hidesLower = existing.map { $0.st_mode & S_IFMT == S_IFCHR && $0.st_rdev == 0 } ?? false
        try create(parent, name, path) { mkdirat(parent, $0, 0o700) }
      }
    }
    let number = withLast(path) {
      linux_openat(parent, $0, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
    }
    guard number >= 0 else { throw directory.failure(errno, name) }
    let opened = OwnedDescriptor(adopting: number)
    if hidesLower { try makeOpaque(opened.number, name) }
    try finishDirectory(opened.number, entry, name, path)
  }

  /// A hard link to an entry of the same layer. The target's own directory is resolved in the root, and the target is
  /// not followed.
  private func link(_ target: Name, _ parent: Int32, _ name: Name, _ path: EntryPath) throws(EngineError) {
    let target = try EntryPath(target, of: name, what: "the target of the hard link")
    guard !target.isRoot else { throw EntryPath.refusal(name, "a hard link to the root") }
    if target.bytes == path.bytes { throw EntryPath.refusal(name, "a hard link to itself") }
    let holder = OwnedDescriptor(
      adopting: target.parent.isEmpty
        ? linux_fcntl(directory.root, F_DUPFD_CLOEXEC, 3)
        : directory.open(Array(target.parent) + [0], O_PATH | O_DIRECTORY))
    if holder.number < 0 && errno != ENOENT { throw directory.failure(errno, name) }
    let existing = holder.number < 0 ? nil : status(holder.number, target)
    guard let existing, !Settlement.isWhiteout(existing) else {
      // The target may be in a lower layer, which may not be here yet.
      if isLowest || existing != nil { throw Settlement.missingTarget(name, "\(target)") }
      try clear(parent, name, path)
      deferredLinks.add(path.bytes)
      deferredLinks.add(target.bytes)
      hasDeferredLinks = true
      return
    }
    if let old = status(parent, path), old.st_ino == existing.st_ino, old.st_dev == existing.st_dev {
      // One file under both names already, by a path that leads through a link or by an entry that comes twice.
      return
    }
    try create(parent, name, path) { last in
      withLast(target) { linkat(holder.number, $0, parent, last, 0) }
    }
  }

  /// - Returns: false when the entry is none of the names that begin with `.wh.`.
  private func unpackWhiteout(_ parent: Int32, _ name: Name, _ path: EntryPath) throws(EngineError) -> Bool {
    let isWhiteout = withLast(path) { strncmp($0, ".wh.", 4) == 0 }
    guard isWhiteout else { return false }
    if withLast(path, { strcmp($0, ".wh..wh..opq") == 0 }) {
      if !isLowest { try makeOpaque(parent, name) }
      return true
    }
    // Other names with the prefix twice are notes that aufs left for itself.
    if withLast(path, { strncmp($0, ".wh..wh.", 8) == 0 }) { return true }
    let hidden = Array(path.last.dropFirst(4))
    if hidden.count == 1 || hidden == [46, 0] || hidden == [46, 46, 0] {
      throw EntryPath.refusal(name, "a whiteout of nothing")
    }
    if isLowest { return true }
    if mknodat(parent, hidden, S_IFCHR, 0) < 0 {
      guard errno == EEXIST else { throw directory.failure(errno, name) }
      // The layer has the name itself: a whiteout only hides what lower layers have there.
      let number = linux_openat(parent, hidden, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
      if number >= 0 {
        let opened = OwnedDescriptor(adopting: number)
        try makeOpaque(opened.number, name)
      }
    }
    return true
  }

  private func makeOpaque(_ descriptor: Int32, _ name: Name) throws(EngineError) {
    if fsetxattr(descriptor, "trusted.overlay.opaque", "y", 1, 0) < 0 { throw directory.failure(errno, name) }
  }

  // MARK: Making and finishing

  private func withLast<Result>(_ path: EntryPath, _ body: (Name) -> Result) -> Result {
    path.last.withUnsafeBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return body("") }
      return body(base)
    }
  }

  private func status(_ parent: Int32, _ path: EntryPath) -> stat? {
    var status = stat()
    return withLast(path) { fstatat(parent, $0, &status, AT_SYMLINK_NOFOLLOW) } == 0 ? status : nil
  }

  /// Makes something; what an earlier entry left under the name is removed first.
  @discardableResult
  private func create(
    _ parent: Int32, _ name: Name, _ path: EntryPath, _ make: (Name) -> Int32
  ) throws(EngineError) -> Int32 {
    var result = withLast(path, make)
    if result < 0 && errno == EEXIST {
      try clear(parent, name, path)
      result = withLast(path, make)
    }
    guard result >= 0 else { throw directory.failure(errno, name) }
    return result
  }

  /// Removes what an earlier entry left under a name.
  private func clear(_ parent: Int32, _ name: Name, _ path: EntryPath) throws(EngineError) {
    directory.forgetParentIfBeneath(path)
    do throws(SystemCallError) {
      try TreeRemover.remove(parent, Array(path.last))
    } catch {
      throw directory.failure(error.number, name)
    }
  }

  /// Owner, attributes, mode and times, in the order in which none undoes another (chown(2) clears capabilities and
  /// set-user-ID).
  private func finishFile(_ file: Int32, _ entry: OpaquePointer, _ name: Name) throws(EngineError) {
    try own(file, entry, name)
    try setAttributes(file, entry, name)
    if fchmod(file, archive_entry_perm(entry)) < 0 { throw directory.failure(errno, name) }
    var times = Self.times(entry)
    futimens(file, &times)
  }

  /// As `finishFile`; times and set-group-ID come when everything is unpacked, because each new name in a directory
  /// changes its time and would inherit its group.
  private func finishDirectory(
    _ opened: Int32, _ entry: OpaquePointer, _ name: Name, _ path: EntryPath
  ) throws(EngineError) {
    if fchown(
      opened, UInt32(truncatingIfNeeded: archive_entry_uid(entry)),
      UInt32(truncatingIfNeeded: archive_entry_gid(entry))) < 0
    {
      throw directory.failure(errno, name)
    }
    try setAttributes(opened, entry, name)
    let mode = archive_entry_perm(entry)
    if fchmod(opened, mode & ~0o2000) < 0 { throw directory.failure(errno, name) }
    metadata.add(path, time: Self.times(entry)[1], mode: mode & 0o2000 == 0 ? nil : mode)
  }

  private func finishNode(
    _ entry: OpaquePointer, _ parent: Int32, _ name: Name, _ path: EntryPath, mode: mode_t?
  ) throws(EngineError) {
    let uid = UInt32(truncatingIfNeeded: archive_entry_uid(entry))
    let gid = UInt32(truncatingIfNeeded: archive_entry_gid(entry))
    var times = Self.times(entry)
    let failed = withLast(path) { last -> Bool in
      if uid != 0 || gid != 0, fchownat(parent, last, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 { return true }
      if let mode, fchmodat(parent, last, mode, 0) < 0 { return true }
      utimensat(parent, last, &times, AT_SYMLINK_NOFOLLOW)
      return false
    }
    if failed { throw directory.failure(errno, name) }
  }

  private func own(_ file: Int32, _ entry: OpaquePointer, _ name: Name) throws(EngineError) {
    let uid = UInt32(truncatingIfNeeded: archive_entry_uid(entry))
    let gid = UInt32(truncatingIfNeeded: archive_entry_gid(entry))
    if uid == 0 && gid == 0 { return }
    if fchown(file, uid, gid) < 0 { throw directory.failure(errno, name) }
  }

  static func isKept(attribute key: UnsafePointer<CChar>) -> Bool {
    strncmp(key, "user.", 5) == 0 || strcmp(key, "security.capability") == 0
      || strncmp(key, "system.posix_acl_", 17) == 0
  }

  /// `user.*`, file capabilities and POSIX access control lists. `trusted.*` is left out: it would let an archive forge
  /// overlayfs's own attributes. One that the file system does not have is passed over, as Docker does.
  private func setAttributes(_ file: Int32, _ entry: OpaquePointer, _ name: Name) throws(EngineError) {
    guard archive_entry_xattr_reset(entry) > 0 else { return }
    var key: UnsafePointer<CChar>?
    var value: UnsafeRawPointer?
    var length = 0
    while archive_entry_xattr_next(entry, &key, &value, &length) == ARCHIVE_OK {
      guard let key else { continue }
      guard Self.isKept(attribute: key), fsetxattr(file, key, value, length, 0) < 0, errno != ENOTSUP, errno != EPERM
      else { continue }
      throw directory.failure(errno, name)
    }
  }

  /// Access and modification time, both the entry's modification time.
  private static func times(_ entry: OpaquePointer) -> [timespec] {
    let time = timespec(tv_sec: archive_entry_mtime(entry), tv_nsec: Int(archive_entry_mtime_nsec(entry)))
    return [time, time]
  }
}
