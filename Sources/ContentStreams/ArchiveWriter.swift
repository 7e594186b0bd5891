import CArchive
import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Writes a tar archive (pax where the old headers do not suffice) through libarchive into a file or a pipe.
public final class ArchiveWriter {
  private let archive: OpaquePointer
  private let subject: String
  private let output: Descriptor
  private var isFinished = false
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)

  /// - Parameter output: written to its end; the caller closes it.
  public init(_ output: Descriptor, subject: String) throws(EngineError) {
    guard let archive = archive_write_new() else {
      throw EngineError(.resourceExhausted, "no memory to write an archive")
    }
    self.archive = archive
    self.subject = subject
    self.output = output
    archive_write_set_format_pax_restricted(archive)
    archive_write_set_bytes_per_block(archive, 64 << 10)
    archive_write_set_bytes_in_last_block(archive, 512)
    guard archive_write_open_fd(archive, output.number) == ARCHIVE_OK else { throw failure() }
  }

  deinit {
    // Without it libarchive completes an entry that was left off: a sparse terabyte with that many zeros.
    if !isFinished { archive_write_fail(archive) }
    archive_write_free(archive)
    buffer.deallocate()
  }

  /// A pipe whose reader went away ends the writing with an error, not the process.
  public static func blockBrokenPipes() {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  public func addDirectory(_ name: String) throws(EngineError) {
    try add(name, type: S_IFDIR, mode: 0o755, size: 0)
  }

  public func add(_ name: String, _ bytes: [UInt8]) throws(EngineError) {
    try add(name, type: S_IFREG, mode: 0o644, size: Int64(bytes.count))
    let written = bytes.withUnsafeBytes { bytes -> Result<Void, EngineError> in
      do throws(EngineError) {
        return .success(try write(bytes))
      } catch {
        return .failure(error)
      }
    }
    try written.get()
  }

  /// A member with the content of a regular file.
  public func add(_ name: String, from file: Descriptor) throws(EngineError) {
    var status = stat()
    guard fstat(file.number, &status) == 0 else { throw unreadable(name, errno) }
    try add(name, type: S_IFREG, mode: 0o644, size: Int64(status.st_size))
    try copy(file.number, Int64(status.st_size), name)
  }

  /// An entry with all that `archive_entry_*` functions say of it; content follows with `write` or `copy`.
  public func add(entry: OpaquePointer) throws(EngineError) {
    guard archive_write_header(archive, entry) >= ARCHIVE_WARN else { throw failure() }
  }

  /// The content of the entry that was added last; what a file that shrank lacks is filled with zeros.
  public func copy(_ file: Int32, _ size: Int64, _ name: String) throws(EngineError) {
    var left = size
    while left > 0 {
      // A sparse file may take hours, and whoever asked may be gone.
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      let count = read(file, buffer.baseAddress, min(buffer.count, Int(left)))
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw unreadable(name, errno) }
      if count == 0 { return }
      try write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      left -= Int64(count)
    }
  }

  /// Writes the end of the archive.
  public func finish() throws(EngineError) {
    guard archive_write_close(archive) == ARCHIVE_OK else { throw failure() }
    isFinished = true
  }

  private func add(_ name: String, type: mode_t, mode: mode_t, size: Int64) throws(EngineError) {
    guard let entry = archive_entry_new() else { throw failure() }
    defer { archive_entry_free(entry) }
    archive_entry_set_pathname(entry, name)
    archive_entry_set_filetype(entry, type)
    archive_entry_set_perm(entry, mode)
    archive_entry_set_size(entry, size)
    // The same images give the same archive.
    archive_entry_set_mtime(entry, 0, 0)
    try add(entry: entry)
  }

  private func write(_ bytes: UnsafeRawBufferPointer) throws(EngineError) {
    var done = 0
    while done < bytes.count {
      let count = archive_write_data(archive, bytes.baseAddress?.advanced(by: done), bytes.count - done)
      guard count > 0 else { throw failure() }
      done += count
    }
  }

  private func unreadable(_ name: String, _ number: Int32) -> EngineError {
    EngineError(
      .internalFailure, "\(subject) cannot be written: \(name) does not read: \(SystemCallError.text(number))")
  }

  private func failure() -> EngineError {
    switch archive_errno(archive) {
    case ENOSPC, EDQUOT: return EngineError(.resourceExhausted, "\(subject) cannot be written: no space left on device")
    case EPIPE: return EngineError(.cancelled, "\(subject) cannot be written: nobody reads it any more")
    default:
      let reason = archive_error_string(archive).map { String(cString: $0) } ?? "unknown error"
      return EngineError(.internalFailure, "\(subject) cannot be written: \(reason)")
    }
  }
}
