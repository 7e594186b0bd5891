import Contracts

/// What is kept of an image beside its configuration (record kind `image`, under the ID's hexadecimal digits).
struct ImageRecord: Codable, Sendable, Equatable {
  /// Chain IDs, lowest first.
  var layers: [Digest]
  var size: Int64
  var stored: Timestamp
  /// The digest of the manifest that stands for the image where its name says no other; its bytes are a blob too.
  var manifest: Digest?
  /// `repository@digest`, familiar.
  var repositoryDigests: [String]
  /// Digests of the layers as they came, lowest first; together with the manifest, or neither.
  var content: [Digest]?
  /// Bytes of each layer's regular files, lowest first.
  var layerSizes: [Int64]?
  /// Other manifests of the same configuration that some name leads to: the same layers compressed otherwise.
  var variants: [ManifestVariant]?
  /// What each of `repositoryDigests` leads to. One that is not here is from before this was kept, and leads to
  /// `manifest`.
  var digests: [String: DigestTarget]?
  /// The boot (`BootIdentity`) in which the image was pulled, as long as not all of it is known to be on the disk.
  var unsynced: String?

  /// Blobs that the image needs beside its configuration.
  var blobs: Set<Digest> {
    var result = Set((manifest.map { [$0] } ?? []) + (content ?? []))
    for variant in variants ?? [] { result.formUnion([variant.manifest] + variant.content) }
    for target in (digests ?? [:]).values { result.formUnion(target.indexes ?? []) }
    return result
  }

  /// The digests of the layers as a manifest names them.
  func content(of wanted: Digest) -> [Digest]? {
    wanted == manifest ? content : variants?.first { $0.manifest == wanted }?.content
  }

  /// The digest that a tag of the image has in its repository, as far as is known.
  func digest(of tag: ReferenceRecord, in repository: String) -> Digest? {
    if let digest = tag.digest { return repositoryDigests.contains("\(repository)@\(digest)") ? digest : nil }
    if tag.manifest != nil { return nil }
    // From before each tag had its own: the repository's last.
    let last = repositoryDigests.last { $0.hasPrefix("\(repository)@") }
    return last.flatMap { Digest(String($0.dropFirst(repository.utf8.count + 1))) }
  }

  /// What is known of the same image from elsewhere is added; the manifest that was here first goes on standing for
  /// names without one of their own.
  func joined(with new: ImageRecord) -> ImageRecord {
    var result = self
    result.size = new.size
    result.layerSizes = new.layerSizes ?? layerSizes
    result.unsynced = new.unsynced ?? unsynced
    result.repositoryDigests += new.repositoryDigests.filter { !repositoryDigests.contains($0) }
    if let targets = new.digests { result.digests = (digests ?? [:]).merging(targets) { $1 } }
    guard let manifest = new.manifest, let content = new.content else { return result }
    if self.manifest == nil || self.content == nil {
      (result.manifest, result.content) = (manifest, content)
    } else if self.content(of: manifest) == nil {
      result.variants = (variants ?? []) + [ManifestVariant(manifest: manifest, content: content)]
    }
    return result
  }

  /// Forgets the manifests that no name leads to.
  ///
  /// - Parameter tags: what each tag of the image leads to, nil for one that does not say.
  func settled(tags: [Digest?]) -> ImageRecord {
    var result = self
    let targets = (digests ?? [:]).filter { repositoryDigests.contains($0.key) }
    result.digests = targets.isEmpty ? nil : targets
    guard let manifest, let content else { return result }
    var named = Set(targets.values.map(\.manifest))
    for tag in tags { named.insert(tag ?? manifest) }
    if repositoryDigests.contains(where: { targets[$0] == nil }) { named.insert(manifest) }
    let all = [ManifestVariant(manifest: manifest, content: content)] + (variants ?? [])
    let kept = all.filter { named.contains($0.manifest) }
    // An image that lost its names keeps the bytes it has.
    let first = kept.first ?? all[0]
    (result.manifest, result.content) = (first.manifest, first.content)
    result.variants = kept.count > 1 ? Array(kept.dropFirst()) : nil
    return result
  }
}

/// A manifest and the blobs of its layers, lowest first.
struct ManifestVariant: Codable, Sendable, Equatable {
  var manifest: Digest
  var content: [Digest]
}

/// What a digest in a repository leads to.
struct DigestTarget: Codable, Sendable, Equatable {
  var manifest: Digest
  /// The indexes on the way from the digest to the manifest, the outermost first; they are kept as blobs.
  var indexes: [Digest]?
}

/// What a name stands for (record kind `image-reference`, under the whole normalised name).
struct ReferenceRecord: Codable, Sendable, Equatable {
  var image: Digest
  /// The manifest that the name led to; nil in records from before this was kept: then it is the image's.
  var manifest: Digest?
  /// The digest that the registry has under this name as far as is known: of an index or of the manifest.
  var digest: Digest?
  /// What the name goes back to when the image is lost because it was not on the disk yet.
  var former: FormerReference?
}

/// What a name stood for before.
struct FormerReference: Codable, Sendable, Equatable {
  var image: Digest
  var manifest: Digest?
  var digest: Digest?
}

/// A name that is to stand for an image.
struct NewReference: Sendable {
  var name: ImageReference
  var record: ReferenceRecord

  init(_ name: ImageReference, _ image: Digest, manifest: Digest?, digest: Digest? = nil) {
    self.name = name
    record = ReferenceRecord(image: image, manifest: manifest, digest: digest)
  }
}

/// An image that is to be stored.
struct NewImage: Sendable {
  var id: Digest
  /// The configuration as it came: its digest is the ID, so not one byte may change.
  var configuration: [UInt8]
  var parsed: ImageConfiguration
  /// The manifest that names the configuration and the layers; its digest is the record's.
  var manifest: [UInt8]
  /// The indexes through which the manifest was found, byte for byte.
  var indexes: [StoredIndex] = []
  var record: ImageRecord
}

/// An index as it came.
struct StoredIndex: Sendable {
  var digest: Digest
  var bytes: [UInt8]
}
