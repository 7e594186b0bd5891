import Contracts

/// A stream without its compression, which is told by its first bytes: gzip, zstd, xz, bzip2, lzma or none.
public final class DecompressedStream {
  private enum Method {
    case none(ByteSource)
    case gzip(GzipStream)
    case zstd(ZstdStream)
    case archive(ArchiveReader)
  }

  private let method: Method
  private var hasEntry = false

  /// Reads the first bytes.
  ///
  /// - Parameter subject: what it is, for errors: `the layer`.
  public init(subject: String, source: @escaping ByteSource) throws(EngineError) {
    var head: [UInt8] = []
    var first = try source()
    // Whole buffers are passed on as they are; only a first read of a few bytes is copied.
    while first.count + head.count < Decompression.longestMagic, !first.isEmpty {
      head += first
      first = try source()
    }
    let start = head + first.prefix(Decompression.longestMagic)
    let held = Held(head: head, first: first)
    let whole: ByteSource = { () throws(EngineError) in
      if let bytes = held.take() { return bytes }
      return try source()
    }
    switch Decompression.format(of: start) {
    case .none: method = .none(whole)
    case .gzip: method = .gzip(GzipStream(subject: subject, source: whole))
    case .zstd: method = .zstd(try ZstdStream(subject: subject, source: whole))
    case .other: method = .archive(try ArchiveReader(.raw, decompressing: true, subject: subject, source: whole))
    }
  }

  /// The next uncompressed bytes, or an empty buffer at the end; they stay valid until the next call.
  ///
  /// - Throws: `invalidArgument` for a stream that does not read, or what the source threw.
  public func next() throws(EngineError) -> UnsafeRawBufferPointer {
    switch method {
    case .none(let source): return try source()
    case .gzip(let stream): return try stream.next()
    case .zstd(let stream): return try stream.next()
    case .archive(let reader):
      if !hasEntry {
        hasEntry = true
        guard try reader.next() else { return UnsafeRawBufferPointer(start: nil, count: 0) }
      }
      return try reader.block()?.bytes ?? UnsafeRawBufferPointer(start: nil, count: 0)
    }
  }

  /// What was read to tell the format, given out once before the rest.
  private final class Held {
    private let head: [UInt8]
    private let copy: UnsafeMutableRawBufferPointer
    private var first: UnsafeRawBufferPointer?
    private var headIsTaken: Bool

    init(head: [UInt8], first: UnsafeRawBufferPointer) {
      self.head = head
      self.first = first
      headIsTaken = head.isEmpty
      copy = .allocate(byteCount: max(1, head.count), alignment: 1)
      copy.copyBytes(from: head)
    }

    deinit { copy.deallocate() }

    func take() -> UnsafeRawBufferPointer? {
      if !headIsTaken {
        headIsTaken = true
        return UnsafeRawBufferPointer(rebasing: copy[..<head.count])
      }
      defer { first = nil }
      return first
    }
  }
}
