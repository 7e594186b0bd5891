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
    let platform = try request.platform.map { (text) throws(EngineError) in
      try ImagePlatform(parsing: text, host: ManifestReader.host)
    }
    if let platform, platform.os != "linux" {
      throw EngineError(.unsupported, "image operating system \"\(platform.os)\" cannot be used on this platform")
    }
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
    if request.policy == .missing, !request.allTags, let id = try? store.find(request.reference),
      let image = store.image(id), image.damage == nil
    {
      return [PulledImage(reference: reference.familiar, digest: image.record.manifest ?? id, id: id, isNew: false)]
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
    let (target, manifest) = try await resolve(reference, wanted, repository, platform, call) {
      tell(ImageProgress(item: wanted, status: "Pulling from \(reference.repository)"))
    }
    let subject = "the image \(reference.familiar)"
    return try await collector.during { (applied) async throws(EngineError) in
      let former = self.store.id(of: reference)
      let known = Set(try await call.request(SnapshotLayers()))
      let configuration = try await self.fetcher.document(
        manifest.manifest.config, from: repository, limit: ManifestReader.configurationLimit,
        subject: "the configuration of \(subject)", call)
      let parsed = try ManifestReader.configuration(configuration, subject: subject)
      if let platform { try Self.check(parsed, platform, reference) }
      let plans = try LayerPlan.list(parsed, manifest.manifest.layers)
      for plan in plans { tell(ImageProgress(item: plan.blob.digest.short, status: "Pulling fs layer")) }
      let sizes = try await self.fetch(plans, repository, known, applied, tell)
      FaultPoint.reach("images.pull.complete")
      let image = NewImage(
        id: manifest.manifest.config.digest, configuration: configuration, parsed: parsed, manifest: manifest.bytes,
        record: ImageRecord(
          layers: plans.map(\.chain), size: sizes.reduce(0, +), stored: .now, manifest: manifest.digest,
          repositoryDigests: ["\(reference.familiarRepository)@\(target)"],
          content: plans.map(\.blob.digest), layerSizes: sizes))
      // A name with a digest is found by its digest; its tag, if it has one, is not looked at.
      let names = reference.digest == nil ? [(reference, image.id)] : []
      try await self.store.commit([image], references: names, call)
      return PulledImage(
        reference: reference.familiar, digest: target, id: image.id, isNew: former != image.id)
    }
  }

  /// Asks the registry what a name means, through indexes down to a manifest.
  ///
  /// - Returns: the digest that the name stands for, and the manifest for the platform.
  private func resolve(
    _ reference: ImageReference, _ wanted: String, _ repository: RegistryRepository, _ platform: ImagePlatform?,
    _ call: Call, found: () -> Void
  ) async throws(EngineError) -> (target: Digest, manifest: StoredManifest) {
    var next = wanted
    var target: Digest?
    for _ in 0..<ManifestReader.maximumDepth {
      let subject = "the manifest of \(reference.familiar)"
      let answer = try await call.request(RegistryManifestGet(repository: repository, reference: next))
      let bytes = Array(answer.content.utf8)
      let digest = try SHA256.digest(of: bytes)
      if let expected = Digest(next), expected != digest {
        throw EngineError(.invalidArgument, "\(subject) is not what its digest says: \(digest) instead of \(expected)")
      }
      if target == nil {
        target = digest
        found()
      }
      switch try ManifestReader.document(bytes, mediaType: answer.mediaType, subject: subject) {
      case .manifest(let manifest):
        return (
          target ?? digest,
          StoredManifest(digest: digest, mediaType: answer.mediaType, bytes: bytes, manifest: manifest)
        )
      case .index(let index):
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

  private static func check(
    _ configuration: ImageConfiguration, _ platform: ImagePlatform, _ reference: ImageReference
  ) throws(EngineError) {
    let actual = ImagePlatform(
      os: configuration.os.isEmpty ? "linux" : configuration.os, architecture: configuration.architecture,
      variant: configuration.variant
    ).normalized
    if actual == platform || configuration.architecture.isEmpty { return }
    if actual.architecture == platform.architecture, platform.variant == nil || actual.variant == nil { return }
    throw EngineError(
      .notFound,
      "image with reference \(reference.familiar) was found but does not match the specified platform: "
        + "wanted \(platform), actual: \(actual)")
  }

  /// - Returns: the sizes of the unpacked layers.
  private func fetch(
    _ plans: [LayerPlan], _ repository: RegistryRepository, _ known: Set<Digest>, _ applied: AppliedLayers,
    _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> [Int64] {
    let sizes = store.layerSizes
    var result = [Int64](repeating: 0, count: plans.count)
    var failure: EngineError?
    await withTaskGroup(of: (Int, Result<SnapshotApply.Reply, EngineError>).self) { group in
      for (index, plan) in plans.enumerated() {
        applied.add(plan.chain)
        if known.contains(plan.chain), store.content.has(plan.blob.digest), let size = sizes[plan.chain] {
          tell(ImageProgress(item: plan.blob.digest.short, status: "Already exists"))
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
