import CIsal
import Contracts

/// Gives the next bytes of a stream, or an empty buffer at its end; they stay valid until it is asked again.
public typealias ByteSource = () throws(EngineError) -> UnsafeRawBufferPointer

/// Undoes gzip (RFC 1952) with ISA-L's igzip, which inflates two to three times as fast as zlib. Streams of several
/// members, as pigz and eStargz write them, are read as one; what follows the last member is passed over, as gzip(1)
/// does.
final class GzipStream {
  private static let bufferSize = 256 << 10

  private let source: ByteSource
  private let subject: String
  private let state = UnsafeMutablePointer<inflate_state>.allocate(capacity: 1)
  private let output = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 4096)
  private var hasEnded = false

  init(subject: String, source: @escaping ByteSource) {
    self.source = source
    self.subject = subject
    isal_inflate_init(state)
    state.pointee.crc_flag = UInt32(ISAL_GZIP)
    state.pointee.avail_in = 0
  }

  deinit {
    state.deallocate()
    output.deallocate()
  }

  /// The next uncompressed bytes, or an empty buffer at the end.
  ///
  /// - Throws: `invalidArgument` for a stream that is damaged or cut short, or what the source threw.
  func next() throws(EngineError) -> UnsafeRawBufferPointer {
    while !hasEnded {
      if state.pointee.avail_in == 0, !(try refill()), state.pointee.block_state != ISAL_BLOCK_FINISH {
        // What the inflater holds back may still come out; if nothing does, the stream is cut short.
        let bytes = try inflate()
        if !bytes.isEmpty || state.pointee.block_state == ISAL_BLOCK_FINISH { return bytes }
        throw failure("it is cut short")
      }
      if state.pointee.block_state == ISAL_BLOCK_FINISH {
        guard try beginNextMember() else {
          hasEnded = true
          break
        }
      }
      let bytes = try inflate()
      if !bytes.isEmpty { return bytes }
    }
    return UnsafeRawBufferPointer(start: nil, count: 0)
  }

  private func refill() throws(EngineError) -> Bool {
    let bytes = try source()
    // igzip does not write through its input pointer, which is only not const.
    state.pointee.next_in = UnsafeMutablePointer(
      mutating: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
    state.pointee.avail_in = UInt32(bytes.count)
    return !bytes.isEmpty
  }

  private func inflate() throws(EngineError) -> UnsafeRawBufferPointer {
    state.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
    state.pointee.avail_out = UInt32(output.count)
    let result = isal_inflate(state)
    guard result == ISAL_DECOMP_OK || result == ISAL_END_INPUT else {
      throw failure(result == ISAL_INCORRECT_CHECKSUM ? "its checksum is wrong" : "it does not inflate")
    }
    return UnsafeRawBufferPointer(rebasing: output[..<(output.count - Int(state.pointee.avail_out))])
  }

  /// - Returns: false when there is no other member.
  private func beginNextMember() throws(EngineError) -> Bool {
    if state.pointee.avail_in == 0, !(try refill()) { return false }
    guard state.pointee.next_in[0] == 0x1f, state.pointee.avail_in < 2 || state.pointee.next_in[1] == 0x8b else {
      return false
    }
    isal_inflate_reset(state)
    state.pointee.crc_flag = UInt32(ISAL_GZIP)
    return true
  }

  private func failure(_ why: String) -> EngineError {
    EngineError(.invalidArgument, "\(subject) is damaged: its gzip stream does not read: \(why)")
  }
}
