import CArchive
import CLinux
import ContentStreams
import Contracts
import Glibc
import LinuxSystem

/// Writes a tree as a tar archive: modes, owners, times, links, devices and attributes, names as bytes.
final class TreeExporter {
  private struct Inode: Hashable {
    var device: dev_t
    var number: ino_t
  }

  /// A directory whose entries are being written. No descriptor is kept of it: the way back leads through `..`.
  private struct Level {
    var inode: Inode
    /// One after the other, each with its NUL: a directory of a million entries costs their names.
    var names: [CChar]
    /// Where the next name begins.
    var position = 0
    /// Bytes of the path of its parent.
    var parentLength: Int
  }

  private let writer: ArchiveWriter
  /// The first name of files that have several.
  private var names: [Inode: [CChar]] = [:]

  init(_ writer: ArchiveWriter) { self.writer = writer }

  /// - Parameter root: an open directory, borrowed.
  func export(_ root: Int32) throws(EngineError) {
    let opened = linux_openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    guard opened >= 0 else { throw failure([], errno) }
    var current = OwnedDescriptor(adopting: opened)
    // The directory's path with a final slash, without a NUL.
    var prefix: [CChar] = []
    var levels = [try level(of: current.number, prefix, parentLength: 0)]
    while let top = levels.last {
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      guard let end = top.names[top.position...].firstIndex(of: 0) else {
        levels.removeLast()
        guard let above = levels.last else { break }
        current = try parent(of: current, above, prefix)
        prefix.removeLast(prefix.count - top.parentLength)
        continue
      }
      let name = Array(top.names[top.position...end])
      levels[levels.count - 1].position = end + 1
      let number = try add(name, in: current.number, prefix)
      if number < 0 { continue }
      current = OwnedDescriptor(adopting: number)
      let length = prefix.count
      prefix += name.dropLast() + [47]
      levels.append(try level(of: number, prefix, parentLength: length))
    }
    try writer.finish()
  }

  private func level(of directory: Int32, _ prefix: [CChar], parentLength: Int) throws(EngineError) -> Level {
    var status = stat()
    // The stream has a descriptor of its own, with a position of its own.
    let copy = linux_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    guard copy >= 0, let stream = fdopendir(copy), fstat(directory, &status) == 0 else {
      let reason = errno
      if copy >= 0 { close(copy) }
      throw failure(prefix, reason)
    }
    defer { closedir(stream) }
    var names: [CChar] = []
    while let entry = readdir(stream) {
      withUnsafePointer(to: &entry.pointee.d_name) { tuple in
        tuple.withMemoryRebound(to: CChar.self, capacity: 256) { name in
          if strcmp(name, ".") == 0 || strcmp(name, "..") == 0 { return }
          names.append(contentsOf: UnsafeBufferPointer(start: name, count: strlen(name) + 1))
        }
      }
    }
    return Level(
      inode: Inode(device: status.st_dev, number: status.st_ino), names: names, parentLength: parentLength)
  }

  /// The directory above, which must be the one that led here.
  private func parent(
    of directory: borrowing OwnedDescriptor, _ expected: Level, _ prefix: [CChar]
  ) throws(EngineError) -> OwnedDescriptor {
    let opened = OwnedDescriptor(
      adopting: linux_openat(directory.number, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0))
    var status = stat()
    guard opened.number >= 0, fstat(opened.number, &status) == 0 else { throw failure(prefix, errno) }
    guard expected.inode == Inode(device: status.st_dev, number: status.st_ino) else {
      throw EngineError(
        .conflict, "the container's file system cannot be exported: /\(text(prefix)) was moved meanwhile")
    }
    return opened
  }

  /// - Returns: the descriptor of a directory, or -1.
  private func add(_ name: [CChar], in directory: Int32, _ prefix: [CChar]) throws(EngineError) -> Int32 {
    var status = stat()
    // It may have been removed meanwhile.
    guard fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return -1 }
    let kind = status.st_mode & S_IFMT
    // Sockets have no place in an archive.
    if kind == S_IFSOCK { return -1 }
    guard let entry = archive_entry_new() else { throw failure(prefix, ENOMEM) }
    defer { archive_entry_free(entry) }
    let path = prefix + name
    let isDirectory = kind == S_IFDIR
    archive_entry_copy_stat(entry, &status)
    archive_entry_set_pathname(entry, isDirectory ? Array(path.dropLast()) + [47, 0] : path)
    // Access and change times, names of users, and inode numbers are the host's and of no use elsewhere.
    archive_entry_unset_atime(entry)
    archive_entry_unset_ctime(entry)
    archive_entry_unset_birthtime(entry)
    if kind != S_IFREG { archive_entry_set_size(entry, 0) }
    if !isDirectory, status.st_nlink > 1 {
      let inode = Inode(device: status.st_dev, number: status.st_ino)
      if let first = names[inode] {
        archive_entry_set_hardlink(entry, first)
        archive_entry_set_size(entry, 0)
        try writer.add(entry: entry)
        return -1
      }
      names[inode] = path
    }
    switch kind {
    case S_IFLNK:
      var target = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
      guard readlinkat(directory, name, &target, target.count - 1) >= 0 else { return -1 }
      archive_entry_set_symlink(entry, target)
      try writer.add(entry: entry)
    case S_IFREG:
      let number = linux_openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
      guard number >= 0 else { return -1 }
      let file = OwnedDescriptor(adopting: number)
      addAttributes(of: file.number, to: entry)
      try writer.add(entry: entry)
      try writer.copy(file.number, Int64(status.st_size), text(path))
    case S_IFDIR:
      let number = linux_openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
      guard number >= 0 else { return -1 }
      let opened = OwnedDescriptor(adopting: number)
      addAttributes(of: opened.number, to: entry)
      try writer.add(entry: entry)
      return opened.release()
    default: try writer.add(entry: entry)
    }
    return -1
  }

  private func addAttributes(of file: Int32, to entry: OpaquePointer) {
    var names = [CChar](repeating: 0, count: 64 << 10)
    let length = flistxattr(file, &names, names.count)
    if length <= 0 { return }
    var value = [UInt8](repeating: 0, count: 64 << 10)
    names.withUnsafeBufferPointer { names in
      guard let base = names.baseAddress else { return }
      var start = 0
      while start < length {
        let name = base + start
        start += strlen(name) + 1
        guard LayerExtractor.isKept(attribute: name) else { continue }
        let count = fgetxattr(file, name, &value, value.count)
        if count >= 0 { archive_entry_xattr_add_entry(entry, name, value, count) }
      }
    }
  }

  private func text(_ path: [CChar]) -> String {
    String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private func failure(_ path: [CChar], _ number: Int32) -> EngineError {
    EngineError(
      .internalFailure,
      "the container's file system cannot be exported: /\(text(path)): \(SystemCallError.text(number))")
  }
}
