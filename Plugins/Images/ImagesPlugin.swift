import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// The images: their configurations, names and layers, and the ways they come in and go.
public final class ImagesPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "images", role: "image", dependencies: ["records", "snapshot"],
    keys: [
      ConfigurationKey(
        "parallel-downloads", .integer(3), range: 1...100, "Layers that are fetched at the same time, over all pulls."),
      ConfigurationKey(
        "layer-limit", .integer(64 << 30), range: 1...Int.max,
        "Bytes that one layer may unpack to, as a stream and on the disk: what a decompression bomb gets before it is "
          + "refused. The holes of sparse files take no room, and are not counted."),
      ConfigurationKey(
        "ingest-lifetime", .integer(86_400), range: 1...Int.max,
        "Seconds that an incomplete blob is kept for a later pull."),
    ])

  private let host: PluginHost
  private let content: ContentStore
  private let store: ImageStore
  private let collector: LayerCollector
  private let importer: ImageImporter
  private let loader: ImageLoader
  private let remover: ImageRemover
  private let puller: ImagePuller
  private let pusher: ImagePusher
  private let saver: ImageSaver

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    let state = try host.stateDirectory()
    let settings = ImageSettings(host.configuration)
    content = ContentStore(directory: state, lifetime: settings.ingestLifetime)
    do throws(SystemCallError) {
      store = ImageStore(content: content, host: host, boot: try BootIdentity.read())
    } catch {
      throw EngineError(.internalFailure, "the images cannot be read: \(error)")
    }
    collector = LayerCollector(store: store, host: host)
    let layers = LocalLayers(content: content, settings: settings)
    importer = ImageImporter(store: store, collector: collector, layers: layers)
    loader = ImageLoader(host: host, store: store, collector: collector, layers: layers, spools: "\(state)/tmp")
    let fetcher = LayerFetcher(host: host, content: content, settings: settings)
    puller = ImagePuller(host: host, store: store, collector: collector, fetcher: fetcher)
    pusher = ImagePusher(host: host, store: store, collector: collector, settings: settings)
    saver = ImageSaver(store: store, collector: collector)
    remover = ImageRemover(store: store, collector: collector)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(ImageResolve.self) { request, _ throws(EngineError) in
      try self.store.resolve(request.reference, platform: request.platform)
    }
    try registrar.answer(ImageList.self) { _, _ throws(EngineError) in self.store.all }
    try registrar.answer(ImageTag.self) { request, call throws(EngineError) in
      try await self.tag(request, call)
    }
    try registrar.answer(ImageRemove.self) { request, call throws(EngineError) in
      try await self.remover.run(request, call)
    }
    try registrar.answer(ImagePrune.self) { request, call throws(EngineError) in
      try await self.remover.prune(request, call)
    }
    try registrar.answer(ImageHistory.self) { request, _ throws(EngineError) in
      try self.store.history(of: request.reference)
    }
    try registrar.stream(ImagePull.self) { request, call, sink throws(EngineError) in
      try await self.puller.run(request, call, sink)
    }
    try registrar.stream(ImagePush.self) { request, call, sink throws(EngineError) in
      try await self.pusher.run(request, call, sink)
    }
    try registrar.stream(ImageSave.self) { request, call, sink throws(EngineError) in
      try await self.saver.run(request, call, sink)
    }
    try registrar.stream(ImageLoad.self) { request, call, sink throws(EngineError) in
      try await Self.interruptible(call, "load") { (interruption) async throws(EngineError) in
        try await self.loader.run(request, call, sink, interruption)
      }
    }
    try registrar.answerAsPlugin(PluginCheck.self) { request, call throws(EngineError) in
      try await self.check(request, call)
    }
    try registrar.stream(ImageImport.self) { request, call, sink throws(EngineError) in
      try await Self.interruptible(call, "import") { (interruption) async throws(EngineError) in
        try await self.importer.run(request, call, sink, interruption)
      }
    }
  }

  public func start() async throws(EngineError) {
    try loader.sweep(repair: true)
    try await store.load(host.bus) { self.host.log.error("\($0)") }
    // What an engine that died in the middle of an import left.
    for path in try content.unneeded(store.blobsInUse) + content.expired(isBusy: false) { unlink(path) }
    await collector.collect(Set(try await host.bus.request(SnapshotLayers())))
  }

  public func stop() async { await store.finish() }

  /// A second name leads to the manifest of the first; the digest that this has is only known in its own repository.
  private func tag(_ request: ImageTag, _ call: Call) async throws(EngineError) -> Done {
    let target = try ImageImporter.target(request.target)
    try await collector.during { (work) async throws(EngineError) in
      let source = try self.store.lookup(request.source)
      let name = try? ImageReference(parsing: request.source)
      let isSameRepository = name?.registry == target.registry && name?.repository == target.repository
      let reference = NewReference(
        target, source.image, manifest: source.manifest ?? self.store.image(source.image)?.record.manifest,
        digest: isSameRepository ? source.digest : nil)
      work.add(blobs: try await self.store.add([], references: [reference], .now, call.bus).dropped)
    }
    return Done()
  }

  /// Compares records, blobs, spooled archives and layers.
  private func check(_ request: PluginCheck, _ call: Call) async throws(EngineError) -> [SystemDifference] {
    func difference(_ kind: SystemDifference.Kind, _ object: String) -> SystemDifference {
      SystemDifference(kind: kind, plugin: Self.manifest.name, object: object)
    }
    var differences = try loader.sweep(repair: request.repair).map { difference(.leftover, "spooled archive \($0)") }
    differences += store.missingBlobs.map { difference(.missing, "blob \($0)") }
    let unpacked = Set(try await call.request(SnapshotLayers()))
    differences += store.layersInUse().subtracting(unpacked).sorted().map { difference(.missing, "layer \($0)") }
    let expired = try content.expired(isBusy: collector.isBusy)
    differences += expired.map { difference(.leftover, "incomplete blob \($0)") }
    if request.repair { for path in expired { unlink(path) } }
    // Work in progress owns blobs and layers that no record names yet.
    if collector.isBusy { return differences }
    let stray = try content.unneeded(store.blobsInUse)
    differences += stray.map { difference(.leftover, "blob \($0)") }
    let unneeded = unpacked.subtracting(store.layersInUse())
    differences += unneeded.sorted().map { difference(.leftover, "layer \($0)") }
    if request.repair {
      let names = stray.map { String($0.split(separator: "/").last ?? "") }
      for (path, name) in zip(stray, names) where Digest(hex: name) == nil { unlink(path) }
      await collector.collect(unneeded, blobs: Set(names.compactMap { Digest(hex: $0) }))
    }
    return differences
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
