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
    var count = 0
    while count < 6 {
      let more = try interruption.read(input, into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
      if more == 0 { break }
      count += more
    }
    guard isCompressed(buffer[..<count]) else {
      while count > 0 {
        guard try write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: output, interruption) else { return }
        count = try interruption.read(input, into: buffer)
      }
      return
    }
    var start: Int? = count
    let reader = try ArchiveReader(.raw, decompressing: true, subject: "the compressed stream") {
      () throws(EngineError) in
      if let first = start {
        start = nil
        return UnsafeRawBufferPointer(rebasing: buffer[..<first])
      }
      let more = try interruption.read(input, into: buffer)
      return UnsafeRawBufferPointer(rebasing: buffer[..<more])
    }
    while try reader.next() {
      while let (bytes, _) = try reader.block() {
        guard try write(bytes, to: output, interruption) else { return }
      }
    }
  }

  /// - Returns: false when nobody reads any more.
  private static func write(
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
