import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Speaks to registries (OCI distribution specification 1.1): what it fetches it hands on, and it keeps nothing.
public final class RegistryPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "registry", role: "registry", onFailure: .skip,
    keys: [
      ConfigurationKey("mirrors", .list([]), "Addresses (http or https) that are asked before Docker Hub."),
      ConfigurationKey("insecure", .list([]), "Registries that may be spoken to without TLS, as host or host:port."),
      ConfigurationKey(
        "authorities", .list(RegistryConfiguration().authorities),
        "Directories of certificates beside the system's, with a directory HOST[:PORT] a registry."),
      ConfigurationKey(
        "stall-timeout", .integer(30), range: 1...86_400,
        "Seconds after which a transfer that hardly moves is begun again."),
      ConfigurationKey("retries", .integer(5), range: 0...100, "How often a request is tried again."),
      ConfigurationKey(
        "max-concurrent-downloads", .integer(32), range: 1...1000, "Transfers at the same time, over all pulls."),
    ])

  private let client: RegistryClient
  private let downloads: Slots

  public convenience init(host: PluginHost) throws(EngineError) {
    let configuration = try RegistryConfiguration(host.configuration) { name in
      getenv(name).map { String(cString: $0) }
    }
    self.init(configuration, bus: host.bus)
  }

  init(_ configuration: RegistryConfiguration, bus: Bus) {
    client = RegistryClient(configuration, bus: bus)
    downloads = Slots(configuration.maxConcurrentDownloads)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(RegistryManifestGet.self) { (request, _) async throws(EngineError) in
      try await self.client.manifest(request)
    }
    try registrar.answer(RegistryBlobGet.self) { (request, _) async throws(EngineError) in
      try await self.downloads.take()
      defer { self.downloads.giveBack() }
      return try await BlobDownload(request, self.client).run()
    }
    try registrar.stream(RegistryBlobPut.self) { (request, _, sink) async throws(EngineError) in
      try await BlobUpload(request, self.client, sink).run()
    }
    try registrar.answer(RegistryManifestPut.self) { (request, _) async throws(EngineError) in
      try await self.client.put(request)
    }
    try registrar.answer(RegistryTags.self) { (request, _) async throws(EngineError) in
      try await self.client.tags(of: request.repository)
    }
    try registrar.answer(RegistryLogin.self) { (request, _) async throws(EngineError) in
      try await self.client.logIn(request)
    }
    try registrar.answer(RegistrySearch.self) { (request, _) async throws(EngineError) in
      try await self.client.search(request)
    }
  }

  public func stop() async { await client.transport.end() }
}
