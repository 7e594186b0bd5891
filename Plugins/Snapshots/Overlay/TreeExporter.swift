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

  /// Each level holds a descriptor.
  private static let maximumDepth = 512

  private let writer: ArchiveWriter
  /// The first name of files that have several.
  private var names: [Inode: [CChar]] = [:]

  init(_ writer: ArchiveWriter) { self.writer = writer }

  /// - Parameter root: an open directory, borrowed.
  func export(_ root: Int32) throws(EngineError) {
    let opened = linux_openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    guard opened >= 0 else { throw failure([], errno) }
    try add(contentOf: OwnedDescriptor(adopting: opened), [], depth: 0)
    try writer.finish()
  }

  /// - Parameter prefix: the directory's path with a final slash, without a NUL.
  private func add(
    contentOf directory: consuming OwnedDescriptor, _ prefix: [CChar], depth: Int
  ) throws(EngineError) {
    guard depth < Self.maximumDepth else {
      throw EngineError(.unsupported, "the container's file system is nested deeper than \(Self.maximumDepth) levels")
    }
    let number = directory.release()
    guard let stream = fdopendir(number) else {
      let reason = errno
      close(number)
      throw failure(prefix, reason)
    }
    defer { closedir(stream) }
    while let entry = readdir(stream) {
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        bytes.prefix { $0 != 0 }.map { CChar(bitPattern: $0) }
      }
      if name == [46] || name == [46, 46] { continue }
      try add(name + [0], in: number, prefix, depth: depth)
    }
  }

  private func add(_ name: [CChar], in directory: Int32, _ prefix: [CChar], depth: Int) throws(EngineError) {
    var status = stat()
    // It may have been removed meanwhile.
    guard fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return }
    let kind = status.st_mode & S_IFMT
    // Sockets have no place in an archive.
    if kind == S_IFSOCK { return }
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
        return try writer.add(entry: entry)
      }
      names[inode] = path
    }
    switch kind {
    case S_IFLNK:
      var target = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
      guard readlinkat(directory, name, &target, target.count - 1) >= 0 else { return }
      archive_entry_set_symlink(entry, target)
      try writer.add(entry: entry)
    case S_IFREG:
      let number = linux_openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0)
      guard number >= 0 else { return }
      let file = OwnedDescriptor(adopting: number)
      addAttributes(of: file.number, to: entry)
      try writer.add(entry: entry)
      try writer.copy(file.number, Int64(status.st_size), text(path))
    case S_IFDIR:
      let number = linux_openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
      guard number >= 0 else { return }
      addAttributes(of: number, to: entry)
      let opened = OwnedDescriptor(adopting: number)
      try writer.add(entry: entry)
      try add(contentOf: opened, Array(path.dropLast()) + [47], depth: depth + 1)
    default: try writer.add(entry: entry)
    }
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
