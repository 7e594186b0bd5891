import AsyncHTTPClient
import CLinux
import Contracts
import Glibc
import LinuxSystem
import NIOCore
import Synchronization

/// A blob on its way into a pipe. It goes on where it was when a connection breaks, also on another server.
final class BlobDownload: Sendable {
  private let request: RegistryBlobGet
  private let client: RegistryClient
  private let name: String
  /// Bytes of the blob that are in the pipe or were there before.
  private let position: Mutex<Int64>

  init(_ request: RegistryBlobGet, _ client: RegistryClient) {
    self.request = request
    self.client = client
    name = "the blob \(request.digest.short)… of \(request.repository.familiar)"
    position = Mutex(request.offset)
  }

  /// - Returns: the number of bytes written.
  func run() async throws(EngineError) -> Int64 {
    guard request.offset >= 0, request.size >= request.offset else {
      throw EngineError(.invalidArgument, "\(name) has no byte \(request.offset)")
    }
    if request.offset == request.size { return 0 }
    let sink = request.sink.number
    let flags = linux_fcntl(sink, F_GETFL, 0)
    guard flags >= 0, linux_fcntl(sink, F_SETFL, Int(flags | O_NONBLOCK)) == 0 else {
      throw EngineError(.invalidArgument, "the pipe for \(name) cannot be written: \(SystemCallError.text(errno))")
    }
    var exchange = request.repository.exchange("pull")
    exchange.path = "/v2/\(request.repository.name)/blobs/\(request.digest)"
    exchange.usesMirrors = true
    exchange.sink = sink
    exchange.headers = {
      let position = self.position.withLock { $0 }
      return position == 0 ? [] : [("range", "bytes=\(position)-")]
    }
    try await client.perform(exchange) { (answer) async throws(Fault) in try await self.receive(answer) }
    return request.size - request.offset
  }

  private func receive(_ answer: Answer) async throws(Fault) {
    let start = position.withLock { $0 }
    // Bytes that come again because the server knows no ranges.
    var surplus = try await check(answer, start)
    var position = start
    func broken(_ fault: Fault) -> Fault {
      var fault = fault
      // A server that gives a little and breaks every time is not worth it for ever.
      fault.madeProgress = position - start >= min(1 << 20, max(1, (request.size - request.offset) / 16))
      return fault
    }
    do throws(Fault) {
      var iterator = answer.response.body.makeAsyncIterator()
      while var chunk = try await BodyReader.next(&iterator, at: answer.address) {
        answer.watchdog.progress(chunk.readableBytes)
        if surplus > 0 {
          let passed = Int(min(surplus, Int64(chunk.readableBytes)))
          chunk.moveReaderIndex(forwardBy: passed)
          surplus -= Int64(passed)
        }
        guard position + Int64(chunk.readableBytes) <= request.size else { throw tooLong(answer) }
        try write(chunk, answer.watchdog)
        position += Int64(chunk.readableBytes)
        self.position.withLock { $0 = position }
      }
      if Task.isCancelled { throw .cancellation }
      guard position == request.size else {
        throw Fault(
          .transient, .corrupt, "\(answer.host) sent only \(position) of the \(request.size) bytes of \(name)")
      }
    } catch {
      throw broken(error)
    }
  }

  private func tooLong(_ answer: Answer) -> Fault {
    Fault(.final, .corrupt, "\(answer.host) sends more than the \(request.size) bytes that \(name) has")
  }

  /// - Returns: how many of the bytes that come are to be passed over.
  private func check(_ answer: Answer, _ start: Int64) async throws(Fault) -> Int64 {
    let length = BodyReader.contentLength(answer.response)
    switch answer.code {
    case 200:
      if let length, length != request.size {
        if length > request.size { throw tooLong(answer) }
        throw Fault(.transient, .corrupt, "\(answer.host) has only \(length) of the \(request.size) bytes of \(name)")
      }
      return start
    case 206:
      // `bytes 100-199/200` (RFC 9110, 14.4)
      let range = answer.response.headers.first(name: "content-range") ?? ""
      let first = range.hasPrefix("bytes ") ? Int64(range.dropFirst(6).prefix { $0 != "-" }) : nil
      guard let first, first >= 0, first <= start else {
        throw Fault(
          .final, .protocolViolation,
          "\(answer.host) sends another part of \(name) than was asked for (\(Words.clean(range)))")
      }
      if let length, first + length > request.size { throw tooLong(answer) }
      return start - first
    case 404:
      throw Fault(.final, .notFound, "\(answer.host) does not have \(name): blob unknown to registry")
    case 416:
      throw Fault(.final, .corrupt, "\(answer.host) has fewer than \(start) bytes of \(name)")
    default:
      throw await client.failure(answer, .final, .unavailable)
    }
  }

  /// Writes a chunk. This thread waits while the pipe is full, and gets no further chunk meanwhile: that is what keeps
  /// the server from sending more than is taken.
  private func write(_ chunk: ByteBuffer, _ watchdog: Watchdog) throws(Fault) {
    let sink = request.sink.number
    let failed = chunk.withUnsafeReadableBytes { bytes -> Int32 in
      var offset = 0
      var isPaused = false
      defer { if isPaused { watchdog.resume() } }
      while offset < bytes.count {
        let count = Glibc.write(sink, bytes.baseAddress?.advanced(by: offset), bytes.count - offset)
        if count >= 0 {
          offset += count
          continue
        }
        let number = errno
        if number == EINTR { continue }
        guard number == EAGAIN else { return number }
        if !isPaused {
          watchdog.pause()
          isPaused = true
        }
        if Task.isCancelled { return ECANCELED }
        var entry = pollfd(fd: sink, events: Int16(POLLOUT), revents: 0)
        _ = poll(&entry, 1, 500)
      }
      return 0
    }
    switch failed {
    case 0: return
    case ECANCELED: throw .cancellation
    case EPIPE: throw Fault(.cancelled, .cancelled, "the reader of \(name) went away")
    default:
      throw Fault(.final, .internalFailure, "\(name) cannot be written: \(SystemCallError.text(failed))")
    }
  }
}
