import AsyncHTTPClient
import Contracts
import Kernel
import NIOCore
import NIOHTTP1

/// What is asked of a registry.
struct Exchange: Sendable {
  var registry: String
  /// The server, where it is another than the registry's name says.
  var host: String?
  var purpose: Authenticator.Purpose
  var method = HTTPMethod.GET
  var path = "/v2/"
  /// An address that the registry gave, instead of the path.
  var address: WebAddress?
  /// Asked for anew each time it is tried.
  var headers: @Sendable () -> [(String, String)] = { [] }
  var body: (@Sendable (Watchdog) -> HTTPClientRequest.Body)?
  var usesMirrors = false
  /// Instead of the configuration's.
  var retries: Int?
  /// How long the answer may take after the last byte of the request; nil for as long as a stall may.
  var answerLimit: Duration?
  /// The pipe whose reader ends the exchange by going away, or -1.
  var sink: Int32 = -1
  /// The line for a refusal.
  var denied: String
}

/// A response and where it came from, for those who read its body.
struct Answer: Sendable {
  let response: Response
  let endpoint: Endpoint
  /// Where it was found after redirects.
  let address: WebAddress
  let watchdog: Watchdog

  var code: Int { Int(response.status.code) }
  /// The host as people write it.
  var host: String { address.authority }
}

/// Carries exchanges through: the servers of a registry one after the other, authentication, redirects, and trying
/// again with growing pauses.
final class RegistryClient: Sendable {
  let configuration: RegistryConfiguration
  let transport: Transport
  let endpoints: Endpoints
  let authenticator: Authenticator
  let executor: ElasticExecutor
  let timekeeper: Timekeeper

  init(_ configuration: RegistryConfiguration, bus: Bus) {
    self.configuration = configuration
    transport = Transport(configuration)
    endpoints = Endpoints(configuration, transport)
    authenticator = Authenticator(transport)
    executor = bus.executor
    timekeeper = bus.timekeeper
  }

  /// - Parameter consume: reads a response with any status but those of refusal and overload. What it throws decides
  ///   whether the exchange is tried again.
  func perform<Value: Sendable>(
    _ exchange: Exchange, _ consume: @escaping @Sendable (Answer) async throws(Fault) -> Value
  ) async throws(EngineError) -> Value {
    let servers = try endpoints.list(of: exchange.registry, host: exchange.host, mirrors: exchange.usesMirrors)
    var failure: EngineError?
    for (index, endpoint) in servers.enumerated() {
      if let address = exchange.address, address.scheme != endpoint.base.scheme, servers.count > 1,
        endpoint != servers.last
      {
        continue
      }
      do throws(Fault) {
        let value = try await persist(exchange, endpoint, isLast: index == servers.count - 1, consume)
        endpoints.remember(endpoint, for: exchange.registry)
        return value
      } catch {
        // The last word is the most telling one, unless it is only that there was no connection.
        if failure == nil || error.kind != .unreachable { failure = error.error }
        let goesOn = endpoint.isMirror ? error.kind != .cancelled : error.kind == .unreachable
        if error.kind == .unreachable, !endpoint.isMirror { endpoints.forget(exchange.registry) }
        if !goesOn { throw error.error }
      }
    }
    throw failure ?? EngineError(.internalFailure, "there is no server for \(exchange.registry)")
  }

  /// Tries one server as often as it is worth it.
  private func persist<Value: Sendable>(
    _ exchange: Exchange, _ endpoint: Endpoint, isLast: Bool,
    _ consume: @escaping @Sendable (Answer) async throws(Fault) -> Value
  ) async throws(Fault) -> Value {
    let limit = endpoint.isMirror ? 0 : exchange.retries ?? configuration.retries
    var attempt = 0
    var hasProgressed = false
    while true {
      let watchdog = Watchdog(timekeeper, limit: configuration.stallTimeout, sink: exchange.sink)
      do throws(Fault) {
        return try await watchdog.guarding(on: executor, at: endpoint.base.authority) { () async throws(Fault) in
          try await self.attempt(exchange, endpoint, watchdog, consume)
        }
      } catch {
        if Task.isCancelled { throw .cancellation }
        if !isLast, !endpoint.isMirror, !watchdog.hasAnswer, error.kind == .transient {
          // A server of plain HTTP that does not know what to do with TLS.
          throw Fault(.unreachable, error.error)
        }
        if error.madeProgress { (attempt, hasProgressed) = (0, true) }
        // What could not be reached at all is not tried again, unless it was there a moment ago.
        let mayPass = error.kind == .transient || (error.kind == .unreachable && hasProgressed)
        guard mayPass, attempt < limit else { throw error }
        var pause = configuration.retryPause * (1 << min(attempt, 6))
        pause += pause * Double.random(in: 0..<0.25)
        if let asked = error.retryAfter {
          guard asked <= configuration.longestPause else { throw error }
          pause = max(pause, asked)
        }
        attempt += 1
        await timekeeper.sleep(pause)
        if Task.isCancelled { throw .cancellation }
        if exchange.sink >= 0, Watchdog.hasLostReader(exchange.sink) {
          throw Fault(.cancelled, .cancelled, "the reader of the blob went away")
        }
      }
    }
  }

  private func attempt<Value: Sendable>(
    _ exchange: Exchange, _ endpoint: Endpoint, _ watchdog: Watchdog,
    _ consume: @Sendable (Answer) async throws(Fault) -> Value
  ) async throws(Fault) -> Value {
    var address = exchange.address ?? endpoint.address(exchange.path)
    var authorization: String?
    do throws(Fault) {
      authorization = try await authenticator.header(for: endpoint, exchange.purpose, watchdog)
    } catch {
      throw denial(exchange, error)
    }
    var wasChallenged = false
    var redirects = 0
    while true {
      let isHome = address.hasSameOrigin(as: endpoint.base)
      var headers = exchange.headers()
      if isHome, let authorization { headers.append(("authorization", authorization)) }
      watchdog.restart(limit: exchange.answerLimit ?? configuration.stallTimeout, minimum: 1)
      let response = try await transport.send(
        exchange.method, address, headers: headers, body: exchange.body?(watchdog))
      watchdog.answered()
      watchdog.restart(limit: configuration.stallTimeout, minimum: configuration.minimumBytes)
      let answer = Answer(response: response, endpoint: endpoint, address: address, watchdog: watchdog)
      switch answer.code {
      case 401 where isHome && !wasChallenged:
        wasChallenged = true
        guard let challenge = Challenge.pick(from: response.headers["www-authenticate"]) else {
          throw denial(exchange, await failure(answer, .final, .permissionDenied))
        }
        do throws(Fault) {
          let proof = try await authenticator.answer(
            challenge, from: endpoint, exchange.purpose, rejected: authorization, watchdog)
          guard let proof else {
            throw await failure(answer, .final, .permissionDenied)
          }
          authorization = proof
        } catch {
          throw denial(exchange, error)
        }
      case 301, 302, 303, 307, 308:
        address = try redirect(answer, exchange.method, &redirects)
      case 401, 403:
        // A link that another server gave may have run out: the registry gives a new one.
        let kind: Fault.Kind = isHome ? .final : .transient
        let refusal = await failure(answer, kind, .permissionDenied)
        throw isHome ? denial(exchange, refusal) : refusal
      case 408, 425, 429, 500, 502, 503, 504, 507, 509...599:
        throw await failure(answer, .transient, .unavailable)
      default:
        return try await consume(answer)
      }
    }
  }

  private func denial(_ exchange: Exchange, _ fault: Fault) -> Fault {
    guard fault.error.code == .permissionDenied, !exchange.denied.isEmpty else { return fault }
    var fault = fault
    fault.error = EngineError(.permissionDenied, exchange.denied, because: fault.error)
    return fault
  }

  private func redirect(
    _ answer: Answer, _ method: HTTPMethod, _ redirects: inout Int
  ) throws(Fault) -> WebAddress {
    redirects += 1
    guard redirects <= 10 else {
      throw Fault(.final, .protocolViolation, "\(answer.host) redirects more than ten times")
    }
    guard let location = answer.response.headers.first(name: "location"),
      let target = answer.address.resolving(location)
    else {
      throw Fault(.final, .protocolViolation, "\(answer.host) redirects to where there is no web address")
    }
    guard method == .GET || method == .HEAD || answer.code == 307 || answer.code == 308 else {
      throw Fault(.final, .protocolViolation, "\(answer.host) redirects an upload (\(answer.code))")
    }
    if answer.address.scheme == .https, target.scheme == .http,
      !configuration.isInsecure(host: target.host, port: target.port)
    {
      throw Fault(
        .final, .permissionDenied, "\(answer.host) redirects to http://\(target.authority), away from TLS: refused")
    }
    return target
  }

  /// A status that is none of success as a fault, with what the server says about it.
  func failure(_ answer: Answer, _ kind: Fault.Kind, _ code: EngineError.Code) async -> Fault {
    let body =
      (try? await BodyReader.collect(
        answer.response, limit: 64 << 10, what: "an error", from: answer.address, configuration, answer.watchdog)) ?? []
    let reason = Words.clean(answer.response.status.reasonPhrase)
    var error = EngineError(code, "\(answer.host) answered \(answer.code)\(reason.isEmpty ? "" : " \(reason)")")
    if let cause = Words.ofRegistry(body) { error.causes = [cause] }
    return Fault(kind, error, retryAfter: BodyReader.retryAfter(answer.response))
  }
}
