import AsyncHTTPClient
import Contracts
import Glibc
import Kernel
import NIOCore
import Synchronization
import Wire

/// Proves who asks: basic authentication, and tokens from the server that a registry names
/// (distribution.github.io/distribution/spec/auth/token).
final class Authenticator: Sendable {
  private struct Key: Hashable {
    let realm: String
    let service: String
    let scopes: [String]
    let username: String
    let secret: String
  }

  private struct Token {
    let text: String
    let expires: ContinuousClock.Instant
  }

  private struct State {
    var tokens: [Key: Token] = [:]
    /// What each server asked for last, so that its next request need not be refused first.
    var challenges: [String: Challenge] = [:]
  }

  /// What a token server gave.
  private struct Grant {
    var token: String
    /// Seconds.
    var lifetime: Int
    /// The identity token, where one was asked for and given.
    var refreshToken: String?
  }

  /// Whom and what a token is for.
  struct Purpose: Sendable {
    var credentials: RegistryCredentials?
    var scopes: [String]
    /// Where the identity token goes, which is then asked for too.
    var login: Once<String>?
  }

  private let transport: Transport
  private let configuration: RegistryConfiguration
  private let state = Mutex(State())

  init(_ transport: Transport) {
    self.transport = transport
    configuration = transport.configuration
  }

  /// The value of `Authorization` for a server whose challenge is known, or nil.
  func header(for endpoint: Endpoint, _ purpose: Purpose, _ watchdog: Watchdog) async throws(Fault) -> String? {
    guard let challenge = state.withLock({ $0.challenges[endpoint.base.description] }) else { return nil }
    return try await answer(challenge, from: endpoint, purpose, rejected: nil, watchdog)
  }

  /// Meets a challenge.
  ///
  /// - Parameter rejected: the value that the server has just refused; it is not given again.
  /// - Returns: nil when there is nothing to offer.
  func answer(
    _ challenge: Challenge, from endpoint: Endpoint, _ purpose: Purpose, rejected: String?, _ watchdog: Watchdog
  ) async throws(Fault) -> String? {
    state.withLock { state in
      if state.challenges.count > 1000 { state.challenges = [:] }
      var kept = challenge
      kept.parameters["scope"] = nil
      kept.parameters["error"] = nil
      state.challenges[endpoint.base.description] = kept
    }
    let credentials = endpoint.isMirror ? nil : purpose.credentials
    switch challenge.scheme {
    case .basic:
      guard let credentials, !credentials.username.isEmpty else { return nil }
      let value = Self.basic(credentials)
      return value == rejected ? nil : value
    case .bearer:
      let realm = try realm(of: challenge, at: endpoint)
      var scopes = purpose.scopes
      if scopes.isEmpty, let scope = challenge.parameters["scope"] {
        scopes = scope.split(separator: " ").map(String.init)
      }
      let key = Key(
        realm: realm.description, service: challenge.parameters["service"] ?? "", scopes: scopes,
        username: credentials?.username ?? "", secret: credentials?.identityToken ?? credentials?.password ?? "")
      if purpose.login == nil, let token = state.withLock({ $0.tokens[key] }), token.expires > .now,
        "Bearer \(token.text)" != rejected
      {
        return "Bearer \(token.text)"
      }
      let grant = try await fetch(realm, key, credentials, isLogin: purpose.login != nil, watchdog)
      if let token = grant.refreshToken { purpose.login?.resolve(token) }
      state.withLock { state in
        if state.tokens.count >= 256 { state.tokens = state.tokens.filter { $0.value.expires > .now } }
        if state.tokens.count >= 256 { state.tokens = [:] }
        state.tokens[key] = Token(text: grant.token, expires: .now + .seconds(max(1, grant.lifetime - 10)))
      }
      return "Bearer \(grant.token)"
    }
  }

  static func basic(_ credentials: RegistryCredentials) -> String {
    "Basic \(Base64.encode("\(credentials.username):\(credentials.password)".utf8))"
  }

  /// Where tokens come from. Credentials go there, so it must not be a step down from how the registry is spoken to.
  private func realm(of challenge: Challenge, at endpoint: Endpoint) throws(Fault) -> WebAddress {
    let text = challenge.parameters["realm"] ?? ""
    guard let realm = WebAddress(text) else {
      throw Fault(
        .final, .protocolViolation,
        "\(endpoint.base.authority) sends for a token to \"\(Words.clean(text))\", which is not a web address")
    }
    if realm.scheme == .http {
      guard endpoint.base.scheme == .http, configuration.isInsecure(host: realm.host, port: realm.port) else {
        throw Fault(
          .final, .permissionDenied,
          "\(endpoint.base.authority) sends for a token to http://\(realm.authority), over which credentials are not sent"
        )
      }
    }
    return realm
  }

  private func fetch(
    _ realm: WebAddress, _ key: Key, _ credentials: RegistryCredentials?, isLogin: Bool, _ watchdog: Watchdog
  ) async throws(Fault) -> Grant {
    watchdog.restart(limit: configuration.stallTimeout, minimum: 1)
    let response: Response
    if let identity = credentials?.identityToken {
      // RFC 6749, 6: a refresh token is exchanged.
      var form: [(String, String)] = [
        ("grant_type", "refresh_token"), ("service", key.service), ("client_id", "engine"),
        ("refresh_token", identity),
      ]
      if !key.scopes.isEmpty { form.append(("scope", key.scopes.joined(separator: " "))) }
      let body = form.map { "\($0.0)=\(WebAddress.encoded($0.1))" }.joined(separator: "&")
      response = try await transport.send(
        .POST, realm, headers: [("content-type", "application/x-www-form-urlencoded")],
        body: .bytes(ByteBuffer(string: body)))
    } else {
      var query = key.service.isEmpty ? [] : [("service", key.service)]
      query += key.scopes.map { ("scope", $0) }
      var headers: [(String, String)] = []
      if let credentials {
        query.append(("account", credentials.username))
        headers.append(("authorization", Self.basic(credentials)))
      }
      if isLogin { query += [("client_id", "engine"), ("offline_token", "true")] }
      response = try await transport.send(.GET, realm.adding(query: query), headers: headers)
    }
    let body = try await BodyReader.collect(
      response, limit: 1 << 20, what: "a token", from: realm, configuration, watchdog)
    let code = Int(response.status.code)
    guard code == 200 else {
      var error = EngineError(
        code == 401 || code == 403 || code == 400 ? .permissionDenied : .unavailable,
        "\(realm.authority) gives no token: \(code) \(Words.clean(response.status.reasonPhrase))")
      if let cause = Words.ofRegistry(body) { error.causes = [cause] }
      throw Fault(
        code == 429 || code >= 500 ? .transient : .final, error, retryAfter: BodyReader.retryAfter(response))
    }
    return try Self.grant(body, from: realm)
  }

  private static func grant(_ body: [UInt8], from realm: WebAddress) throws(Fault) -> Grant {
    let value = (try? JSON.parse(body)) ?? .null
    func text(_ key: String) -> String? {
      guard case .string(let text) = value[key], !text.isEmpty else { return nil }
      return text
    }
    guard let token = text("token") ?? text("access_token"), token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
      throw Fault(.final, .protocolViolation, "\(realm.authority) answered without a token")
    }
    var lifetime = 60
    if case .integer(let seconds) = value["expires_in"] { lifetime = Int(min(max(seconds, 60), 86_400)) }
    return Grant(token: token, lifetime: lifetime, refreshToken: text("refresh_token"))
  }
}
