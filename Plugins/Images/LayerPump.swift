import CLinux
import ContentStreams
import Contracts
import Glibc
import LinuxSystem

/// Moves one layer's bytes: what is here of it already and what comes through a pipe is hashed, kept, uncompressed and
/// given to whoever unpacks it, all on one thread and without a second pass.
final class LayerPump: @unchecked Sendable {
  // Unchecked: `run` is called once, on one thread, and nothing else reaches what changes.

  struct Outcome: Sendable {
    /// Of the blob as it came.
    var digest: Digest
    var size: Int64
    var format: Format
  }

  enum Format: Sendable {
    case plain
    case gzip
    case zstd
    /// A compression for which there is no media type; what is kept is the uncompressed stream.
    case other
  }

  /// Nobody unpacks any more: the reason is the unpacker's.
  static let abandoned = EngineError(.cancelled, "nobody reads the layer")

  private var inputs: [Descriptor]
  private let kept: Descriptor?
  private let keepsUncompressed: Bool
  private let limit: Int64
  private let total: Int64?
  private let interruption: Interruption
  private let subject: String
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
  private var hash = SHA256()
  private var current = 0
  private var keptBytes: Int64 = 0
  private var isBegun = false
  private(set) var format = Format.plain

  private let progress: @Sendable (Int64) -> Void
  private var lastProgress: Int64 = 0
  private var bytesRead: Int64 = 0
  private var recodes: Bool { format == .other && keepsUncompressed }

  /// - Parameters:
  ///   - inputs: read one after the other to their ends.
  ///   - kept: where the bytes of the last input are appended.
  ///   - keepsUncompressed: what has a compression without a media type is kept without it.
  ///   - progress: called now and then, on the pump's thread, with the bytes that were read.
  ///   - total: the size the blob has by its descriptor; reading ends there.
  ///   - limit: bytes that may come out.
  init(
    inputs: [Descriptor], kept: Descriptor?, keepsUncompressed: Bool = false, total: Int64?, limit: Int64,
    subject: String, interruption: Interruption, progress: @escaping @Sendable (Int64) -> Void = { _ in }
  ) {
    self.keepsUncompressed = keepsUncompressed
    self.progress = progress
    self.inputs = inputs
    self.kept = kept
    self.total = total
    self.limit = limit
    self.subject = subject
    self.interruption = interruption
  }

  deinit { buffer.deallocate() }

  /// Blocks until the whole blob went through.
  ///
  /// - Parameter output: the writing end of a pipe in non-blocking mode, closed when this returns.
  /// - Throws: `invalidArgument` for what does not uncompress or is larger than it may be, `resourceExhausted` for a full
  ///   disk, `abandoned` when the unpacker went away.
  func run(output: consuming OwnedDescriptor) throws(EngineError) -> Outcome {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    let output = output
    // Whoever writes into the last input learns by its closing that nobody reads any more.
    defer { inputs = [] }
    let stream = try DecompressedStream(subject: subject) { () throws(EngineError) in try self.next() }
    var unpacked: Int64 = 0
    while true {
      let bytes = try stream.next()
      if bytes.isEmpty { break }
      unpacked += Int64(bytes.count)
      if unpacked > limit {
        throw EngineError(
          .resourceExhausted, "\(subject) is refused: it unpacks to more than the \(limit) bytes allowed")
      }
      if recodes { try keep(bytes) }
      guard try Decompression.write(bytes, to: output.number, interruption) else { throw Self.abandoned }
    }
    // What follows the compressed stream is part of the blob all the same.
    while !(try next().isEmpty) {}
    let size = recodes ? keptBytes : bytesRead
    var finished = SHA256()
    swap(&finished, &hash)
    return Outcome(digest: try finished.finish(), size: size, format: format)
  }

  private func next() throws(EngineError) -> UnsafeRawBufferPointer {
    while current < inputs.count {
      var count = buffer.count
      if let total { count = Int(min(Int64(count), total - bytesRead)) }
      if count > 0 {
        count = try interruption.read(
          inputs[current].number, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
      }
      if count == 0 {
        current += 1
        continue
      }
      if !isBegun { try fillStart(&count) }
      let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      if !isBegun {
        isBegun = true
        format = Self.format(of: bytes)
      }
      bytesRead += Int64(count)
      report()
      if !recodes {
        hash.update(bytes)
        if current == inputs.count - 1 { try write(bytes) }
      }
      return bytes
    }
    return UnsafeRawBufferPointer(start: nil, count: 0)
  }

  /// The format is told by the first bytes, which a pipe may give in pieces.
  private func fillStart(_ count: inout Int) throws(EngineError) {
    while count < 6, total.map({ Int64(count) < $0 }) ?? true {
      let more = try interruption.read(
        inputs[current].number, into: UnsafeMutableRawBufferPointer(rebasing: buffer[count..<6]))
      if more == 0 { return }
      count += more
    }
  }

  private func report() {
    let milliseconds = MonotonicClock.now / 1_000_000
    if milliseconds - lastProgress < 100 { return }
    lastProgress = milliseconds
    progress(bytesRead)
  }

  private static func format(of start: UnsafeRawBufferPointer) -> Format {
    if start.starts(with: [0x1f, 0x8b]) { return .gzip }
    if start.starts(with: [0x28, 0xb5, 0x2f, 0xfd]) { return .zstd }
    return Decompression.isCompressed(start) ? .other : .plain
  }

  private func keep(_ bytes: UnsafeRawBufferPointer) throws(EngineError) {
    hash.update(bytes)
    try write(bytes)
  }

  private func write(_ bytes: UnsafeRawBufferPointer) throws(EngineError) {
    guard let kept else { return }
    var done = 0
    do throws(SystemCallError) {
      while done < bytes.count {
        done += try SystemCallError.check("write", subject) {
          Glibc.write(kept.number, bytes.baseAddress?.advanced(by: done), bytes.count - done)
        }
      }
    } catch {
      throw Storage.error("\(subject) cannot be stored", error)
    }
    let before = keptBytes
    keptBytes += Int64(done)
    // Every 8 MiB go on their way to the disk, so that little is left for the sync before the record.
    if keptBytes >> 23 != before >> 23 {
      sync_file_range(kept.number, 0, 0, UInt32(SYNC_FILE_RANGE_WRITE))
    }
  }
}
