import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Layers of images kept unpacked, and containers' root file systems as overlayfs mounts above them.
public final class OverlaySnapshotsPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "snapshots-overlay", role: "snapshot", driver: "overlay",
    keys: [
      ConfigurationKey(
        "mount", .text("auto"), choices: ["auto", "classic"],
        "How layers are given to the kernel: one by one where it takes them so, or always in one list."),
      ConfigurationKey(
        "layer-entries", .integer(UnpackPolicy().maximumEntries), range: 1...Int.max,
        "Files and directories that one layer may have."),
      ConfigurationKey(
        "layer-devices", .text("allow"), choices: ["allow", "refuse"], "Whether layers may have device nodes."),
    ])

  public static let examinations = ["auto", "classic"].map { Examination($0, configuration: ["mount": $0]) }

  private let host: PluginHost
  private let state: String
  private let trash: Trash
  private let layers: LayerStore
  private let containers: WritableLayers
  /// What the layers of an image without any look like.
  private let emptyLayer: String
  private let baseLayer: String
  private let view: LowerView

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    state = try host.stateDirectory()
    emptyLayer = "\(state)/empty"
    baseLayer = "\(state)/base"
    trash = Trash(path: "\(state)/trash", host: host)
    view = LowerView(empty: emptyLayer)
    layers = LayerStore(path: "\(state)/layers", host: host, trash: trash, view: view)
    containers = WritableLayers(path: "\(state)/containers", host: host, trash: trash)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(SnapshotApply.self) { request, _ throws(EngineError) in
      try await self.apply(request)
    }
    try registrar.answerAsDriver(SnapshotSync.self) { _, _ throws(EngineError) in try self.sync() }
    try registrar.answerAsDriver(SnapshotLayers.self) { _, _ throws(EngineError) in self.layers.all }
    try registrar.answerAsDriver(SnapshotRemoveLayers.self) { request, _ throws(EngineError) in
      try self.layers.remove(request.chainIDs)
      return Done()
    }
    try registrar.answerAsDriver(SnapshotMount.self) { request, _ throws(EngineError) in try self.mount(request) }
    try registrar.answerAsDriver(SnapshotRemove.self) { request, _ throws(EngineError) in
      try self.containers.remove(request.container)
      return Done()
    }
    try registrar.answerAsDriver(SnapshotUsage.self) { request, _ throws(EngineError) in
      try Usage.bytes(beneath: "\(self.containers.directory(request.container))/upper")
    }
    try registrar.answerAsDriver(SnapshotExport.self) { request, _ throws(EngineError) in try self.export(request) }
    try registrar.answerAsDriver(SnapshotDifferences.self) { request, _ throws(EngineError) in
      let trees = request.layers.reversed().map { self.layers.tree($0) } + [self.baseLayer]
      return try Differences.list(
        upper: "\(self.containers.directory(request.container))/upper", lower: trees, ignored: Set(request.ignored))
    }
    try registrar.answerAsPlugin(PluginCheck.self) { request, _ throws(EngineError) in try self.check(request) }
  }

  public func stop() async { await containers.close() }

  public func start() async throws(EngineError) {
    do {
      try BaseLayer.makeDirectory(emptyLayer)
      try BaseLayer.make(at: baseLayer)
    } catch {
      throw EngineError(.internalFailure, "the layers cannot be kept: \(error)")
    }
    try trash.load()
    try layers.load()
    try containers.load()
    let isModern =
      host.configuration["mount"] != "classic" && OverlayMount.takesLayersOneByOne(probing: emptyLayer)
    view.takesLayersOneByOne = isModern
  }

  // MARK: Handlers

  private func apply(_ request: SnapshotApply) async throws(EngineError) -> SnapshotApply.Reply {
    let interruption = try Interruption()
    let result = await withTaskCancellationHandler { () async -> Result<SnapshotApply.Reply, EngineError> in
      do throws(EngineError) {
        return .success(try layers.apply(request, interruption: interruption))
      } catch {
        return .failure(error)
      }
    } onCancel: {
      interruption.interrupt()
    }
    return try result.get()
  }

  private func sync() throws(EngineError) -> Done {
    do {
      try Files.syncFileSystem(of: layers.path)
    } catch {
      throw LayerStore.storageError("the layers cannot be synced", error)
    }
    return Done()
  }

  private func mount(_ request: SnapshotMount) throws(EngineError) -> SnapshotMount.Reply {
    guard request.layers.count <= OverlayMount.maximumLayers else {
      throw EngineError(.invalidArgument, "max depth exceeded: \(request.layers.count) layers")
    }
    var trees: [String] = []
    trees.reserveCapacity(request.layers.count + 1)
    var top: LayerStore.Layer?
    for chain in request.layers.reversed() {
      let layer = try layers.layer(chain)
      if top == nil { top = layer }
      trees.append(layers.tree(chain))
    }
    trees.append(baseLayer)
    try containers.make(request.container, above: top)
    FaultPoint.reach("overlay.mount.made")
    let directory = containers.directory(request.container)
    do {
      let root = try OverlayMount.make(
        layers: trees, upper: "\(directory)/upper", work: "\(directory)/work", isVolatile: request.discardable,
        oneByOne: view.takesLayersOneByOne)
      return SnapshotMount.Reply(root: Descriptor(adopting: root.release()))
    } catch {
      if error.number == ENODEV {
        throw EngineError(
          .unsupported, "the root file system cannot be mounted: this kernel has no overlayfs (modprobe overlay)")
      }
      throw EngineError(.internalFailure, "the root file system cannot be mounted: \(error)")
    }
  }

  /// The container's own layer is looked at as one more read-only layer, so that a running container is not disturbed.
  private func export(_ request: SnapshotExport) throws(EngineError) -> Done {
    let upper = "\(containers.directory(request.container))/upper"
    var trees = Files.isDirectory(upper) ? [upper] : []
    for chain in request.layers.reversed() {
      _ = try layers.layer(chain)
      trees.append(layers.tree(chain))
    }
    let root = try view.open(trees.isEmpty ? [emptyLayer] : trees)
    ArchiveWriter.blockBrokenPipes()
    try TreeExporter(try ArchiveWriter(request.output, subject: "the archive")).export(root.number)
    return Done()
  }

  /// Compares the directories with the containers that are known and with the work in progress.
  private func check(_ request: PluginCheck) throws(EngineError) -> [SystemDifference] {
    var differences: [SystemDifference] = []
    func report(_ kind: SystemDifference.Kind, _ object: String) {
      differences.append(SystemDifference(kind: kind, plugin: Self.manifest.name, object: object))
    }
    let known = Set(request.known)
    for container in try containers.all() where !known.contains(container) {
      report(.leftover, "writable layer \(containers.directory(container))")
      if request.repair { try containers.remove(container) }
    }
    let running = Set(request.running)
    let lost = Set(containers.missing()).union(running.filter { !Files.exists(containers.directory($0)) })
    for container in lost.intersection(known).sorted() {
      report(.missing, "writable layer \(containers.directory(container))")
      // What was written is lost. The mount of a running container shows that; the next start makes a new layer.
      if request.repair && !running.contains(container) { try containers.forget(container) }
    }
    let (names, mine): ([String], Set<String>)
    do {
      // In this order: an unpacking that ends between the two is not mistaken for a leftover.
      mine = layers.temporaries
      names = try Files.list(layers.path)
    } catch {
      throw EngineError(.internalFailure, "the layers cannot be listed: \(error)")
    }
    let begunMeanwhile = layers.temporaries
    for name in names where name.hasPrefix(LayerStore.temporaryPrefix) {
      if mine.contains(name) || begunMeanwhile.contains(name) { continue }
      report(.leftover, "half a layer \(layers.path)/\(name)")
      if request.repair { try trash.throwAway("\(layers.path)/\(name)") }
    }
    for chain in layers.all where !Files.exists(layers.tree(chain)) { report(.missing, "layer \(layers.tree(chain))") }
    let (draining, failed) = trash.contents
    for tree in draining { report(.draining, "tree \(tree)") }
    for tree in failed { report(.leftover, "tree \(tree)") }
    if request.repair { trash.retry() }
    return differences
  }
}
