import CArchive
import Contracts
import Glibc

/// Reads a tar archive, or a compressed stream as one raw entry, through libarchive. Only readers are used: what an
/// entry may do to a file system is decided by whoever reads it.
///
/// Only filters that live in the library are allowed, because others (lrzip, grzip) would start a program.
public final class ArchiveReader {
  public enum Format: Sendable {
    /// A tar stream of any flavour.
    case tar
    /// Bytes of any kind, of which only the compression is taken away.
    case raw
  }

  /// Gives the next bytes, or an empty buffer at the end; they stay valid until it is asked again.
  public typealias Source = () throws(EngineError) -> UnsafeRawBufferPointer

  private let archive: OpaquePointer
  private let source: Source
  private let subject: String
  private let isTar: Bool
  private var failure: EngineError?
  /// Bytes that the headers of one entry may take, among them the map of a sparse file: libarchive keeps that in memory,
  /// ten times as large as it is in the archive.
  private static let headerLimit = 4 << 20
  /// What is left of it; nil while data is read.
  private var headerBytes: Int?
  /// The entry that `next` moved to, for `archive_entry_*` functions.
  public private(set) var entry: OpaquePointer?

  /// - Parameters:
  ///   - decompressing: gzip, bzip2, xz, zstd and lzma are recognised and undone.
  ///   - subject: what it is, for errors: `the archive`.
  public init(
    _ format: Format, decompressing: Bool, subject: String, source: @escaping Source
  ) throws(EngineError) {
    guard let archive = archive_read_new() else {
      throw EngineError(.resourceExhausted, "no memory to read an archive")
    }
    self.archive = archive
    self.source = source
    self.subject = subject
    isTar = format == .tar
    if decompressing {
      archive_read_support_filter_gzip(archive)
      archive_read_support_filter_bzip2(archive)
      archive_read_support_filter_xz(archive)
      archive_read_support_filter_lzma(archive)
      archive_read_support_filter_zstd(archive)
    }
    switch format {
    case .tar:
      archive_read_support_format_tar(archive)
      archive_read_support_format_empty(archive)
    case .raw:
      archive_read_support_format_raw(archive)
      archive_read_support_format_empty(archive)
    }
    // Unretained: the callback only runs inside calls on this object, which therefore lives.
    let result = archive_read_open(
      archive, Unmanaged.passUnretained(self).toOpaque(), nil,
      { archive, context, buffer in
        guard let context, let buffer else { return -1 }
        return Unmanaged<ArchiveReader>.fromOpaque(context).takeUnretainedValue().pull(archive, buffer)
      }, nil)
    guard result == ARCHIVE_OK else { throw error() }
  }

  deinit { archive_read_free(archive) }

  private func pull(_ archive: OpaquePointer?, _ buffer: UnsafeMutablePointer<UnsafeRawPointer?>) -> Int {
    do throws(EngineError) {
      if let left = headerBytes, left < 0 {
        throw EngineError(
          .invalidArgument,
          "\(subject) is refused: the headers of an entry take more than \(Self.headerLimit >> 20) MiB")
      }
      let bytes = try source()
      headerBytes = headerBytes.map { $0 - bytes.count }
      buffer.pointee = bytes.baseAddress
      return bytes.count
    } catch {
      failure = error
      return -1
    }
  }

  /// Moves to the next entry.
  ///
  /// - Returns: false at the end of the archive.
  /// - Throws: what the source threw, or `invalidArgument` for an archive that does not read.
  public func next() throws(EngineError) -> Bool {
    // What nobody read of the last entry is no part of the next one's headers.
    if entry != nil, archive_read_data_skip(archive) < ARCHIVE_WARN { throw error() }
    if isTar { headerBytes = Self.headerLimit }
    defer { headerBytes = nil }
    while true {
      switch archive_read_next_header(archive, &entry) {
      case ARCHIVE_OK, ARCHIVE_WARN:
        // A warning says that a name could not be converted to the locale; its bytes are kept as they came.
        return true
      case ARCHIVE_EOF: return false
      case ARCHIVE_RETRY: continue
      default: throw error()
      }
    }
  }

  /// The entry's name, repaired where it is not UTF-8.
  public var name: String { entry.flatMap { archive_entry_pathname($0) }.map { String(cString: $0) } ?? "" }

  /// The next piece of the entry's data, with its offset in the file (what is skipped is a hole); nil at its end.
  public func block() throws(EngineError) -> (bytes: UnsafeRawBufferPointer, offset: Int64)? {
    var base: UnsafeRawPointer?
    var size = 0
    var offset: Int64 = 0
    while true {
      switch archive_read_data_block(archive, &base, &size, &offset) {
      case ARCHIVE_OK, ARCHIVE_WARN: return (UnsafeRawBufferPointer(start: base, count: size), offset)
      case ARCHIVE_EOF: return nil
      case ARCHIVE_RETRY: continue
      default: throw error()
      }
    }
  }

  /// The entry's data, at most `limit` bytes.
  ///
  /// - Throws: `invalidArgument` that names the entry when it is longer.
  public func data(limit: Int, name: String) throws(EngineError) -> [UInt8] {
    var content: [UInt8] = []
    while let (bytes, _) = try block() {
      guard content.count + bytes.count <= limit else {
        throw EngineError(.invalidArgument, "\(subject) is refused: \(name) is larger than \(limit >> 10) KiB")
      }
      content.append(contentsOf: bytes)
    }
    return content
  }

  private func error() -> EngineError {
    if let failure { return failure }
    let reason = archive_error_string(archive).map { String(cString: $0) } ?? "it does not read"
    return EngineError(.invalidArgument, "\(subject) is damaged, cut short, or not an archive: \(reason)")
  }
}
