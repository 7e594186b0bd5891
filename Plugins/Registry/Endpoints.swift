import Contracts
import Synchronization

/// One server that may answer for a registry.
struct Endpoint: Hashable, Sendable {
  /// Its address up to what stands before `/v2/`, with a slash at the end.
  var base: WebAddress
  /// Mirrors are asked once, only for what is pulled, and never as somebody.
  var isMirror: Bool

  /// - Parameter path: begins with a slash.
  func address(_ path: String) -> WebAddress {
    var address = base
    address.target = base.target.dropLast() + path
    return address
  }
}

/// Knows the servers of registries, in the order in which to ask.
final class Endpoints: Sendable {
  private let configuration: RegistryConfiguration
  private let transport: Transport
  /// How a registry that may be spoken to over plain HTTP was reached last.
  private let schemes = Mutex<[String: WebAddress.Scheme]>([:])

  init(_ configuration: RegistryConfiguration, _ transport: Transport) {
    self.configuration = configuration
    self.transport = transport
  }

  /// - Parameter host: the server where it is another than the registry's name says.
  /// - Throws: `invalidArgument` for a name that is none.
  func list(of registry: String, host: String? = nil, mirrors: Bool) throws(EngineError) -> [Endpoint] {
    var found: [Endpoint] = []
    if mirrors {
      for mirror in configuration.mirrors[registry] ?? [] {
        guard var base = WebAddress(mirror) else { continue }
        base.target = String(base.target.prefix { $0 != "?" })
        if !base.target.hasSuffix("/") { base.target += "/" }
        found.append(Endpoint(base: base, isMirror: true))
      }
    }
    let name = host ?? (registry == "docker.io" ? "registry-1.docker.io" : registry)
    guard let (host, port) = WebAddress.split(name) else {
      throw EngineError(.invalidArgument, "\"\(registry)\" is not a registry's host name")
    }
    // Without verified certificates anybody could answer anyway, so plain HTTP is tried too, as Docker does.
    let isOpen =
      configuration.isInsecure(host: host, port: port ?? 443) && !transport.hasAuthorities(host, port ?? 443)
    var schemes: [WebAddress.Scheme] = [.https]
    if isOpen { schemes = self.schemes.withLock { $0[registry] } == .http ? [.http, .https] : [.https, .http] }
    return found
      + schemes.map {
        Endpoint(base: WebAddress(scheme: $0, host: host, port: port, target: "/"), isMirror: false)
      }
  }

  func remember(_ endpoint: Endpoint, for registry: String) {
    guard !endpoint.isMirror else { return }
    schemes.withLock { schemes in
      if schemes.count > 1000 { schemes = [:] }
      schemes[registry] = endpoint.base.scheme
    }
  }
}
