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
  private let boot: String
  private let background: BackgroundSync
  /// Changes are made one after the other, so that records and memory agree.
  private let changes = AsyncMutex()
  private let commits = AsyncSemaphore(1)

  /// - Parameter boot: the present `BootIdentity`.
  init(content: ContentStore, host: PluginHost, boot: String) {
    self.content = content
    self.boot = boot
    background = BackgroundSync(host: host)
  }

  // MARK: Loading

  func load(_ bus: Bus, _ report: (String) -> Void) async throws(EngineError) {
    try content.prepare()
    var records = try StoredRecords(
      images: await bus.request(RecordRead(kind: Self.imageKind)),
      references: await bus.request(RecordRead(kind: Self.referenceKind)))
    if let change = try records.dropUnsynced(before: boot, content, report) { _ = try await bus.request(change) }
    var state = State()
    for (id, value) in records.images {
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
    state.references = records.references
    Self.index(&state)
    let loaded = state
    self.state.withLock { $0 = loaded }
    // What an engine that was killed did not come to.
    background.expect(loaded.images.filter { $0.value.record.unsynced != nil }.keys)
    syncInBackground(bus)
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

  /// When what is stored must survive a power failure.
  enum Safety: Sendable {
    /// Before the request is answered: there is no other copy that the engine could get.
    case now
    /// Soon. Until then a power failure loses all of the image, never half of it, and it can be pulled again.
    case soon
  }

  /// Gives images their blobs, makes everything survive a power failure, and records them.
  ///
  /// - Parameter work: is told which blobs may be unneeded now.
  /// - Returns: names that stood for another image before, with that image.
  @discardableResult
  func commit(
    _ new: [NewImage], references: [NewReference], _ safety: Safety, _ work: AppliedLayers, _ call: Call
  ) async throws(EngineError) -> [(name: String, former: Digest)] {
    // One after the other: a blob that one gives back because its record failed may be one that the next relies on.
    try await commits.acquire()
    defer { commits.release() }
    let moved = try content.commit(Set(new.flatMap { $0.record.content ?? [] }))
    FaultPoint.reach("images.commit.moved")
    do throws(EngineError) {
      if safety == .now { try await sync(call) }
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      let outcome = try await add(new, references: references, safety, call.bus)
      work.add(blobs: outcome.dropped)
      if safety == .soon { syncInBackground(call.bus) }
      return outcome.moved
    } catch {
      content.withdraw(moved)
      throw error
    }
  }

  /// Writes back layers and blobs, which need not be on one file system.
  private func sync(_ call: Call) async throws(EngineError) {
    _ = try await call.request(SnapshotSync())
    try content.sync()
  }

  private func syncInBackground(_ bus: Bus) {
    background.start { () async throws(EngineError) in
      // Not as a root request, which has a deadline.
      try await self.sync(Call(bus: bus))
    } record: { (snapshot) async throws(EngineError) in
      _ = try await self.change(bus, .power) { (draft) throws(EngineError) in
        for id in self.background.unchanged(since: snapshot) { draft.markSynced(id) }
      }
    }
  }

  /// Waits until what was pulled is on the disk.
  func finish() async { await background.finish() }

  /// Stores images and names in one transaction. What is known of an image that is here already is joined with what is
  /// new of it.
  ///
  /// - Parameter safety: `now` where the layers are safe already: then the transaction is too.
  func add(
    _ new: [NewImage], references: [NewReference], _ safety: Safety, _ bus: Bus
  ) async throws(EngineError) -> Outcome {
    var written: [Digest] = []
    do throws(EngineError) {
      let outcome = try await change(bus, safety == .now ? .power : .process) { (draft) throws(EngineError) in
        for var image in new {
          if safety == .soon { image.record.unsynced = boot }
          let documents =
            [(image.id, image.configuration)] + (image.record.manifest.map { [($0, image.manifest)] } ?? [])
            + image.indexes.map { ($0.digest, $0.bytes) }
          for (digest, bytes) in documents {
            let isDamaged = digest == image.id && self.image(image.id)?.damage != nil
            if content.has(digest) && !isDamaged { continue }
            if !content.has(digest) { written.append(digest) }
            try write(bytes, to: content.blob(digest), durable: safety == .now)
          }
          draft.add(image)
        }
        for reference in references { draft.set(reference) }
        if safety == .soon { background.expect(new.map(\.id)) }
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
    let outcome = try await change(bus, .power) { (draft) throws(EngineError) in
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
    _ = try await change(bus, .power) { (draft) throws(EngineError) in
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

  /// Makes a change in one transaction, in the records and then in memory.
  private func change(
    _ bus: Bus, _ durability: Durability, _ body: (inout StoreDraft) throws(EngineError) -> Void
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
      _ = try await bus.request(RecordWrite(put: put, delete: delete, durability: durability))
    }
    state.withLock { [draft] state in
      draft.apply(to: &state)
      Self.index(&state)
    }
    return Outcome(moved: draft.moved, dropped: draft.dropped)
  }

  private func write(_ bytes: [UInt8], to path: String, durable: Bool) throws(EngineError) {
    do {
      try Files.replace(path, with: bytes, durable: durable)
    } catch {
      throw Storage.error("the image cannot be stored", error)
    }
  }

  /// A record's value.
  static func text(_ value: some Encodable) throws(EngineError) -> String {
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
