import AsyncHTTPClient
import Contracts
import NIOCore

/// Reads the bodies of responses within bounds.
enum BodyReader {
  /// The whole body.
  ///
  /// - Parameter what: names it in errors, for example `a manifest`.
  static func collect(
    _ response: Response, limit: Int, what: String, from address: WebAddress, _ configuration: RegistryConfiguration,
    _ watchdog: Watchdog
  ) async throws(Fault) -> [UInt8] {
    func tooLong() -> Fault {
      Fault(.final, .resourceExhausted, "\(address.authority) sends more than \(limit) bytes as \(what)")
    }
    if let length = contentLength(response), length > Int64(limit) { throw tooLong() }
    // Such bodies are small: they may not drip in for ever, however steadily.
    let end = ContinuousClock.now + configuration.stallTimeout * 4
    var bytes: [UInt8] = []
    var iterator = response.body.makeAsyncIterator()
    while let chunk = try await next(&iterator, at: address) {
      watchdog.progress(chunk.readableBytes)
      if bytes.count + chunk.readableBytes > limit { throw tooLong() }
      bytes.append(contentsOf: chunk.readableBytesView)
      if ContinuousClock.now > end {
        throw Fault(.transient, .unavailable, "\(address.authority) sends \(what) too slowly")
      }
    }
    if Task.isCancelled { throw .cancellation }
    return bytes
  }

  static func next(
    _ iterator: inout Response.Body.AsyncIterator, at address: WebAddress
  ) async throws(Fault) -> ByteBuffer? {
    do {
      return try await iterator.next()
    } catch {
      throw Fault(error, at: address)
    }
  }

  static func contentLength(_ response: Response) -> Int64? {
    response.headers.first(name: "content-length").flatMap { Int64($0) }
  }

  /// `Retry-After` in seconds; as a date it is passed over (RFC 9110, 10.2.3).
  static func retryAfter(_ response: Response) -> Duration? {
    response.headers.first(name: "retry-after").flatMap { UInt32($0) }.map { .seconds(Int64($0)) }
  }
}
