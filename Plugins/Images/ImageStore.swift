import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Wire

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
    /// By the whole normalised name.
    var references: [String: ReferenceRecord] = [:]
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
      state.references[reference.description] = value
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

  /// What a change did beside what it was asked for.
  struct Outcome: Sendable {
    /// Names that stood for another image before, with that image.
    var moved: [(name: String, former: Digest)] = []
    /// Blobs that a changed image no longer names; others may.
    var dropped: Set<Digest> = []
  }

  /// Gives images their blobs, makes everything survive a power failure, and records them.
  ///
  /// - Parameter work: is told which blobs may be unneeded now.
  /// - Returns: names that stood for another image before, with that image.
  @discardableResult
  func commit(
    _ new: [NewImage], references: [NewReference], _ work: AppliedLayers, _ call: Call
  ) async throws(EngineError) -> [(name: String, former: Digest)] {
    // One after the other: a blob that one gives back because its record failed may be one that the next relies on.
    try await commits.acquire()
    defer { commits.release() }
    let moved = try content.commit(Set(new.flatMap { $0.record.content ?? [] }))
    FaultPoint.reach("images.commit.moved")
    do throws(EngineError) {
      _ = try await call.request(SnapshotSync())
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      let outcome = try await add(new, references: references, call.bus)
      work.add(blobs: outcome.dropped)
      return outcome.moved
    } catch {
      content.withdraw(moved)
      throw error
    }
  }

  /// Stores images and names in one transaction that survives a power failure; their layers must be safe already. What
  /// is known of an image that is here already is joined with what is new of it.
  func add(
    _ new: [NewImage], references: [NewReference], _ bus: Bus
  ) async throws(EngineError) -> Outcome {
    var written: [Digest] = []
    do throws(EngineError) {
      let outcome = try await change(bus) { (draft) throws(EngineError) in
        for image in new {
          let documents =
            [(image.id, image.configuration)] + (image.record.manifest.map { [($0, image.manifest)] } ?? [])
            + image.indexes.map { ($0.digest, $0.bytes) }
          for (digest, bytes) in documents {
            let isDamaged = digest == image.id && self.image(image.id)?.damage != nil
            if content.has(digest) && !isDamaged { continue }
            if !content.has(digest) { written.append(digest) }
            try write(bytes, to: content.blob(digest))
          }
          draft.add(image)
        }
        for reference in references { draft.set(reference) }
        FaultPoint.reach("images.add.blobs")
      }
      FaultPoint.reach("images.add.recorded")
      return outcome
    } catch {
      content.remove(written)
      throw error
    }
  }

  /// Removes names and images in one transaction; blobs and layers are left to the collector.
  ///
  /// - Parameter digests: repository digests that images lose.
  func remove(
    references: [String], digests: [Digest: Set<String>] = [:], images: [Digest], _ bus: Bus
  ) async throws(EngineError) -> Outcome {
    let outcome = try await change(bus) { (draft) throws(EngineError) in
      for name in references { draft.remove(reference: name) }
      for (id, lost) in digests { draft.update(id) { $0.repositoryDigests.removeAll { lost.contains($0) } } }
      for id in images { draft.remove(image: id) }
    }
    FaultPoint.reach("images.remove.recorded")
    return outcome
  }

  /// Records that a manifest of an image lies in a repository under a tag.
  func remember(
    _ name: ImageReference, has manifest: Digest, of id: Digest, _ bus: Bus
  ) async throws(EngineError) {
    _ = try await change(bus) { (draft) throws(EngineError) in
      let digest = "\(name.familiarRepository)@\(manifest)"
      guard let record = draft.image(id), record.content(of: manifest) != nil else { return }
      draft.take([digest], from: id)
      draft.update(id) { record in
        if !record.repositoryDigests.contains(digest) { record.repositoryDigests.append(digest) }
        record.digests = (record.digests ?? [:]).merging([digest: DigestTarget(manifest: manifest)]) { old, new in
          old.manifest == new.manifest ? old : new
        }
      }
      if draft.reference(name.description)?.image == id {
        draft.set(NewReference(name, id, manifest: manifest, digest: manifest))
      }
    }
  }

  /// Makes a change in one transaction that survives a power failure, in the records and then in memory.
  private func change(
    _ bus: Bus, _ body: (inout StoreDraft) throws(EngineError) -> Void
  ) async throws(EngineError) -> Outcome {
    await changes.lock()
    defer { changes.unlock() }
    let before = state.withLock { $0 }
    var draft = StoreDraft(before)
    try body(&draft)
    draft.settle()
    var put: [Record] = []
    var delete: [RecordWrite.Key] = []
    for (id, record) in draft.changedImages {
      if let record {
        put.append(Record(kind: Self.imageKind, key: id.hex, value: try Self.text(record)))
      } else {
        delete.append(RecordWrite.Key(kind: Self.imageKind, key: id.hex))
      }
    }
    for (name, record) in draft.changedReferences {
      if let record {
        put.append(Record(kind: Self.referenceKind, key: name, value: try Self.text(record)))
      } else {
        delete.append(RecordWrite.Key(kind: Self.referenceKind, key: name))
      }
    }
    if !put.isEmpty || !delete.isEmpty {
      _ = try await bus.request(RecordWrite(put: put, delete: delete, durability: .power))
    }
    state.withLock { [draft] state in
      draft.apply(to: &state)
      Self.index(&state)
    }
    return Outcome(moved: draft.moved, dropped: draft.dropped)
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
    var digests: [Digest: [String: Digest]] = [:]
    for (name, record) in state.references {
      let reference = try? ImageReference(parsing: name)
      let familiar = reference?.familiar ?? name
      names[record.image, default: []].append(familiar)
      guard let reference, let image = state.images[record.image]?.record else { continue }
      digests[record.image, default: [:]][familiar] = image.digest(of: record, in: reference.familiarRepository)
    }
    for id in state.sorted {
      state.images[id]?.description.references = (names[id] ?? []).sorted()
      state.images[id]?.description.referenceDigests = digests[id] ?? [:]
    }
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
