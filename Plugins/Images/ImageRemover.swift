import Contracts
import Kernel

/// Untags and deletes images in Docker's manner (moby, daemon/images/image_delete.go): what is refused, in which words,
/// and what `force` allows.
struct ImageRemover: Sendable {
  let store: ImageStore
  let collector: LayerCollector
  /// One removal after the other: what is decided depends on the names that the one before left.
  private let turn = AsyncSemaphore(1)

  init(store: ImageStore, collector: LayerCollector) {
    self.store = store
    self.collector = collector
  }

  /// The names of one image: tags as whole normalised names, and digests as `repository@digest`.
  private struct Names {
    var tags: [String]
    var digests: [String]

    /// One repository, and at most one tag in it.
    var isSingle: Bool {
      tags.count <= 1 && Set(tags.map(ImageRemover.repository) + digests.map(Self.repository)).count <= 1
    }

    static func repository(_ digest: String) -> String { digest.split(separator: "@").first.map(String.init) ?? digest }
  }

  static func repository(_ tag: String) -> String {
    (try? ImageReference(parsing: tag))?.familiarRepository ?? tag
  }

  func run(_ request: ImageRemove, _ call: Call) async throws(EngineError) -> [ImageRemovalStep] {
    try await turn.acquire()
    defer { turn.release() }
    let id = try store.find(request.reference)
    let names = Names(
      tags: store.references(of: id), digests: store.image(id)?.record.repositoryDigests ?? [])
    let users = try await call.request(ContainerUsers(resource: .image(id)))
    if let (tags, digests) = Self.meant(by: request.reference, among: names) {
      let keeps = names.tags.count > tags.count || names.digests.count > digests.count
      if !request.force, !keeps, let user = users.first {
        throw EngineError(
          .inUse,
          "conflict: unable to remove repository reference \"\(request.reference)\" (must force) - container "
            + "\(user.id.short) is using its referenced image \(id.short)")
      }
      let steps = Self.untagged(tags, digests)
      // Other names keep the image; so does a container, whose file system stands on its layers.
      if keeps || !users.isEmpty {
        try await untag(id, tags, digests, call)
        return steps
      }
      return try await delete(id, tags, steps, call).steps
    }
    if let conflict = conflict(request, id, names, users) { throw conflict }
    if !users.isEmpty {
      try await untag(id, names.tags, names.digests, call)
      return Self.untagged(names.tags, names.digests)
    }
    return try await delete(id, names.tags, Self.untagged(names.tags, names.digests), call).steps
  }

  /// The names that a text means, or nil where it means an ID. With the last tag of a repository its digests go too.
  private static func meant(by text: String, among names: Names) -> (tags: [String], digests: [String])? {
    guard let reference = try? ImageReference(parsing: text) else { return nil }
    let repository = reference.familiarRepository
    if let digest = reference.digest {
      let name = "\(repository)@\(digest)"
      return names.digests.contains(name) ? ([], [name]) : nil
    }
    guard let name = names.tags.first(where: { $0 == reference.description }) else { return nil }
    let keepsTag = names.tags.contains { $0 != name && Self.repository($0) == repository }
    return ([name], keepsTag ? [] : names.digests.filter { Names.repository($0) == repository })
  }

  private static func untagged(_ tags: [String], _ digests: [String]) -> [ImageRemovalStep] {
    tags.map { .untagged((try? ImageReference(parsing: $0))?.familiar ?? $0) } + digests.map { .untagged($0) }
  }

  private func conflict(
    _ request: ImageRemove, _ id: Digest, _ names: Names, _ users: [ContainerUsers.User]
  ) -> EngineError? {
    func refuse(_ way: String, _ why: String) -> EngineError {
      EngineError(.inUse, "conflict: unable to delete \(id.short) (\(way)) - \(why)")
    }
    if let user = users.first(where: \.isRunning) {
      return refuse("cannot be forced", "image is being used by running container \(user.id.short)")
    }
    if request.force { return nil }
    if !names.isSingle { return refuse("must be forced", "image is referenced in multiple repositories") }
    if let user = users.first {
      return refuse("must be forced", "image is being used by stopped container \(user.id.short)")
    }
    return nil
  }

  /// Takes names from an image that stays; the manifests that only they led to go.
  private func untag(
    _ id: Digest, _ tags: [String], _ digests: [String], _ call: Call
  ) async throws(EngineError) {
    let outcome = try await store.remove(references: tags, digests: [id: Set(digests)], images: [], call.bus)
    if !outcome.dropped.isEmpty { await collector.collect([], blobs: outcome.dropped) }
  }

  private func delete(
    _ id: Digest, _ names: [String], _ steps: [ImageRemovalStep], _ call: Call
  ) async throws(EngineError) -> (steps: [ImageRemovalStep], freed: Int64) {
    let record = store.image(id)?.record
    let layers = record?.layers ?? []
    _ = try await store.remove(references: names, images: [id], call.bus)
    let needed = store.layersInUse()
    var freed: Int64 = 0
    for (chain, size) in zip(layers, record?.layerSizes ?? []) where !needed.contains(chain) { freed += size }
    freed += await collector.collect(Set(layers), blobs: (record?.blobs ?? []).union([id]))
    let gone = layers.reversed().filter { !needed.contains($0) }.map { ImageRemovalStep.deleted($0) }
    return (steps + [.deleted(id)] + gone, freed)
  }

  // MARK: Pruning

  /// Removes every image that nobody uses; one that is used meanwhile stays.
  func prune(_ request: ImagePrune, _ call: Call) async throws(EngineError) -> ImagePrune.Reply {
    try await turn.acquire()
    defer { turn.release() }
    var reply = ImagePrune.Reply(steps: [], reclaimed: 0)
    for image in store.all where Self.isMeant(image, by: request) {
      if !request.all && !image.references.isEmpty { continue }
      if !(try await call.request(ContainerUsers(resource: .image(image.id)))).isEmpty { continue }
      let steps = Self.untagged(store.references(of: image.id), image.repositoryDigests)
      let (done, freed) = try await delete(image.id, store.references(of: image.id), steps, call)
      reply.steps += done
      reply.reclaimed += freed
    }
    return reply
  }

  private static func isMeant(_ image: ImageDescription, by request: ImagePrune) -> Bool {
    if let until = request.until, (image.configuration.created ?? image.stored) >= until { return false }
    let labels = image.configuration.config?.labels ?? [:]
    func has(_ text: String) -> Bool {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard let value = labels[parts[0]] else { return false }
      return parts.count == 1 || parts[1] == value
    }
    return request.labels.allSatisfy(has) && !request.withoutLabels.contains(where: has)
  }
}
