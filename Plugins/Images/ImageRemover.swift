import Contracts
import Kernel

/// Untags and deletes images in Docker's manner (moby, daemon/images/image_delete.go): what is refused, in which words,
/// and what `force` allows.
struct ImageRemover: Sendable {
  let store: ImageStore
  let collector: LayerCollector

  func run(_ request: ImageRemove, _ call: Call) async throws(EngineError) -> [ImageRemovalStep] {
    let id = try store.find(request.reference)
    let names = store.references(of: id)
    let users = try await call.request(ContainerUsers(resource: .image(id)))
    var steps: [ImageRemovalStep] = []
    var untagged: [String] = []
    func untag(_ name: String) {
      untagged.append(name)
      steps.append(.untagged((try? ImageReference(parsing: name))?.familiar ?? name))
    }
    if let name = Self.name(request.reference, among: names) {
      if !request.force, names.count == 1, let user = users.first {
        throw EngineError(
          .inUse,
          "conflict: unable to remove repository reference \"\(request.reference)\" (must force) - container "
            + "\(user.id.short) is using its referenced image \(id.short)")
      }
      untag(name)
      // Other names keep the image; so does a container that runs, of which nobody is told twice.
      if names.count > 1 || users.contains(where: \.isRunning) {
        try await store.remove(references: untagged, images: [], call.bus)
        return steps
      }
    } else {
      if let conflict = conflict(request, id, names, users) { throw conflict }
      for name in names { untag(name) }
    }
    return try await delete(id, untagged, steps, call)
  }

  /// The name that a text means, or nil where it means an ID.
  private static func name(_ text: String, among names: [String]) -> String? {
    guard let reference = try? ImageReference(parsing: text) else { return nil }
    return names.first { $0 == reference.description }
  }

  private func conflict(
    _ request: ImageRemove, _ id: Digest, _ names: [String], _ users: [ContainerUsers.User]
  ) -> EngineError? {
    func refuse(_ way: String, _ why: String) -> EngineError {
      EngineError(.inUse, "conflict: unable to delete \(id.short) (\(way)) - \(why)")
    }
    if let user = users.first(where: \.isRunning) {
      return refuse("cannot be forced", "image is being used by running container \(user.id.short)")
    }
    if request.force { return nil }
    if names.count > 1 { return refuse("must be forced", "image is referenced in multiple repositories") }
    if let user = users.first {
      return refuse("must be forced", "image is being used by stopped container \(user.id.short)")
    }
    return nil
  }

  private func delete(
    _ id: Digest, _ names: [String], _ steps: [ImageRemovalStep], _ call: Call
  ) async throws(EngineError) -> [ImageRemovalStep] {
    let layers = store.image(id)?.record.layers ?? []
    try await store.remove(references: names, images: [id], call.bus)
    let needed = store.layersInUse()
    await collector.collect(Set(layers))
    return steps + [.deleted(id)] + layers.reversed().filter { !needed.contains($0) }.map { .deleted($0) }
  }
}
