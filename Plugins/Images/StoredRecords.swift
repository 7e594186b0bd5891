import Contracts
import Glibc
import Wire

/// The records of images and names as they lie on the disk.
struct StoredRecords {
  private(set) var images: [Digest: ImageRecord] = [:]
  /// By the whole normalised name.
  private(set) var references: [String: ReferenceRecord] = [:]

  /// - Throws: `corrupt` that names the record that does not read.
  init(images: [Record], references: [Record]) throws(EngineError) {
    for record in images {
      guard let id = Digest(hex: record.key),
        let value = try? JSON.decode(ImageRecord.self, Array(record.value.utf8))
      else { throw Self.corrupt(record) }
      self.images[id] = value
    }
    for record in references {
      guard let value = try? JSON.decode(ReferenceRecord.self, Array(record.value.utf8)),
        let reference = try? ImageReference(parsing: record.key), self.images[value.image] != nil
      else { throw Self.corrupt(record) }
      self.references[reference.description] = value
    }
  }

  private static func corrupt(_ record: Record) -> EngineError {
    EngineError(.corrupt, "the record \(record.kind) \(record.key) does not read: \(record.value.prefix(200))")
  }

  /// Takes out the images that were not on the disk for certain when the machine went down: any file of theirs may be
  /// half there. Their names go back to what they stood for before; their blobs go to where a pull verifies what it finds, so that
  /// what is whole need not be fetched again.
  ///
  /// - Returns: the change to the records, or nil where nothing is to be taken out.
  mutating func dropUnsynced(
    before boot: String, _ content: ContentStore, _ report: (String) -> Void
  ) throws(EngineError) -> RecordWrite? {
    let lost = images.filter { $0.value.unsynced.map { $0 != boot } ?? false }
    if lost.isEmpty { return nil }
    var change = RecordWrite(durability: .power)
    for (id, _) in lost {
      images[id] = nil
      change.delete.append(RecordWrite.Key(kind: ImageStore.imageKind, key: id.hex))
    }
    for (name, record) in references where lost[record.image] != nil {
      let familiar = (try? ImageReference(parsing: name))?.familiar ?? name
      if let former = record.former, images[former.image] != nil {
        let restored = ReferenceRecord(image: former.image, manifest: former.manifest, digest: former.digest)
        references[name] = restored
        let text = try ImageStore.text(restored)
        change.put.append(Record(kind: ImageStore.referenceKind, key: name, value: text))
        report("\(familiar) was pulled right before the machine went down, and is what it was before: pull it again")
      } else {
        references[name] = nil
        change.delete.append(RecordWrite.Key(kind: ImageStore.referenceKind, key: name))
        report("\(familiar) was pulled right before the machine went down, and is not here: pull it again")
      }
    }
    let needed = images.values.reduce(into: Set<Digest>()) { $0.formUnion($1.blobs) }
    let layers = lost.values.reduce(into: Set<Digest>()) { result, record in
      result.formUnion(record.content ?? [])
      for variant in record.variants ?? [] { result.formUnion(variant.content) }
    }
    for digest in layers.subtracting(needed) { rename(content.blob(digest), content.ingestion(digest)) }
    return change
  }
}
