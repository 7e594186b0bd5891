import Contracts
import Kernel

/// The network of containers that share the host's network namespace: there is nothing to make, and ports cannot be
/// published because the container has the host's.
public final class HostNetworkPlugin: Plugin {
  public static let manifest = PluginManifest(name: "network-host", role: "network", driver: "host")

  public init(host: PluginHost) throws(EngineError) {}

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(NetworkDriverCreate.self) { (request, _) async throws(EngineError) in
      if let option = request.definition.options.keys.sorted().first {
        throw EngineError(
          .invalidArgument, "invalid option: \"\(option)\"; the driver \(Self.manifest.driver) has none")
      }
      return request.definition
    }
    try registrar.answerAsDriver(NetworkDriverRemove.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answerAsDriver(NetworkDriverAttach.self) { (request, _) async throws(EngineError) in
      let endpoints = request.attachments.map { attachment in
        Endpoint(
          id: .random(), networkID: attachment.definition.id, networkName: attachment.definition.name, driver: "host")
      }
      return NetworkDriverAttach.Reply(endpoints: endpoints, ports: [], reservations: [])
    }
    try registrar.answerAsDriver(NetworkDriverDetach.self) { (_, _) async throws(EngineError) in Done() }
  }
}
