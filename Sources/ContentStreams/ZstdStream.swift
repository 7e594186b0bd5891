import CZstd
import Contracts

/// Undoes zstd (RFC 8878), frame after frame, with libzstd.
final class ZstdStream {
  private let source: ByteSource
  private let subject: String
  private let context: OpaquePointer
  private let output: UnsafeMutableRawBufferPointer
  private var input = ZSTD_inBuffer(src: nil, size: 0, pos: 0)
  /// What the last call said: 0 at the end of a frame.
  private var pending = 0
  private var outputWasFull = false

  init(subject: String, source: @escaping ByteSource) throws(EngineError) {
    guard let context = ZSTD_createDStream() else {
      throw EngineError(.resourceExhausted, "no memory to decompress \(subject)")
    }
    self.context = context
    self.source = source
    self.subject = subject
    output = .allocate(byteCount: max(256 << 10, ZSTD_DStreamOutSize()), alignment: 4096)
    // 64 MiB of window: more is only written by zstd --long, and would not leave room for three layers at once.
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 26)
  }

  deinit {
    ZSTD_freeDStream(context)
    output.deallocate()
  }

  /// The next uncompressed bytes, or an empty buffer at the end.
  ///
  /// - Throws: `invalidArgument` for a stream that is damaged or cut short, or what the source threw.
  func next() throws(EngineError) -> UnsafeRawBufferPointer {
    while true {
      if input.pos == input.size && !outputWasFull {
        let bytes = try source()
        input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
        if bytes.isEmpty {
          if pending != 0 {
            throw EngineError(.invalidArgument, "\(subject) is damaged: its zstd stream is cut short")
          }
          return UnsafeRawBufferPointer(start: nil, count: 0)
        }
      }
      var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
      pending = ZSTD_decompressStream(context, &target, &input)
      if ZSTD_isError(pending) != 0 {
        let reason = ZSTD_getErrorName(pending).map { String(cString: $0) } ?? "unknown error"
        throw EngineError(.invalidArgument, "\(subject) is damaged: its zstd stream does not read: \(reason)")
      }
      outputWasFull = target.pos == target.size
      if target.pos > 0 { return UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(output)[..<target.pos]) }
    }
  }
}
