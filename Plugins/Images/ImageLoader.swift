import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Wire

/// Loads every image of an archive, or none.
final class ImageLoader: Sendable {
  private let host: PluginHost
  private let store: ImageStore
  private let collector: LayerCollector
  private let layers: LocalLayers
  /// Where archives are spooled; each load has a directory of its own there.
  let spools: String
  private let working = Mutex<Set<String>>([])

  init(
    host: PluginHost, store: ImageStore, collector: LayerCollector, layers: LocalLayers, spools: String
  ) {
    self.layers = layers
    self.host = host
    self.store = store
    self.collector = collector
    self.spools = spools
  }

  /// Removes what a former engine's loads left, or whatever nobody works in.
  ///
  /// - Returns: the directories that were (or with `repair` false: are to be) removed.
  @discardableResult
  func sweep(repair: Bool) throws(EngineError) -> [String] {
    do {
      try Files.makeDirectory(spools)
      let before = working.withLock { $0 }
      let names = try Files.list(spools)
      let mine = before.union(working.withLock { $0 })
      let stale = names.filter { !mine.contains($0) }.map { "\(spools)/\($0)" }
      if repair {
        for path in stale { try Files.removeTree(path) }
        let ended = host.journal.entries(plugin: host.manifest.name, kind: "spool").filter { !Files.exists($0.object) }
        try host.journal.end(ended.map(\.number))
      }
      return stale
    } catch let error as SystemCallError {
      throw Storage.error("the directory for archives cannot be swept", error)
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  func run(
    _ request: ImageLoad, _ call: Call, _ sink: Sink<ImageProgress>, _ interruption: Interruption
  ) async throws(EngineError) -> [String] {
    let platform = try ManifestReader.platform(request.platform)
    let name = ObjectID.random().short
    let directory = "\(spools)/\(name)"
    working.withLock { _ = $0.insert(name) }
    defer { working.withLock { _ = $0.remove(name) } }
    let entry = try host.journal.begin(plugin: host.manifest.name, [("spool", directory)])
    let result: Result<[String], EngineError>
    do throws(EngineError) {
      do {
        try Files.makeDirectory(directory)
      } catch {
        throw Storage.error("the archive cannot be stored", error)
      }
      let spool = ArchiveSpool(directory: directory, limit: layers.settings.layerLimit)
      if Files.isDirectory(request.archive) {
        spool.read(layout: request.archive)
      } else {
        try spool.fill(from: request.archive.number, interruption: interruption)
      }
      FaultPoint.reach("images.load.spooled")
      result = .success(
        try await collector.during { (applied) async throws(EngineError) in
          try await load(spool, platform, applied, call, sink, interruption)
        })
    } catch {
      result = .failure(error)
    }
    do {
      try Files.removeTree(directory)
      try host.journal.end(entry)
    } catch {
      host.log.error("the spooled archive stays: \(error)")
    }
    return try result.get()
  }

  private func load(
    _ spool: ArchiveSpool, _ platform: ImagePlatform?, _ applied: AppliedLayers, _ call: Call,
    _ sink: Sink<ImageProgress>, _ interruption: Interruption
  ) async throws(EngineError) -> [String] {
    var images: [NewImage] = []
    var references: [NewReference] = []
    var lines: [String] = []
    for archived in try ArchivedImage.list(spool, platform) {
      let image = try await unpack(archived, spool, applied, call, sink, interruption)
      if let platform {
        try image.parsed.check(for: platform, name: archived.references.first?.familiar ?? image.id.short)
      }
      images.append(image)
      references += archived.references.map { NewReference($0, image.id, manifest: image.record.manifest) }
      lines += archived.references.isEmpty ? [image.id.description] : archived.references.map(\.familiar)
    }
    if interruption.isInterrupted { throw EngineError(.cancelled, "the load was cancelled") }
    for (name, former) in try await store.commit(images, references: references, .now, applied, call) {
      let text = "The image \(name) already exists, renaming the old one with ID \(former) to empty string"
      try await sink.yield(ImageProgress(item: "", status: text))
    }
    return lines
  }

  private func unpack(
    _ archived: ArchivedImage, _ spool: ArchiveSpool, _ applied: AppliedLayers, _ call: Call,
    _ sink: Sink<ImageProgress>, _ interruption: Interruption
  ) async throws(EngineError) -> NewImage {
    let bytes = try spool.document(archived.configuration)
    let id = try SHA256.digest(of: bytes)
    if let expected = archived.id, expected != id { throw ArchivedImage.mismatch(archived.configuration) }
    let said = archived.manifest?.manifest
    if let said, said.config.size != Int64(bytes.count) {
      throw ArchivedImage.wrongSize(archived.configuration, said.config.size, Int64(bytes.count))
    }
    let parsed = try ManifestReader.configuration(bytes, subject: "the archive")
    let differenceIDs = parsed.rootfs.differenceIDs
    guard differenceIDs.count == archived.layers.count else {
      throw EngineError(
        .invalidArgument,
        "invalid manifest, layers length mismatch: expected \(differenceIDs.count), got \(archived.layers.count)")
    }
    var chain: [Digest] = []
    var blobs: [ContentDescriptor] = []
    var sizes: [Int64] = []
    for (index, (member, differenceID)) in zip(archived.layers, differenceIDs).enumerated() {
      let file = try spool.open(member)
      var status = stat()
      let total = fstat(file.number, &status) == 0 ? Int64(status.st_size) : nil
      // Registries are told the sizes that the manifest says, so they must be those of the blobs.
      if let said, let total, said.layers[index].size != total {
        throw ArchivedImage.wrongSize(member, said.layers[index].size, total)
      }
      try await sink.yield(
        ImageProgress(item: differenceID.short, status: "Loading layer", current: 0, total: total))
      let (layer, blob) = try await layers.unpack(
        file, path: try spool.path(member), digest: said?.layers[index].digest,
        parent: chain.last, differenceID: differenceID, subject: member, interruption, call)
      applied.add(layer.chainID)
      FaultPoint.reach("images.load.layer")
      chain.append(layer.chainID)
      blobs.append(blob)
      sizes.append(layer.size)
      try await sink.yield(
        ImageProgress(item: differenceID.short, status: "Loading layer", current: total, total: total))
    }
    var manifest: (digest: Digest, bytes: [UInt8])
    if let came = archived.manifest {
      manifest = (came.digest, came.bytes)
    } else {
      manifest = try ManifestWriter.manifest(configuration: bytes, id: id, layers: blobs)
    }
    return NewImage(
      id: id, configuration: bytes, parsed: parsed, manifest: manifest.bytes,
      record: ImageRecord(
        layers: chain, size: sizes.reduce(0, +), stored: .now, manifest: manifest.digest, repositoryDigests: [],
        content: blobs.map(\.digest), layerSizes: sizes))
  }
}
