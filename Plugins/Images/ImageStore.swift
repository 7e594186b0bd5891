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
  /// Digests of the layers as they came, lowest first; together with the manifest, or neither.
  var content: [Digest]?
  /// Bytes of each layer's regular files, lowest first.
  var layerSizes: [Int64]?

  /// Blobs that the image needs beside its configuration.
  var blobs: [Digest] { (manifest.map { [$0] } ?? []) + (content ?? []) }
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
  /// The manifest that names the configuration and the layers; its digest is the record's.
  var manifest: [UInt8]
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

  struct State {
    var images: [Digest: Stored] = [:]
    /// Whole normalised name to ID.
    var references: [String: Digest] = [:]
    /// IDs in order, to find one by its prefix.
    var sorted: [Digest] = []
    /// What a text as people write it was found to be; forgotten with every change.
    var memo: [String: Digest] = [:]
  }

  let content: ContentStore
  let state = Mutex(State())
  /// Changes are made one after the other, so that records and memory agree.
  private let changes = AsyncMutex()
  private let commits = AsyncSemaphore(1)

  init(content: ContentStore) { self.content = content }

  // MARK: Loading

  func load(_ bus: Bus, _ report: (String) -> Void) async throws(EngineError) {
    try content.prepare()
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

  private func readConfiguration(_ id: Digest) throws(EngineError) -> ImageConfiguration {
    let bytes: [UInt8]
    do {
      bytes = try Files.read(content.blob(id))
    } catch {
      throw EngineError(.corrupt, "the image \(id.short) is damaged: \(error)")
    }
    guard try SHA256.digest(of: bytes) == id else {
      throw EngineError(
        .corrupt,
        "the image \(id.short) is damaged: \(content.blob(id)) is not what was stored; remove the image and load it again"
      )
    }
    return try JSON.decode(ImageConfiguration.self, bytes)
  }

  // MARK: Changing

  /// Gives images their blobs, makes everything survive a power failure, and records them.
  ///
  /// - Returns: as `add`.
  @discardableResult
  func commit(
    _ new: [NewImage], references: [(ImageReference, Digest)], _ call: Call
  ) async throws(EngineError) -> [(name: String, former: Digest)] {
    // One after the other: a blob that one gives back because its record failed may be one that the next relies on.
    try await commits.acquire()
    defer { commits.release() }
    let moved = try content.commit(Set(new.flatMap { $0.record.content ?? [] }))
    FaultPoint.reach("images.commit.moved")
    do throws(EngineError) {
      _ = try await call.request(SnapshotSync())
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      return try await add(new, references: references, call.bus)
    } catch {
      content.withdraw(moved)
      throw error
    }
  }

  /// Stores images and names in one transaction that survives a power failure; their layers must be safe already. What
  /// is known of an image that is here already is joined with what is new of it.
  ///
  /// - Returns: names that stood for another image before, with that image.
  @discardableResult
  func add(
    _ new: [NewImage], references: [(ImageReference, Digest)], _ bus: Bus
  ) async throws(EngineError) -> [(name: String, former: Digest)] {
    await changes.lock()
    defer { changes.unlock() }
    var written: [Digest] = []
    var records: [(image: NewImage, record: ImageRecord)] = []
    var stripped: [Digest: ImageRecord] = [:]
    do throws(EngineError) {
      var put: [Record] = []
      for image in new {
        let former = self.image(image.id)
        let record = former.map { Self.join($0.record, image.record) } ?? image.record
        records.append((image, record))
        for (digest, bytes) in [(image.id, image.configuration), (image.record.manifest, image.manifest)] {
          guard let digest else { continue }
          let isDamaged = digest == image.id && former?.damage != nil
          if content.has(digest) && !isDamaged { continue }
          if !content.has(digest) { written.append(digest) }
          try write(bytes, to: content.blob(digest))
        }
        if former == nil || former?.damage != nil || former?.record != record {
          put.append(Record(kind: Self.imageKind, key: image.id.hex, value: try Self.text(record)))
        }
      }
      stripped = withoutDigests(of: records.map(\.record), except: Set(new.map(\.id)))
      for (id, record) in stripped {
        put.append(Record(kind: Self.imageKind, key: id.hex, value: try Self.text(record)))
      }
      for (reference, id) in references {
        put.append(
          Record(
            kind: Self.referenceKind, key: reference.description, value: try Self.text(ReferenceRecord(image: id))))
      }
      FaultPoint.reach("images.add.blobs")
      if !put.isEmpty { _ = try await bus.request(RecordWrite(put: put, durability: .power)) }
    } catch {
      content.remove(written)
      throw error
    }
    FaultPoint.reach("images.add.recorded")
    return state.withLock { [records, stripped] state in
      for (image, record) in records {
        state.images[image.id] = Stored(
          description: ImageDescription(
            id: image.id, references: [], repositoryDigests: record.repositoryDigests, configuration: image.parsed,
            layers: record.layers, size: record.size, stored: record.stored),
          record: record, damage: nil)
      }
      for (id, record) in stripped {
        state.images[id]?.record = record
        state.images[id]?.description.repositoryDigests = record.repositoryDigests
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

  /// The blobs of the record that came last are kept: they are what its registry's digest names.
  private static func join(_ old: ImageRecord, _ new: ImageRecord) -> ImageRecord {
    var result = new
    result.stored = old.stored
    result.repositoryDigests =
      old.repositoryDigests + new.repositoryDigests.filter { !old.repositoryDigests.contains($0) }
    if new.manifest == nil || (new.repositoryDigests.isEmpty && !old.repositoryDigests.isEmpty && old.content != nil) {
      result.manifest = old.manifest
      result.content = old.content
    }
    return result
  }

  /// A digest in a repository names one image: records of others that named theirs so, without it.
  private func withoutDigests(of records: [ImageRecord], except: Set<Digest>) -> [Digest: ImageRecord] {
    let taken = Set(records.flatMap(\.repositoryDigests))
    if taken.isEmpty { return [:] }
    return state.withLock { state in
      var result: [Digest: ImageRecord] = [:]
      for (id, stored) in state.images where !except.contains(id) {
        let left = stored.record.repositoryDigests.filter { !taken.contains($0) }
        if left.count == stored.record.repositoryDigests.count { continue }
        result[id] = stored.record
        result[id]?.repositoryDigests = left
      }
      return result
    }
  }

  /// Removes names and images in one transaction; blobs and layers are left to the collector.
  ///
  /// - Parameter digests: repository digests that images lose.
  func remove(
    references: [String], digests: [Digest: Set<String>] = [:], images: [Digest], _ bus: Bus
  ) async throws(EngineError) {
    await changes.lock()
    defer { changes.unlock() }
    let keys =
      references.map { RecordWrite.Key(kind: Self.referenceKind, key: $0) }
      + images.map { RecordWrite.Key(kind: Self.imageKind, key: $0.hex) }
    var changed: [Digest: ImageRecord] = [:]
    for (id, lost) in digests where !images.contains(id) {
      guard var record = image(id)?.record else { continue }
      record.repositoryDigests.removeAll { lost.contains($0) }
      changed[id] = record
    }
    var put: [Record] = []
    for (id, record) in changed {
      put.append(Record(kind: Self.imageKind, key: id.hex, value: try Self.text(record)))
    }
    if keys.isEmpty && put.isEmpty { return }
    _ = try await bus.request(RecordWrite(put: put, delete: keys, durability: .power))
    FaultPoint.reach("images.remove.recorded")
    state.withLock { [changed] state in
      for reference in references { state.references[reference] = nil }
      for id in images { state.images[id] = nil }
      for (id, record) in changed {
        state.images[id]?.record = record
        state.images[id]?.description.repositoryDigests = record.repositoryDigests
      }
      Self.index(&state)
    }
  }

  /// Adds a digest in a repository to an image that is there.
  func remember(_ digest: String, of id: Digest, _ bus: Bus) async throws(EngineError) {
    await changes.lock()
    defer { changes.unlock() }
    guard var record = image(id)?.record, !record.repositoryDigests.contains(digest) else { return }
    record.repositoryDigests.append(digest)
    let put = [Record(kind: Self.imageKind, key: id.hex, value: try Self.text(record))]
    _ = try await bus.request(RecordWrite(put: put, durability: .power))
    state.withLock { [record] state in
      state.images[id]?.record = record
      state.images[id]?.description.repositoryDigests = record.repositoryDigests
      Self.index(&state)
    }
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
