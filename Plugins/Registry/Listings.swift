import AsyncHTTPClient
import Contracts
import Kernel
import NIOCore
import Wire

/// Lists that come in pages, `login`, and `search`.
extension RegistryClient {
  private static let pageLimit = 4 << 20
  private static let maximumPages = 10_000

  func tags(of repository: RegistryRepository) async throws(EngineError) -> [String] {
    var exchange = repository.exchange("pull")
    exchange.path = "/v2/\(repository.name)/tags/list?n=1000"
    var tags: [String] = []
    try await pages(exchange, key: "tags", missing: "repository \(repository.familiar) not found") { page in
      tags += page
      return true
    }
    return tags
  }

  /// Follows `Link: <...>; rel="next"` (OCI distribution specification, "Listing Tags").
  ///
  /// - Parameter take: gets each page; false ends the list.
  private func pages(
    _ first: Exchange, key: String, missing: String, _ take: ([String]) -> Bool
  ) async throws(EngineError) {
    var exchange = first
    var seen: Set<WebAddress> = []
    let configuration = configuration
    for _ in 0..<Self.maximumPages {
      let (page, next) = try await perform(exchange) { (answer) async throws(Fault) -> ([String], WebAddress?) in
        guard answer.code == 200 else {
          guard answer.code == 404 else { throw await self.failure(answer, .final, .unavailable) }
          throw Fault(.final, .notFound, missing)
        }
        let body = try await BodyReader.collect(
          answer.response, limit: Self.pageLimit, what: "a list", from: answer.address, configuration, answer.watchdog)
        let next = Self.nextLink(answer.response.headers["link"]).flatMap { answer.address.resolving($0) }
        if let next, !next.hasSameOrigin(as: answer.address) {
          throw Fault(.final, .protocolViolation, "\(answer.host) continues its list on another server: refused")
        }
        return (try Self.texts(body, key, answer.host), next)
      }
      guard take(page), let next else { return }
      guard seen.insert(next).inserted else {
        throw EngineError(.protocolViolation, "\(next.authority) gives a list that has no end")
      }
      exchange.address = next
    }
    throw EngineError(.resourceExhausted, "the list has more than \(Self.maximumPages) pages")
  }

  static func nextLink(_ headers: [String]) -> String? {
    for header in headers {
      for part in header.split(separator: ",") {
        guard let open = part.firstIndex(of: "<"), let close = part.firstIndex(of: ">"), open < close else { continue }
        let rest = part[close...].lowercased()
        guard rest.contains("rel=\"next\"") || rest.contains("rel=next") else { continue }
        return String(part[part.index(after: open)..<close])
      }
    }
    return nil
  }

  private static func texts(_ body: [UInt8], _ key: String, _ host: String) throws(Fault) -> [String] {
    guard let value = try? JSON.parse(body), case .object = value else {
      throw Fault(.final, .protocolViolation, "\(host) answered something else than a list")
    }
    guard case .array(let entries) = value[key] else { return [] }
    return entries.compactMap { entry in
      if case .string(let text) = entry { text } else { nil }
    }
  }

  // MARK: Login

  func logIn(_ request: RegistryLogin) async throws(EngineError) -> RegistryLogin.Reply {
    let identity = Once<String>()
    var exchange = Exchange(
      registry: request.registry,
      purpose: Authenticator.Purpose(credentials: request.credentials, scopes: [], login: identity),
      denied: "login attempt to \(request.registry) failed")
    exchange.retries = 1
    return try await perform(exchange) { (answer) async throws(Fault) in
      guard answer.code == 200 else {
        guard answer.code == 404 else { throw await self.failure(answer, .final, .unavailable) }
        throw Fault(.final, .notFound, "\(answer.host) is not a registry: it has no /v2/")
      }
      return RegistryLogin.Reply(identityToken: identity.resolved)
    }
  }

  // MARK: Search

  func search(_ request: RegistrySearch) async throws(EngineError) -> [RegistrySearchResult] {
    let limit = min(max(request.limit, 1), 100)
    var exchange = Exchange(
      registry: request.registry, purpose: Authenticator.Purpose(credentials: request.credentials, scopes: []),
      denied: "search access denied at \(request.registry), it may require 'engine login'")
    exchange.path = "/v1/search?q=\(WebAddress.encoded(request.term))&n=\(limit)"
    exchange.retries = min(2, configuration.retries)
    let isHub = request.registry == "docker.io"
    if isHub {
      // The index is older than tokens, and tells everybody the same.
      exchange.host = "index.docker.io"
      exchange.purpose.credentials = nil
    }
    let configuration = configuration
    let found = try await perform(exchange) { (answer) async throws(Fault) -> [RegistrySearchResult]? in
      guard answer.code == 200 else {
        if !isHub, (400..<500).contains(answer.code) { return nil }
        throw await self.failure(answer, .final, .unavailable)
      }
      let body = try await BodyReader.collect(
        answer.response, limit: Self.pageLimit, what: "a list", from: answer.address, configuration, answer.watchdog)
      return Self.results(body)
    }
    if let found { return Array(found.prefix(limit)) }
    return try await searchCatalogue(request, limit)
  }

  private static func results(_ body: [UInt8]) -> [RegistrySearchResult]? {
    guard let value = try? JSON.parse(body), case .array(let entries) = value["results"] else { return nil }
    return entries.compactMap { entry in
      guard case .string(let name) = entry["name"] else { return nil }
      var result = RegistrySearchResult(
        name: Words.clean(name), description: "", stars: 0, isOfficial: entry["is_official"] == .boolean(true))
      if case .string(let text) = entry["description"] { result.description = Words.clean(text) }
      if case .integer(let stars) = entry["star_count"] { result.stars = Int(stars) }
      return result
    }
  }

  private func searchCatalogue(
    _ request: RegistrySearch, _ limit: Int
  ) async throws(EngineError) -> [RegistrySearchResult] {
    var exchange = Exchange(
      registry: request.registry,
      purpose: Authenticator.Purpose(credentials: request.credentials, scopes: ["registry:catalog:*"]),
      denied: "search access denied at \(request.registry), it may require 'engine login'")
    exchange.path = "/v2/_catalog?n=1000"
    var found: [RegistrySearchResult] = []
    let term = request.term.lowercased()
    try await pages(exchange, key: "repositories", missing: "\(request.registry) cannot be searched") { page in
      for name in page where term.isEmpty || name.lowercased().contains(term) {
        found.append(
          RegistrySearchResult(
            name: "\(request.registry)/\(Words.clean(name))", description: "", stars: 0, isOfficial: false))
      }
      return found.count < limit
    }
    return Array(found.prefix(limit))
  }
}
