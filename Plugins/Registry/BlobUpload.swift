import AsyncHTTPClient
import Contracts
import Glibc
import Kernel
import LinuxSystem
import NIOCore
import NIOHTTP1

/// Brings a blob into a repository with the least effort: it is there, another repository lends it, or it is sent.
struct BlobUpload: Sendable {
  private static let chunkSize = 128 << 10
  /// A registry reads what it got once more before it answers.
  private static let answerLimit: Duration = .seconds(300)

  private let request: RegistryBlobPut
  private let client: RegistryClient
  private let sink: Sink<Int64>
  private let name: String

  init(_ request: RegistryBlobPut, _ client: RegistryClient, _ sink: Sink<Int64>) {
    self.request = request
    self.client = client
    self.sink = sink
    name = "the blob \(request.digest.short)… of \(request.repository.familiar)"
  }

  func run() async throws(EngineError) -> RegistryBlobPut.Reply {
    if try await isThere() { return .existed }
    // More sources than that are more questions than an answer is worth.
    for source in request.mountFrom.filter({ $0 != request.repository.name }).prefix(3) {
      if try await mount(from: source) { return .mounted }
    }
    var attempt = 0
    while true {
      do {
        try await send(to: try await begin())
        return .uploaded
      } catch {
        // Half an upload is not gone on with: the registry may have kept any part of it.
        guard error.code == .unavailable, attempt < client.configuration.retries, !Task.isCancelled else {
          if error.code == .cancelled || error.code == .permissionDenied { throw error }
          throw EngineError(error.code, "cannot push \(name)", because: error)
        }
        await client.timekeeper.sleep(client.configuration.retryPause * (1 << min(attempt, 6)))
        attempt += 1
      }
    }
  }

  private func exchange(_ method: HTTPMethod, _ path: String) -> Exchange {
    var exchange = request.repository.exchange("pull,push")
    exchange.method = method
    exchange.path = "/v2/\(request.repository.name)/blobs/\(path)"
    return exchange
  }

  private func isThere() async throws(EngineError) -> Bool {
    let size = request.size
    return try await client.perform(exchange(.HEAD, request.digest.description)) { (answer) async throws(Fault) in
      if answer.code == 404 { return false }
      guard answer.code == 200 else { throw await client.failure(answer, .final, .unavailable) }
      return BodyReader.contentLength(answer.response).map { $0 == size } ?? true
    }
  }

  /// A mount that is refused for whatever reason is no failure: the blob is sent instead.
  private func mount(from source: String) async throws(EngineError) -> Bool {
    var exchange = exchange(.POST, "uploads/?mount=\(request.digest)&from=\(WebAddress.encoded(source))")
    exchange.purpose.scopes.append("repository:\(source):pull")
    exchange.retries = 0
    do throws(EngineError) {
      let location = try await client.perform(exchange) { (answer) async throws(Fault) -> WebAddress? in
        if answer.code == 201 { return nil }
        guard answer.code == 202 else { throw await client.failure(answer, .final, .unavailable) }
        return try Self.location(answer)
      }
      guard let location else { return true }
      await cancel(location)
      return false
    } catch {
      if error.code == .cancelled { throw error }
      return false
    }
  }

  /// The registry began an upload instead of mounting; it is told that none comes.
  private func cancel(_ location: WebAddress) async {
    var exchange = exchange(.DELETE, "")
    exchange.address = location
    exchange.retries = 0
    _ = try? await client.perform(exchange) { (_) async throws(Fault) in true }
  }

  private static func location(_ answer: Answer) throws(Fault) -> WebAddress {
    guard let text = answer.response.headers.first(name: "location"), let location = answer.address.resolving(text)
    else {
      throw Fault(.final, .protocolViolation, "\(answer.host) begins an upload without saying where")
    }
    return location
  }

  private func begin() async throws(EngineError) -> WebAddress {
    try await client.perform(exchange(.POST, "uploads/")) { (answer) async throws(Fault) in
      guard answer.code == 202 else { throw await client.failure(answer, .final, .unavailable) }
      let location = try Self.location(answer)
      if answer.address.scheme == .https, location.scheme == .http, location.host == answer.address.host {
        // A registry behind a proxy that ends TLS does not know that it is spoken to with it.
        return WebAddress(
          scheme: .https, host: location.host, port: location.port == 80 ? answer.address.port : location.port,
          target: location.target)
      }
      return location
    }
  }

  private func send(to location: WebAddress) async throws(EngineError) {
    var exchange = exchange(.PUT, "")
    exchange.address = location.adding(query: [("digest", request.digest.description)])
    exchange.retries = 0
    exchange.answerLimit = Self.answerLimit
    exchange.headers = { [("content-type", "application/octet-stream")] }
    let (file, size, sink, executor) = (request.source, request.size, sink, client.executor)
    let stall = client.configuration.stallTimeout
    exchange.body = { watchdog in
      watchdog.restart(limit: stall, minimum: 1)
      return .stream(
        FileBytes(file: file, size: size, executor: executor) { sent in
          watchdog.progress(1)
          // Everything is on its way: now the registry needs its time.
          if sent == size { watchdog.restart(limit: Self.answerLimit, minimum: 1) }
          try await sink.yield(sent)
        }, length: .known(size))
    }
    try await client.perform(exchange) { (answer) async throws(Fault) in
      guard (200..<300).contains(answer.code) else { throw await client.failure(answer, .final, .unavailable) }
    }
  }

  /// The file's bytes, read with pread(2) where it may block.
  private struct FileBytes: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    let file: Descriptor
    let size: Int64
    let executor: ElasticExecutor
    let report: @Sendable (Int64) async throws -> Void

    func makeAsyncIterator() -> Iterator { Iterator(bytes: self) }

    struct Iterator: AsyncIteratorProtocol {
      let bytes: FileBytes
      var position: Int64 = 0

      mutating func next() async throws -> ByteBuffer? {
        guard position < bytes.size else { return nil }
        let (bytes, start) = (bytes, position)
        let buffer = try await withTaskExecutorPreference(bytes.executor) {
          var buffer = ByteBufferAllocator().buffer(capacity: BlobUpload.chunkSize)
          let wanted = Int(Swift.min(Int64(BlobUpload.chunkSize), bytes.size - start))
          try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { memory in
            try SystemCallError.check("pread") { pread(bytes.file.number, memory.baseAddress, wanted, Int(start)) }
          }
          try await bytes.report(start + Int64(buffer.readableBytes))
          return buffer
        }
        guard buffer.readableBytes > 0 else {
          throw EngineError(.corrupt, "the blob's file is shorter than its descriptor says")
        }
        position += Int64(buffer.readableBytes)
        return buffer
      }
    }
  }
}
