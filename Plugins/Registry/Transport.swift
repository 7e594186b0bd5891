import AsyncHTTPClient
import Contracts
import Kernel
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

typealias Response = HTTPClientResponse

/// Single exchanges over HTTP. Clients, their threads and their certificates are made when they are first needed: an
/// engine that never speaks to a registry has none of it.
final class Transport: Sendable {
  private struct State {
    var threads: MultiThreadedEventLoopGroup?
    /// By proxy; empty for none.
    var clients: [String: HTTPClient] = [:]
    var isEnded = false
  }

  let configuration: RegistryConfiguration
  private let state = Mutex(State())
  private let certificates: Certificates

  init(_ configuration: RegistryConfiguration) {
    self.configuration = configuration
    certificates = Certificates(configuration.authorities)
  }

  /// Whether a host has authorities of its own, which means that it is spoken to with TLS that is verified.
  func hasAuthorities(_ host: String, _ port: UInt16) -> Bool { certificates.hasAuthorities(host, port) }

  /// Sends a request and returns with the head of the response; the body is streamed. No redirect is followed.
  func send(
    _ method: HTTPMethod, _ address: WebAddress, headers: [(String, String)], body: HTTPClientRequest.Body? = nil
  ) async throws(Fault) -> Response {
    var request = HTTPClientRequest(url: address.description)
    request.method = method
    request.headers = HTTPHeaders(headers)
    request.headers.add(name: "user-agent", value: "engine/0.1 (linux)")
    request.body = body
    let client: HTTPClient
    do throws(EngineError) {
      if address.scheme == .https {
        request.tlsConfiguration = try certificates.configuration(
          for: address, verifies: !configuration.isInsecure(host: address.host, port: address.port))
      }
      client = try self.client(for: address)
    } catch {
      throw Fault(.final, error)
    }
    do {
      return try await client.execute(request, deadline: .distantFuture)
    } catch {
      throw Fault(error, at: address)
    }
  }

  private func client(for address: WebAddress) throws(EngineError) -> HTTPClient {
    let proxy = configuration.proxies.proxy(for: address) ?? ""
    let settings = proxy.isEmpty ? nil : try Self.proxy(proxy)
    let client = state.withLock { state -> HTTPClient? in
      if state.isEnded { return nil }
      if let client = state.clients[proxy] { return client }
      let threads = state.threads ?? MultiThreadedEventLoopGroup(numberOfThreads: 2)
      state.threads = threads
      var options = HTTPClient.Configuration()
      options.redirectConfiguration = .disallow
      options.httpVersion = .http1Only
      options.timeout.connect = .nanoseconds(Self.nanoseconds(configuration.connectTimeout))
      options.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 128
      options.connectionPool.retryConnectionEstablishment = false
      options.connectionPool.idleTimeout = .seconds(20)
      options.proxy = settings
      let client = HTTPClient(eventLoopGroupProvider: .shared(threads), configuration: options)
      state.clients[proxy] = client
      return client
    }
    guard let client else { throw EngineError(.unavailable, "the registry plugin has been stopped") }
    return client
  }

  static func nanoseconds(_ duration: Duration) -> Int64 {
    let (seconds, attoseconds) = duration.components
    return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
  }

  /// `http://[USER:PASSWORD@]HOST[:PORT]`, `socks5://HOST[:PORT]`, or only `HOST:PORT`.
  static func proxy(_ text: String) throws(EngineError) -> HTTPClient.Configuration.Proxy {
    var rest = text[...]
    var isSOCKS = false
    if let mark = text.firstRange(of: "://") {
      switch text[..<mark.lowerBound].lowercased() {
      case "http": break
      case "socks5", "socks5h": isSOCKS = true
      case let scheme: throw EngineError(.unsupported, "a proxy must be http or socks5, not \(scheme)")
      }
      rest = text[mark.upperBound...]
    }
    rest = rest.prefix { $0 != "/" }
    var authorization: HTTPClient.Authorization?
    if let at = rest.lastIndex(of: "@") {
      let user = rest[..<at].split(separator: ":", maxSplits: 1).map { decoded($0) }
      authorization = .basic(username: user.first ?? "", password: user.count > 1 ? user[1] : "")
      rest = rest[rest.index(after: at)...]
    }
    guard let (host, port) = WebAddress.split(String(rest)) else {
      throw EngineError(.invalidArgument, "the proxy of the environment is not an address: it has no host")
    }
    if isSOCKS { return .socksServer(host: host, port: Int(port ?? 1080)) }
    return .server(host: host, port: Int(port ?? 80), authorization: authorization)
  }

  private static func decoded(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), let value = UInt8(String(Substring(rest.prefix(2))), radix: 16) {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Ends the clients and their threads.
  func end() async {
    let (clients, threads) = state.withLock { state -> ([HTTPClient], MultiThreadedEventLoopGroup?) in
      defer { (state.clients, state.threads, state.isEnded) = ([:], nil, true) }
      return (Array(state.clients.values), state.threads)
    }
    for client in clients { try? await client.shutdown() }
    try? await threads?.shutdownGracefully()
  }
}
