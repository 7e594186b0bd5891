import CArchive
import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// A layer's way from its bytes to its files, without a disk: decompressed, hashed on a thread of its own, and taken
/// apart.
final class ContentWorkloads {
  /// Sixteen megabytes in 256 files, half of what they hold the same again and again.
  private static let files = 256
  private static let fileSize = 64 << 10
  private static let regularFile: mode_t = S_IFREG
  private static let megabytes = (files * fileSize) >> 20

  private let archive: Descriptor
  private let compressed: Descriptor

  init() throws {
    archive = try Self.layer(compressed: false)
    compressed = try Self.layer(compressed: true)
  }

  var all: [Workload] {
    let count = Self.megabytes
    return [
      Workload("content", "hash a layer and take its tar apart", per: "MB", count: count) { [archive] in
        try Self.takeApart(archive)
      },
      Workload("content", "decompress a layer (gzip)", per: "MB", count: count) { [compressed] in
        try Self.decompress(compressed)
      },
      Workload("content", "decompress, hash and take apart", per: "MB", count: count) { [compressed] in
        try Self.unpack(compressed)
      },
    ]
  }

  private static func takeApart(_ archive: Descriptor) throws(EngineError) {
    lseek(archive.number, 0, SEEK_SET)
    let stream = HashedStream(archive.number, interruption: try Interruption())
    try takeApart(stream)
  }

  private static func takeApart(_ stream: HashedStream) throws(EngineError) {
    guard Thread.start({ stream.readAndHash() }) else { throw EngineError(.resourceExhausted, "no thread is left") }
    defer { stream.abandon() }
    let reader = try ArchiveReader(.tar, decompressing: false, subject: "the layer") { () throws(EngineError) in
      try stream.next()
    }
    var entries = 0
    while try reader.next() {
      entries += 1
      while try reader.block() != nil {}
    }
    let (_, endsInZeros) = try stream.finish()
    guard entries == files, endsInZeros else {
      throw EngineError(.internalFailure, "the layer has \(entries) of \(files) entries")
    }
  }

  private static func decompress(_ archive: Descriptor) throws(EngineError) {
    var bytes = 0
    try decompress(archive) { bytes += $0.count }
    guard bytes >= files * fileSize else { throw EngineError(.internalFailure, "only \(bytes) bytes were read") }
  }

  private static func decompress(
    _ archive: Descriptor, _ body: (UnsafeRawBufferPointer) throws(EngineError) -> Void
  ) throws(EngineError) {
    lseek(archive.number, 0, SEEK_SET)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
    defer { buffer.deallocate() }
    let stream = try DecompressedStream(subject: "the layer") { () throws(EngineError) in
      let count = read(archive.number, buffer.baseAddress, buffer.count)
      guard count >= 0 else { throw EngineError(.internalFailure, "read: \(SystemCallError.text(errno))") }
      return UnsafeRawBufferPointer(rebasing: buffer[..<count])
    }
    while true {
      let bytes = try stream.next()
      if bytes.isEmpty { return }
      try body(bytes)
    }
  }

  /// As a pull does: decompressed on one thread into a pipe, from which the other side hashes and takes apart.
  private static func unpack(_ archive: Descriptor) throws(EngineError) {
    var ends: [Int32] = [-1, -1]
    guard pipe2(&ends, O_CLOEXEC) == 0 else { throw EngineError(.resourceExhausted, SystemCallError.text(errno)) }
    let (output, input) = (Descriptor(adopting: ends[0]), ends[1])
    linux_fcntl(input, F_SETPIPE_SZ, 1 << 20)
    guard
      Thread.start({
        ArchiveWriter.blockBrokenPipes()
        defer { close(input) }
        do throws(EngineError) {
          try decompress(archive) { (bytes) throws(EngineError) in
            var rest = bytes
            while !rest.isEmpty {
              let count = write(input, rest.baseAddress, rest.count)
              guard count > 0 else { throw EngineError(.internalFailure, "write: \(SystemCallError.text(errno))") }
              rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
          }
        } catch {
          // The other side finds the archive cut short.
        }
      })
    else {
      close(input)
      throw EngineError(.resourceExhausted, "no thread is left")
    }
    try takeApart(HashedStream(output.number, interruption: try Interruption()))
    withExtendedLifetime(output) {}
  }

  /// An archive in memory.
  private static func layer(compressed: Bool) throws -> Descriptor {
    let file = Descriptor(
      adopting: try SystemCallError.check("memfd_create") { linux_memfd_create("layer", UInt32(MFD_CLOEXEC)) })
    guard let archive = archive_write_new() else { throw EngineError(.resourceExhausted, "no memory for an archive") }
    defer { archive_write_free(archive) }
    if compressed { archive_write_add_filter_gzip(archive) }
    archive_write_set_format_pax_restricted(archive)
    guard archive_write_open_fd(archive, file.number) == ARCHIVE_OK else {
      throw EngineError(.internalFailure, "no archive can be written")
    }
    // Half noise (xorshift), half text: it is packed to about half, as programs are.
    var noise: UInt64 = 88_172_645_463_325_252
    var bytes = [UInt8](repeating: 0, count: fileSize)
    for number in 0..<files {
      for index in 0..<fileSize {
        if index & 64 == 0 {
          noise ^= noise << 13
          noise ^= noise >> 7
          noise ^= noise << 17
          bytes[index] = UInt8(truncatingIfNeeded: noise)
        } else {
          bytes[index] = UInt8(97 + index % 26)
        }
      }
      let entry = archive_entry_new()
      defer { archive_entry_free(entry) }
      archive_entry_set_pathname(entry, "usr/lib/file\(number)")
      archive_entry_set_filetype(entry, Self.regularFile)
      archive_entry_set_perm(entry, 0o644)
      archive_entry_set_size(entry, Int64(fileSize))
      guard archive_write_header(archive, entry) == ARCHIVE_OK,
        archive_write_data(archive, bytes, fileSize) == fileSize
      else { throw EngineError(.internalFailure, "no archive can be written") }
    }
    guard archive_write_close(archive) == ARCHIVE_OK else {
      throw EngineError(.internalFailure, "no archive can be written")
    }
    return file
  }
}
