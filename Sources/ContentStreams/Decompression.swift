import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Takes the compression away from a stream, on the thread that calls it.
public enum Decompression {
  /// The first bytes of gzip, bzip2, xz and zstd streams (RFC 1952, bzip2's "BZh", the .xz file format, RFC 8878).
  private static let magics: [[UInt8]] = [
    [0x1f, 0x8b], [0x42, 0x5a, 0x68], [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], [0x28, 0xb5, 0x2f, 0xfd],
  ]

  /// Bytes that tell the format.
  static let longestMagic = 6

  enum Format {
    case none
    case gzip
    case zstd
    /// One of those that libarchive undoes.
    case other
  }

  static func format(of start: some Collection<UInt8>) -> Format {
    guard let magic = magics.first(where: { start.starts(with: $0) }) else { return .none }
    return magic[0] == 0x1f ? .gzip : magic[0] == 0x28 ? .zstd : .other
  }

  public static func isCompressed(_ start: some Collection<UInt8>) -> Bool {
    magics.contains { start.starts(with: $0) }
  }

  /// Whether `descriptor` is a regular file whose content from its present position is not compressed, so that it can be
  /// read as it is.
  public static func isPlainFile(_ descriptor: Int32) -> Bool {
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return false }
    var start = [UInt8](repeating: 0, count: 6)
    let count = pread(descriptor, &start, start.count, lseek(descriptor, 0, SEEK_CUR))
    return count >= 0 && !isCompressed(start[..<count])
  }

  /// Copies `input` to `output` without its compression, until its end or an interruption. SIGPIPE must be blocked.
  ///
  /// - Parameter output: a pipe in non-blocking mode; the copying ends quietly when its reader goes away.
  /// - Throws: `invalidArgument` when the compressed stream does not read, `cancelled` when interrupted.
  public static func copy(
    from input: Int32, to output: Int32, interruption: Interruption
  ) throws(EngineError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
    defer { buffer.deallocate() }
    let stream = try DecompressedStream(subject: "the compressed stream") { () throws(EngineError) in
      UnsafeRawBufferPointer(rebasing: buffer[..<(try interruption.read(input, into: buffer))])
    }
    while true {
      let bytes = try stream.next()
      if bytes.isEmpty { return }
      guard try write(bytes, to: output, interruption) else { return }
    }
  }

  /// Writes all of `bytes` into a pipe in non-blocking mode.
  ///
  /// - Returns: false when nobody reads any more.
  public static func write(
    _ bytes: UnsafeRawBufferPointer, to output: Int32, _ interruption: Interruption
  ) throws(EngineError) -> Bool {
    var done = 0
    while done < bytes.count {
      let count = Glibc.write(output, bytes.baseAddress?.advanced(by: done), bytes.count - done)
      if count >= 0 {
        done += count
      } else if errno == EAGAIN {
        try interruption.wait(output, for: POLLOUT)
      } else if errno == EPIPE {
        return false
      } else if errno != EINTR {
        throw EngineError(
          .internalFailure, "the decompressed stream cannot be passed on: \(SystemCallError.text(errno))")
      }
    }
    return true
  }
}
