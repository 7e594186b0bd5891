import ContentStreams
import Contracts
import Kernel
import LinuxSystem

/// The images: their configurations, names and layers, and the ways they come in and go.
public final class ImagesPlugin: Plugin {
  public static let manifest = PluginManifest(name: "images", role: "image", dependencies: ["records", "snapshot"])

  private let host: PluginHost
  private let store: ImageStore
  private let collector: LayerCollector
  private let importer: ImageImporter

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    let state = try host.stateDirectory()
    store = ImageStore(blobs: "\(state)/blobs/sha256")
    collector = LayerCollector(store: store, host: host)
    importer = ImageImporter(store: store, collector: collector)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(ImageResolve.self) { request, _ throws(EngineError) in
      try self.store.resolve(request.reference)
    }
    try registrar.answer(ImageList.self) { _, _ throws(EngineError) in self.store.all }
    try registrar.answer(ImageTag.self) { request, call throws(EngineError) in
      let target = try ImageImporter.target(request.target)
      try await self.store.add([], references: [(target, try self.store.find(request.source))], call.bus)
      return Done()
    }
    try registrar.stream(ImageImport.self) { request, call, sink throws(EngineError) in
      try await Self.interruptible(call, "import") { (interruption) async throws(EngineError) in
        try await self.importer.run(request, call, sink, interruption)
      }
    }
  }

  public func start() async throws(EngineError) {
    try await store.load(host.bus) { self.host.log.error("\($0)") }
  }

  /// Runs work that reads a client's stream; it ends when the client is gone.
  private static func interruptible<Value: Sendable>(
    _ call: Call, _ what: String, _ body: @Sendable (Interruption) async throws(EngineError) -> Value
  ) async throws(EngineError) -> Value {
    let interruption = try Interruption()
    await call.lease.hold(what) { interruption.interrupt() }
    let result = await withTaskCancellationHandler { () async -> Result<Value, EngineError> in
      do throws(EngineError) {
        return .success(try await body(interruption))
      } catch {
        return .failure(error)
      }
    } onCancel: {
      interruption.interrupt()
    }
    return try result.get()
  }
}
