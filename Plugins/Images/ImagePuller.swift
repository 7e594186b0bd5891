import ContentStreams
import Contracts
import Kernel
import LinuxSystem
import Wire

/// Pulls images: manifest, configuration and layers, the record last.
final class ImagePuller: Sendable {
  private let host: PluginHost
  private let store: ImageStore
  private let collector: LayerCollector
  private let fetcher: LayerFetcher

  init(host: PluginHost, store: ImageStore, collector: LayerCollector, fetcher: LayerFetcher) {
    self.host = host
    self.store = store
    self.collector = collector
    self.fetcher = fetcher
  }

  func run(
    _ request: ImagePull, _ call: Call, _ sink: Sink<ImageProgress>
  ) async throws(EngineError) -> [PulledImage] {
    let reference = try ImageReference(parsing: request.reference)
    let platform = try ManifestReader.platform(request.platform)
    let (lines, teller) = AsyncStream.makeStream(of: ImageProgress.self)
    async let forwarded: Void = {
      for await line in lines { try? await sink.yield(line) }
    }()
    let result = await attempt { () async throws(EngineError) in
      try await self.pull(request, reference, platform, call) { teller.yield($0) }
    }
    teller.finish()
    await forwarded
    return try result.get()
  }

  private func pull(
    _ request: ImagePull, _ reference: ImageReference, _ platform: ImagePlatform?, _ call: Call,
    _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> [PulledImage] {
    if request.policy == .missing, !request.allTags, let found = try? store.lookup(request.reference),
      let image = store.image(found.image), image.damage == nil,
      platform.map({ image.description.configuration.platform.satisfies($0) }) ?? true
    {
      let digest = found.digest ?? found.manifest ?? image.record.manifest ?? found.image
      return [PulledImage(reference: reference.familiar, digest: digest, id: found.image, isNew: false)]
    }
    let repository = RegistryRepository(
      registry: reference.registry, name: reference.repository, credentials: request.credentials)
    var names = [reference]
    if request.allTags {
      guard try ImageReference.isBare(request.reference) else {
        throw EngineError(.invalidArgument, "tag can't be used with --all-tags/-a")
      }
      names = try await call.request(RegistryTags(repository: repository)).map { (tag) throws(EngineError) in
        try ImageReference(parsing: "\(reference.registry)/\(reference.repository):\(tag)")
      }
      if names.isEmpty {
        throw EngineError(.notFound, "the repository \(reference.familiarRepository) has no tags")
      }
    }
    var pulled: [PulledImage] = []
    for name in names {
      let image = try await pull(name, repository, platform, call, tell)
      tell(ImageProgress(item: "", status: "Digest: \(image.digest)"))
      pulled.append(image)
    }
    let shown = request.allTags ? reference.familiarRepository : reference.familiar
    let outcome = pulled.contains(where: \.isNew) ? "Downloaded newer image" : "Image is up to date"
    tell(ImageProgress(item: "", status: "Status: \(outcome) for \(shown)"))
    return pulled
  }

  private func pull(
    _ reference: ImageReference, _ repository: RegistryRepository, _ platform: ImagePlatform?, _ call: Call,
    _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> PulledImage {
    let wanted = reference.digest.map(\.description) ?? reference.tag ?? "latest"
    let (indexes, manifest) = try await resolve(reference, wanted, repository, platform, call) {
      tell(ImageProgress(item: wanted, status: "Pulling from \(reference.repository)"))
    }
    return try await collector.during { (applied) async throws(EngineError) in
      try await self.take(
        Found(reference: reference, repository: repository, platform: platform, indexes: indexes, manifest: manifest),
        applied, call, tell)
    }
  }

  /// What a registry has under a name.
  private struct Found: Sendable {
    var reference: ImageReference
    var repository: RegistryRepository
    /// The one that was asked for, if one was.
    var platform: ImagePlatform?
    /// The indexes on the way to the manifest, the outermost first.
    var indexes: [StoredIndex]
    var manifest: StoredManifest

    /// The digest that the name stands for.
    var digest: Digest { indexes.first?.digest ?? manifest.digest }
  }

  /// Fetches what is not here of an image, and records it.
  private func take(
    _ found: Found, _ applied: AppliedLayers, _ call: Call, _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> PulledImage {
    let subject = "the image \(found.reference.familiar)"
    let id = found.manifest.manifest.config.digest
    let former = store.named(found.reference)?.image
    let unpacked = Set(try await call.request(SnapshotLayers()))
    let configuration = try await fetcher.document(
      found.manifest.manifest.config, from: found.repository, limit: ManifestReader.configurationLimit,
      subject: "the configuration of \(subject)", call)
    let parsed = try ManifestReader.configuration(configuration, subject: subject)
    if let platform = found.platform { try parsed.check(for: platform, name: found.reference.familiar) }
    let plans = try LayerPlan.list(parsed, found.manifest.manifest.layers)
    let here = try present(plans, unpacked)
    // Of an image that is here, whatever it is called, there is nothing to fetch and nothing to show.
    let isWhole = store.image(id).map { $0.damage == nil } == true && here.count == plans.count
    if !isWhole {
      for plan in plans {
        let status = here[plan.chain] == nil ? "Pulling fs layer" : "Already exists"
        tell(ImageProgress(item: plan.blob.digest.short, status: status))
      }
    }
    let sizes = try await fetch(plans, found.repository, here, applied, tell)
    FaultPoint.reach("images.pull.complete")
    let image = Self.image(found, configuration, parsed, plans, sizes)
    // A name with a digest is found by its digest; its tag, if it has one, is not looked at.
    var names: [NewReference] = []
    if found.reference.digest == nil {
      names = [NewReference(found.reference, id, manifest: found.manifest.digest, digest: found.digest)]
    }
    if isWhole {
      applied.add(blobs: try await store.add([image], references: names, .now, call.bus).dropped)
    } else {
      try await store.commit([image], references: names, .soon, applied, call)
    }
    return PulledImage(
      reference: found.reference.familiar, digest: found.digest, id: id, isNew: former != id)
  }

  private static func image(
    _ found: Found, _ configuration: [UInt8], _ parsed: ImageConfiguration, _ plans: [LayerPlan], _ sizes: [Int64]
  ) -> NewImage {
    let name = "\(found.reference.familiarRepository)@\(found.digest)"
    let path = found.indexes.isEmpty ? nil : found.indexes.map(\.digest)
    var record = ImageRecord(
      layers: plans.map(\.chain), size: sizes.reduce(0, +), stored: .now, manifest: found.manifest.digest,
      repositoryDigests: [name], content: plans.map(\.blob.digest), layerSizes: sizes)
    record.digests = [name: DigestTarget(manifest: found.manifest.digest, indexes: path)]
    return NewImage(
      id: found.manifest.manifest.config.digest, configuration: configuration, parsed: parsed,
      manifest: found.manifest.bytes, indexes: found.indexes, record: record)
  }

  /// The layers that are unpacked here and of which the blob is here too, with the bytes of their files.
  ///
  /// - Throws: `invalidArgument` for a manifest that says another size of a blob than it has.
  private func present(
    _ plans: [LayerPlan], _ unpacked: Set<Digest>
  ) throws(EngineError) -> [Digest: Int64] {
    let sizes = store.layerSizes
    var result: [Digest: Int64] = [:]
    for plan in plans {
      guard unpacked.contains(plan.chain), let size = sizes[plan.chain],
        let status = Files.status(store.content.blob(plan.blob.digest))
      else { continue }
      guard Int64(status.st_size) == plan.blob.size else { throw LayerFetcher.wrongSize(plan.blob) }
      result[plan.chain] = size
    }
    return result
  }

  /// Asks the registry what a name means, through indexes down to a manifest.
  ///
  /// - Returns: the indexes on the way, the outermost first, and the manifest for the platform.
  private func resolve(
    _ reference: ImageReference, _ wanted: String, _ repository: RegistryRepository, _ platform: ImagePlatform?,
    _ call: Call, found: () -> Void
  ) async throws(EngineError) -> (indexes: [StoredIndex], manifest: StoredManifest) {
    var next = wanted
    var indexes: [StoredIndex] = []
    for _ in 0..<ManifestReader.maximumDepth {
      let subject = "the manifest of \(reference.familiar)"
      let answer = try await call.request(RegistryManifestGet(repository: repository, reference: next))
      let bytes = Array(answer.content.utf8)
      let digest = try SHA256.digest(of: bytes)
      if let expected = Digest(next), expected != digest {
        throw EngineError(.invalidArgument, "\(subject) is not what its digest says: \(digest) instead of \(expected)")
      }
      if indexes.isEmpty { found() }
      switch try ManifestReader.document(bytes, mediaType: answer.mediaType, subject: subject) {
      case .manifest(let manifest):
        return (
          indexes, StoredManifest(digest: digest, mediaType: answer.mediaType, bytes: bytes, manifest: manifest)
        )
      case .index(let index):
        indexes.append(StoredIndex(digest: digest, bytes: bytes))
        let candidates = index.candidates(for: platform ?? ManifestReader.host, strict: platform != nil)
        guard let best = candidates.first else {
          throw EngineError(
            .notFound, "no matching manifest for \(platform ?? ManifestReader.host) in the manifest list entries")
        }
        next = best.digest.description
      }
    }
    throw EngineError(.invalidArgument, "the image \(reference.familiar) is refused: its indexes lead in a ring")
  }

  /// - Returns: the sizes of the unpacked layers.
  private func fetch(
    _ plans: [LayerPlan], _ repository: RegistryRepository, _ here: [Digest: Int64], _ applied: AppliedLayers,
    _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> [Int64] {
    var result = [Int64](repeating: 0, count: plans.count)
    var failure: EngineError?
    await withTaskGroup(of: (Int, Result<SnapshotApply.Reply, EngineError>).self) { group in
      for (index, plan) in plans.enumerated() {
        applied.add(plan.chain)
        if let size = here[plan.chain] {
          result[index] = size
          continue
        }
        group.addTask {
          let outcome = await attempt { () async throws(EngineError) in
            try await self.fetcher.fetch(plan, from: repository, tell: tell)
          }
          return (index, outcome)
        }
      }
      for await (index, outcome) in group {
        switch outcome {
        case .success(let reply): result[index] = reply.size
        case .failure(let error):
          // The first is the cause; the others were cancelled for it.
          if failure == nil || failure?.code == .cancelled { failure = error }
          group.cancelAll()
        }
      }
    }
    if let failure { throw failure }
    return result
  }
}
