import ContentStreams
import Contracts
import LinuxSystem
import Synchronization

/// What the store knows, asked in every way.
extension ImageStore {
  /// Finds an image by name, ID or prefix; a text that was asked before costs two lookups.
  func resolve(_ text: String) throws(EngineError) -> ImageDescription {
    let known = state.withLock { state in state.memo[text].flatMap { state.images[$0] } }
    if let known {
      if let damage = known.damage { throw damage }
      return known.description
    }
    let id = try find(text)
    guard
      let stored = state.withLock({ state -> Stored? in
        if state.memo.count >= 1024 { state.memo.removeAll(keepingCapacity: true) }
        if state.images[id] != nil { state.memo[text] = id }
        return state.images[id]
      })
    else { throw Self.notFound(text) }
    if let damage = stored.damage { throw damage }
    return stored.description
  }

  /// As `resolve`, for one platform.
  func resolve(_ text: String, platform: String?) throws(EngineError) -> ImageDescription {
    let image = try resolve(text)
    guard let platform = try ManifestReader.platform(platform) else { return image }
    try image.configuration.check(
      for: platform, name: (try? ImageReference(parsing: text).familiar) ?? text)
    return image
  }

  static func notFound(_ text: String) -> EngineError { EngineError(.notFound, "No such image: \(text)") }

  /// The ID that a text stands for, also of a damaged image.
  func find(_ text: String) throws(EngineError) -> Digest { try lookup(text).image }

  /// The image that a text stands for, also a damaged one, and the manifest and digest that its name has.
  func lookup(_ text: String) throws(EngineError) -> ReferenceRecord {
    if let id = Digest(text) ?? Digest(hex: text) {
      if state.withLock({ $0.images[id] != nil }) { return ReferenceRecord(image: id) }
      throw Self.notFound(text)
    }
    let parsed: Result<ImageReference, EngineError>
    do throws(EngineError) {
      parsed = .success(try ImageReference(parsing: text))
    } catch {
      parsed = .failure(error)
    }
    if case .success(let reference) = parsed, let found = named(reference) { return found }
    if let id = try find(prefix: text) { return ReferenceRecord(image: id) }
    throw Self.notFound(try parsed.get().familiar)
  }

  /// What a name stands for now.
  func named(_ reference: ImageReference) -> ReferenceRecord? {
    state.withLock { state in
      guard let digest = reference.digest else { return state.references[reference.description] }
      // A digest says which image it is; a tag beside it is not looked at.
      let name = "\(reference.familiarRepository)@\(digest)"
      if let found = state.images.first(where: { $0.value.record.repositoryDigests.contains(name) }) {
        return ReferenceRecord(
          image: found.key, manifest: found.value.record.digests?[name]?.manifest, digest: digest)
      }
      guard state.images[digest] != nil else { return nil }
      let prefix = "\(reference.registry)/\(reference.repository):"
      let has = state.references.contains { $0.value.image == digest && $0.key.hasPrefix(prefix) }
      return has ? ReferenceRecord(image: digest) : nil
    }
  }

  private func find(prefix text: String) throws(EngineError) -> Digest? {
    let hex = text.hasPrefix("sha256:") ? String(text.dropFirst(7)) : text
    guard !hex.isEmpty, hex.utf8.count < 64,
      hex.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
    else { return nil }
    let matches = state.withLock { state -> [Digest] in
      var (low, high) = (0, state.sorted.count)
      while low < high {
        let middle = (low + high) / 2
        if state.sorted[middle].hex < hex { low = middle + 1 } else { high = middle }
      }
      return Array(state.sorted[low...].prefix(2).prefix { $0.hex.hasPrefix(hex) })
    }
    if matches.count > 1 {
      throw EngineError(.invalidArgument, "ambiguous image ID prefix \"\(text)\": more digits are needed")
    }
    return matches.first
  }

  func image(_ id: Digest) -> Stored? { state.withLock { $0.images[id] } }

  /// Every image, the newest first.
  var all: [ImageDescription] {
    state.withLock { $0.images.values.map(\.description) }.sorted {
      ($0.configuration.created ?? .never, $0.id) > ($1.configuration.created ?? .never, $1.id)
    }
  }

  /// Whole names that stand for an image, in order.
  func references(of id: Digest) -> [String] {
    state.withLock { state in state.references.filter { $0.value.image == id }.map(\.key).sorted() }
  }

  /// Layers that some image needs, but for those in `except`.
  func layersInUse(except: Set<Digest> = []) -> Set<Digest> {
    state.withLock { state in
      state.images.reduce(into: []) { if !except.contains($1.key) { $0.formUnion($1.value.record.layers) } }
    }
  }

  /// Blobs that some image needs.
  var blobsInUse: Set<Digest> {
    state.withLock { state in
      state.images.reduce(into: []) { result, image in
        result.insert(image.key)
        result.formUnion(image.value.record.blobs)
      }
    }
  }

  /// Paths of blobs that records name and that are not there.
  var missingBlobs: [String] { blobsInUse.sorted().map(content.blob).filter { !Files.exists($0) } }

  /// Bytes of the regular files of each layer that some image has.
  var layerSizes: [Digest: Int64] {
    state.withLock { state in
      state.images.values.reduce(into: [:]) { result, image in
        for (chain, size) in zip(image.record.layers, image.record.layerSizes ?? []) { result[chain] = size }
      }
    }
  }

  /// Every name in a reference's repository, with what it stands for.
  func references(inRepositoryOf reference: ImageReference) -> [(ImageReference, ReferenceRecord)] {
    let prefix = "\(reference.registry)/\(reference.repository):"
    let found = state.withLock { state in state.references.filter { $0.key.hasPrefix(prefix) } }
    return found.sorted { $0.key < $1.key }.compactMap { name, record in
      (try? ImageReference(parsing: name)).map { ($0, record) }
    }
  }

  /// The manifest that a name of an image leads to, byte for byte.
  ///
  /// - Throws: `unsupported` for an image that was stored without its layers' own bytes, `corrupt` for one that does not
  ///   read.
  func manifest(of name: ReferenceRecord) throws(EngineError) -> StoredManifest {
    let id = name.image
    let record = image(id)?.record
    let wanted = name.manifest.flatMap { record?.content(of: $0) == nil ? nil : $0 } ?? record?.manifest
    guard let record, let digest = wanted, record.content(of: digest) != nil else {
      throw EngineError(
        .unsupported, "the image \(id.short) is kept without its layers' own bytes: pull, load or import it again")
    }
    let bytes = try content.read(digest)
    guard try SHA256.digest(of: bytes) == digest else {
      throw EngineError(.corrupt, "the manifest of the image \(id.short) is damaged: \(content.blob(digest))")
    }
    let subject = "the manifest of the image \(id.short)"
    guard case .manifest(let manifest) = try ManifestReader.document(bytes, mediaType: nil, subject: subject) else {
      throw EngineError(.corrupt, "\(subject) is an index")
    }
    return StoredManifest(
      digest: digest, mediaType: manifest.mediaType ?? MediaType.ociManifest, bytes: bytes, manifest: manifest)
  }

  /// How an image was made, the last step first.
  func history(of text: String) throws(EngineError) -> [ImageHistoryEntry] {
    let id = try find(text)
    guard let stored = image(id) else { throw Self.notFound(text) }
    if let damage = stored.damage { throw damage }
    let configuration = stored.description.configuration
    var sizes = (stored.record.layerSizes ?? [])[...]
    var steps: [ImageHistoryEntry] = []
    for step in configuration.history ?? [] {
      steps.append(
        ImageHistoryEntry(
          id: nil, created: step.created, createdBy: step.createdBy ?? "", comment: step.comment ?? "",
          size: step.emptyLayer == true ? 0 : sizes.popFirst() ?? 0))
    }
    // Layers that the history does not speak of.
    for size in sizes {
      steps.append(ImageHistoryEntry(id: nil, created: nil, createdBy: "", comment: "", size: size))
    }
    if steps.isEmpty {
      steps = [
        ImageHistoryEntry(id: nil, created: configuration.created, createdBy: "", comment: "", size: 0)
      ]
    }
    steps[steps.count - 1].id = id
    return steps.reversed()
  }
}
