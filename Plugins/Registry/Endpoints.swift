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
  private struct Memory {
    let scheme: WebAddress.Scheme
    let until: ContinuousClock.Instant
  }

  /// How a registry that may be spoken to over plain HTTP was reached last.
  private let memory = Mutex<[String: Memory]>([:])

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
    if isOpen {
      let known = memory.withLock { $0[registry] }.flatMap { $0.until > .now ? $0.scheme : nil }
      schemes = known.map { [$0] } ?? [.https, .http]
    }
    return found
      + schemes.map {
        Endpoint(base: WebAddress(scheme: $0, host: host, port: port, target: "/"), isMirror: false)
      }
  }

  /// An endpoint has answered: for a while there is no need to look how else the registry could be reached.
  func remember(_ endpoint: Endpoint, for registry: String) {
    guard !endpoint.isMirror else { return }
    memory.withLock { memory in
      if memory.count > 1000 { memory = [:] }
      memory[registry] = Memory(scheme: endpoint.base.scheme, until: .now + .seconds(300))
    }
  }

  func forget(_ registry: String) { memory.withLock { $0[registry] = nil } }
}
