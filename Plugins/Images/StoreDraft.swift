import Contracts

/// Changes to images and names that are about to be made together, above what there is.
struct StoreDraft {
  private let base: ImageStore.State
  private var images: [Digest: ImageRecord?] = [:]
  private var references: [String: ReferenceRecord?] = [:]
  private var parsed: [Digest: ImageConfiguration] = [:]
  /// Names that stood for another image before, with that image.
  private(set) var moved: [(name: String, former: Digest)] = []

  init(_ base: ImageStore.State) { self.base = base }

  func image(_ id: Digest) -> ImageRecord? {
    if let changed = images[id] { return changed }
    return base.images[id]?.record
  }

  func reference(_ name: String) -> ReferenceRecord? {
    if let changed = references[name] { return changed }
    return base.references[name]
  }

  // MARK: Changing

  mutating func add(_ image: NewImage) {
    take(image.record.repositoryDigests, from: image.id)
    images[image.id] = .some(self.image(image.id).map { $0.joined(with: image.record) } ?? image.record)
    parsed[image.id] = image.parsed
  }

  /// A digest in a repository names one image: others that it named lose it.
  mutating func take(_ digests: [String], from owner: Digest) {
    if digests.isEmpty { return }
    for id in Set(base.images.keys).union(images.keys) where id != owner {
      guard let record = image(id), record.repositoryDigests.contains(where: digests.contains) else { continue }
      update(id) { $0.repositoryDigests.removeAll(where: digests.contains) }
    }
  }

  mutating func update(_ id: Digest, _ body: (inout ImageRecord) -> Void) {
    guard var record = image(id) else { return }
    body(&record)
    images[id] = .some(record)
  }

  mutating func remove(image id: Digest) { images[id] = .some(nil) }

  mutating func set(_ reference: NewReference) {
    let name = reference.name.description
    var record = reference.record
    if let former = self.reference(name) {
      if former.image != record.image {
        moved.append((reference.name.familiar, former.image))
        touch(former.image)
      }
      if image(record.image)?.unsynced != nil {
        record.former =
          former.former
          ?? FormerReference(image: former.image, manifest: former.manifest, digest: former.digest)
        if record.former?.image == record.image { record.former = nil }
      }
    }
    references[name] = .some(record)
    touch(reference.record.image)
  }

  mutating func remove(reference name: String) {
    if let former = reference(name) { touch(former.image) }
    references[name] = .some(nil)
  }

  /// An image is on the disk, and its names need not remember what they stood for.
  mutating func markSynced(_ id: Digest) {
    guard image(id)?.unsynced != nil else { return }
    update(id) { $0.unsynced = nil }
    for name in base.references.keys {
      guard var record = reference(name), record.image == id, record.former != nil else { continue }
      record.former = nil
      references[name] = .some(record)
    }
  }

  private mutating func touch(_ id: Digest) {
    if images[id] == nil, let record = image(id) { images[id] = .some(record) }
  }

  /// Lets the images that were touched forget what no name leads to any more.
  mutating func settle() {
    var tags: [Digest: [Digest?]] = [:]
    for (name, record) in base.references where references[name] == nil {
      tags[record.image, default: []].append(record.manifest)
    }
    for case (_, let record?) in references { tags[record.image, default: []].append(record.manifest) }
    for case (let id, let record?) in images { images[id] = .some(record.settled(tags: tags[id] ?? [])) }
  }

  // MARK: What changed

  var changedImages: [(Digest, ImageRecord?)] {
    images.filter { id, record in
      base.images[id]?.record != record || (record != nil && parsed[id] != nil && base.images[id]?.damage != nil)
    }.map { ($0.key, $0.value) }.sorted { $0.0 < $1.0 }
  }

  var changedReferences: [(String, ReferenceRecord?)] {
    references.filter { name, record in base.references[name] != record }.map { ($0.key, $0.value) }
      .sorted { $0.0 < $1.0 }
  }

  /// Blobs that images named before and name no more.
  var dropped: Set<Digest> {
    images.reduce(into: []) { result, image in
      let before = base.images[image.key]?.record.blobs ?? []
      result.formUnion(before.subtracting(image.value?.blobs ?? []))
    }
  }

  func apply(to state: inout ImageStore.State) {
    for (name, record) in references { state.references[name] = record }
    for (id, record) in images {
      guard let record else {
        state.images[id] = nil
        continue
      }
      var stored = state.images[id]
      if let configuration = parsed[id] {
        stored = ImageStore.Stored(
          description: ImageDescription(
            id: id, references: [], repositoryDigests: record.repositoryDigests, configuration: configuration,
            layers: record.layers, size: record.size, stored: record.stored),
          record: record, damage: nil)
      }
      stored?.record = record
      stored?.description.repositoryDigests = record.repositoryDigests
      state.images[id] = stored
    }
  }
}
