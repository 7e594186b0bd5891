import ContentStreams
import Contracts
import Kernel
import LinuxSystem

/// Pushes images: blobs first, the manifest last, so that a registry never has a manifest without its blobs.
struct ImagePusher: Sendable {
  let host: PluginHost
  let store: ImageStore
  let collector: LayerCollector
  let settings: ImageSettings

  func run(
    _ request: ImagePush, _ call: Call, _ sink: Sink<ImageProgress>
  ) async throws(EngineError) -> [PushedImage] {
    let reference = try ImageReference(parsing: request.reference)
    if reference.digest != nil {
      throw EngineError(.invalidArgument, "cannot push a digest reference: \(reference.familiar)")
    }
    var images: [(ImageReference, ReferenceRecord)] = []
    if request.allTags {
      guard try ImageReference.isBare(request.reference) else {
        throw EngineError(.invalidArgument, "tag can't be used with --all-tags/-a")
      }
      images = store.references(inRepositoryOf: reference)
    } else if let record = store.named(reference) {
      images = [(reference, record)]
    }
    guard !images.isEmpty else {
      throw EngineError(
        .notFound, "An image does not exist locally with the tag: \(reference.familiarRepository)")
    }
    let (lines, teller) = AsyncStream.makeStream(of: ImageProgress.self)
    async let forwarded: Void = {
      for await line in lines { try? await sink.yield(line) }
    }()
    let result = await attempt { [images] () async throws(EngineError) -> [PushedImage] in
      try await collector.during { (_) async throws(EngineError) in
        teller.yield(
          ImageProgress(
            item: "", status: "The push refers to repository [\(reference.registry)/\(reference.repository)]"))
        var pushed: [PushedImage] = []
        for (name, record) in images {
          pushed.append(try await push(name, record, request, call) { teller.yield($0) })
        }
        return pushed
      }
    }
    teller.finish()
    await forwarded
    return try result.get()
  }

  private func push(
    _ reference: ImageReference, _ record: ReferenceRecord, _ request: ImagePush, _ call: Call,
    _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) -> PushedImage {
    guard let image = store.image(record.image) else { throw ImageStore.notFound(reference.familiar) }
    let manifest = try store.manifest(of: record)
    let repository = RegistryRepository(
      registry: reference.registry, name: reference.repository, credentials: request.credentials)
    let names = zip(manifest.manifest.layers, image.description.configuration.rootfs.differenceIDs).map {
      (blob: $0, item: $1.short)
    }
    for name in names { tell(ImageProgress(item: name.item, status: "Preparing")) }
    let sources = mountSources(image, reference)
    var failure: EngineError?
    let places = AsyncSemaphore(settings.downloads)
    await withTaskGroup(of: EngineError?.self) { group in
      var seen: Set<Digest> = []
      for (blob, item) in names where seen.insert(blob.digest).inserted {
        group.addTask {
          let outcome = await attempt { () async throws(EngineError) in
            try await places.acquire()
            defer { places.release() }
            try await put(blob, item, repository, sources, call, tell)
          }
          if case .failure(let error) = outcome { return error }
          return nil
        }
      }
      for await error in group {
        guard let error else { continue }
        if failure == nil || failure?.code == .cancelled { failure = error }
        group.cancelAll()
      }
    }
    if let failure { throw failure }
    try await put(manifest.manifest.config, "", repository, sources, call) { _ in }
    let tag = reference.tag ?? "latest"
    _ = try await call.request(
      RegistryManifestPut(
        repository: repository, reference: tag,
        manifest: RegistryManifest(
          mediaType: manifest.mediaType, digest: manifest.digest,
          content: String(decoding: manifest.bytes, as: UTF8.self))))
    let size = Int64(manifest.bytes.count)
    tell(ImageProgress(item: "", status: "\(tag): digest: \(manifest.digest) size: \(size)"))
    try await store.remember(reference, has: manifest.digest, of: record.image, call.bus)
    return PushedImage(tag: tag, digest: manifest.digest, size: size)
  }

  private func put(
    _ blob: ContentDescriptor, _ item: String, _ repository: RegistryRepository, _ sources: [String], _ call: Call,
    _ tell: @escaping LayerJobs.Tell
  ) async throws(EngineError) {
    let source = try store.content.open(blob.digest)
    let answer = try await call.stream(
      RegistryBlobPut(
        repository: repository, digest: blob.digest, size: blob.size, mountFrom: sources, source: source)
    ) { (sent) throws(EngineError) in
      tell(ImageProgress(item: item, status: "Pushing", current: sent, total: blob.size))
    }
    let status =
      switch answer {
      case .existed: "Layer already exists"
      case .mounted: "Mounted from \(sources.first ?? "another repository")"
      case .uploaded: "Pushed"
      }
    tell(ImageProgress(item: item, status: status))
  }

  /// Other repositories of the same registry that have this image, or had it when it came.
  private func mountSources(_ image: ImageStore.Stored, _ reference: ImageReference) -> [String] {
    let names = image.description.references + image.record.repositoryDigests
    var sources: [String] = []
    for name in names {
      guard let other = try? ImageReference(parsing: name), other.registry == reference.registry,
        other.repository != reference.repository, !sources.contains(other.repository)
      else { continue }
      sources.append(other.repository)
    }
    return sources
  }
}
