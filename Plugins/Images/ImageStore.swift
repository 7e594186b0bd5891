import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Wire

/// What is kept of an image beside its configuration (record kind `image`, under the ID's hexadecimal digits).
struct ImageRecord: Codable, Sendable, Equatable {
  /// Chain IDs, lowest first.
  var layers: [Digest]
  var size: Int64
  var stored: Timestamp
  /// The manifest's digest, where the image came with one; its bytes are a blob too.
  var manifest: Digest?
  /// `repository@digest`, familiar.
  var repositoryDigests: [String]
}

/// What a name stands for (record kind `image-reference`, under the whole normalised name).
struct ReferenceRecord: Codable, Sendable, Equatable {
  var image: Digest
}

/// An image that is to be stored.
struct NewImage: Sendable {
  var id: Digest
  /// The configuration as it came: its digest is the ID, so not one byte may change.
  var configuration: [UInt8]
  var parsed: ImageConfiguration
  var record: ImageRecord
}

/// The images and their names: records and blobs on disk, everything in memory.
final class ImageStore: Sendable {
  static let imageKind = "image"
  static let referenceKind = "image-reference"

  struct Stored: Sendable {
    var description: ImageDescription
    var record: ImageRecord
    /// Set where the configuration does not read; told to whoever asks for the image.
    var damage: EngineError?
  }

  private struct State {
    var images: [Digest: Stored] = [:]
    /// Whole normalised name to ID.
    var references: [String: Digest] = [:]
    /// IDs in order, to find one by its prefix.
    var sorted: [Digest] = []
    /// What a text as people write it was found to be; forgotten with every change.
    var memo: [String: Digest] = [:]
  }

  let blobs: String
  private let state = Mutex(State())
  /// Changes are made one after the other, so that records and memory agree.
  private let changes = AsyncMutex()

  init(blobs: String) { self.blobs = blobs }

  // MARK: Loading

  func load(_ bus: Bus, _ report: (String) -> Void) async throws(EngineError) {
    do {
      try Files.makeDirectories(blobs)
    } catch {
      throw EngineError(.internalFailure, "the images cannot be kept: \(error)")
    }
    let images = try await bus.request(RecordRead(kind: Self.imageKind))
    let references = try await bus.request(RecordRead(kind: Self.referenceKind))
    var state = State()
    for record in images {
      guard let id = Digest(hex: record.key) else { throw Self.corrupt(record) }
      let value: ImageRecord
      do throws(EngineError) {
        value = try JSON.decode(ImageRecord.self, Array(record.value.utf8))
      } catch {
        throw Self.corrupt(record)
      }
      var damage: EngineError?
      var configuration = ImageConfiguration(architecture: "", os: "", rootfs: .init(differenceIDs: []))
      do throws(EngineError) {
        configuration = try readConfiguration(id)
      } catch {
        damage = error
        report(error.description)
      }
      state.images[id] = Stored(
        description: ImageDescription(
          id: id, references: [], repositoryDigests: value.repositoryDigests, configuration: configuration,
          layers: value.layers, size: value.size, stored: value.stored),
        record: value, damage: damage)
    }
    for record in references {
      guard let value = try? JSON.decode(ReferenceRecord.self, Array(record.value.utf8)),
        let reference = try? ImageReference(parsing: record.key), state.images[value.image] != nil
      else { throw Self.corrupt(record) }
      state.references[reference.description] = value.image
    }
    Self.index(&state)
    let loaded = state
    self.state.withLock { $0 = loaded }
  }

  private static func corrupt(_ record: Record) -> EngineError {
    EngineError(.corrupt, "the record \(record.kind) \(record.key) does not read: \(record.value.prefix(200))")
  }

  func blob(_ digest: Digest) -> String { "\(blobs)/\(digest.hex)" }

  private func readConfiguration(_ id: Digest) throws(EngineError) -> ImageConfiguration {
    let bytes: [UInt8]
    do {
      bytes = try Files.read(blob(id))
    } catch {
      throw EngineError(.corrupt, "the image \(id.short) is damaged: \(error)")
    }
    guard try SHA256.digest(of: bytes) == id else {
      throw EngineError(
        .corrupt,
        "the image \(id.short) is damaged: \(blob(id)) is not what was stored; remove the image and load it again"
      )
    }
    return try JSON.decode(ImageConfiguration.self, bytes)
  }

  // MARK: Reading

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

  static func notFound(_ text: String) -> EngineError { EngineError(.notFound, "No such image: \(text)") }

  /// The ID that a text stands for, also of a damaged image.
  func find(_ text: String) throws(EngineError) -> Digest {
    if let id = Digest(text) ?? Digest(hex: text) {
      if state.withLock({ $0.images[id] != nil }) { return id }
      throw Self.notFound(text)
    }
    let parsed: Result<ImageReference, EngineError>
    do throws(EngineError) {
      parsed = .success(try ImageReference(parsing: text))
    } catch {
      parsed = .failure(error)
    }
    if case .success(let reference) = parsed, let id = find(reference) { return id }
    if let id = try find(prefix: text) { return id }
    throw Self.notFound(try parsed.get().familiar)
  }

  private func find(_ reference: ImageReference) -> Digest? {
    state.withLock { state in
      guard let digest = reference.digest else { return state.references[reference.description] }
      // A digest says which image it is; a tag beside it is not looked at.
      let name = "\(reference.familiarRepository)@\(digest)"
      if let found = state.images.first(where: { $0.value.record.repositoryDigests.contains(name) }) {
        return found.key
      }
      guard state.images[digest] != nil else { return nil }
      let prefix = "\(reference.registry)/\(reference.repository):"
      return state.references.contains { $0.value == digest && $0.key.hasPrefix(prefix) } ? digest : nil
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
    state.withLock { state in state.references.filter { $0.value == id }.map(\.key).sorted() }
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
        if let manifest = image.value.record.manifest { result.insert(manifest) }
      }
    }
  }

  /// Paths of blobs that records name and that are not there.
  var missingBlobs: [String] { blobsInUse.sorted().map(blob).filter { !Files.exists($0) } }

  /// Removes blobs that no record names.
  ///
  /// - Returns: their paths.
  @discardableResult
  func sweep(repair: Bool) throws(EngineError) -> [String] {
    let names: [String]
    do {
      names = try Files.list(blobs)
    } catch {
      throw EngineError(.internalFailure, "the blobs cannot be listed: \(error)")
    }
    let needed = Set(blobsInUse.map(\.hex))
    let stale = names.filter { !needed.contains($0) }.map { "\(blobs)/\($0)" }
    if repair { for path in stale { unlink(path) } }
    return stale
  }

  // MARK: Changing

  /// Stores images and names in one transaction that survives a power failure; their layers must be safe already.
  ///
  /// - Returns: names that stood for another image before, with that image.
  @discardableResult
  func add(
    _ new: [NewImage], references: [(ImageReference, Digest)], _ bus: Bus
  ) async throws(EngineError) -> [(name: String, former: Digest)] {
    await changes.lock()
    defer { changes.unlock() }
    var written: [String] = []
    do throws(EngineError) {
      var put: [Record] = []
      for image in new where self.image(image.id)?.damage != nil || self.image(image.id) == nil {
        let path = blob(image.id)
        if !Files.exists(path) { written.append(path) }
        try write(image.configuration, to: path)
        put.append(
          Record(kind: Self.imageKind, key: image.id.hex, value: try Self.text(image.record)))
      }
      for (reference, id) in references {
        put.append(
          Record(
            kind: Self.referenceKind, key: reference.description, value: try Self.text(ReferenceRecord(image: id))))
      }
      FaultPoint.reach("images.add.blobs")
      if !put.isEmpty { _ = try await bus.request(RecordWrite(put: put, durability: .power)) }
    } catch {
      for path in written { unlink(path) }
      throw error
    }
    FaultPoint.reach("images.add.recorded")
    return state.withLock { state in
      for image in new where state.images[image.id]?.damage != nil || state.images[image.id] == nil {
        state.images[image.id] = Stored(
          description: ImageDescription(
            id: image.id, references: [], repositoryDigests: image.record.repositoryDigests,
            configuration: image.parsed, layers: image.record.layers, size: image.record.size,
            stored: image.record.stored),
          record: image.record, damage: nil)
      }
      var moved: [(name: String, former: Digest)] = []
      for (reference, id) in references {
        let former = state.references.updateValue(id, forKey: reference.description)
        if let former, former != id { moved.append((reference.familiar, former)) }
      }
      Self.index(&state)
      return moved
    }
  }

  /// Removes names, and images with them.
  func remove(references: [String], images: [Digest], _ bus: Bus) async throws(EngineError) {
    await changes.lock()
    defer { changes.unlock() }
    let keys =
      references.map { RecordWrite.Key(kind: Self.referenceKind, key: $0) }
      + images.map { RecordWrite.Key(kind: Self.imageKind, key: $0.hex) }
    if keys.isEmpty { return }
    _ = try await bus.request(RecordWrite(delete: keys, durability: .power))
    FaultPoint.reach("images.remove.recorded")
    let manifests = state.withLock { state -> [Digest] in
      for reference in references { state.references[reference] = nil }
      let removed = images.compactMap { state.images.removeValue(forKey: $0) }
      Self.index(&state)
      return removed.compactMap(\.record.manifest)
    }
    let needed = blobsInUse
    for digest in images + manifests where !needed.contains(digest) { unlink(blob(digest)) }
  }

  private func write(_ bytes: [UInt8], to path: String) throws(EngineError) {
    do {
      try Files.replace(path, with: bytes, durable: true)
    } catch {
      throw Storage.error("the image cannot be stored", error)
    }
  }

  private static func text(_ value: some Encodable) throws(EngineError) -> String {
    String(decoding: try JSON.encode(value), as: UTF8.self)
  }

  /// Brings what is derived from images and names up to date.
  private static func index(_ state: inout State) {
    state.memo.removeAll(keepingCapacity: true)
    state.sorted = state.images.keys.sorted()
    var names: [Digest: [String]] = [:]
    for (name, id) in state.references {
      names[id, default: []].append((try? ImageReference(parsing: name))?.familiar ?? name)
    }
    for id in state.sorted { state.images[id]?.description.references = (names[id] ?? []).sorted() }
  }
}

enum Storage {
  /// A failed call while something is stored, with a full disk in its own words.
  static func error(_ what: String, _ error: SystemCallError) -> EngineError {
    if error.number == ENOSPC || error.number == EDQUOT {
      return EngineError(.resourceExhausted, "\(what): no space left on device")
    }
    return EngineError(.internalFailure, "\(what): \(error)")
  }
}
