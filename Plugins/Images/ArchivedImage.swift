import ContentStreams
import Contracts
import Wire

/// One image of an archive: which members make it, and what it is called.
struct ArchivedImage {
  var configuration: String
  /// Members, lowest layer first.
  var layers: [String]
  var references: [ImageReference]
  /// The OCI manifest, where the archive has one.
  var manifest: StoredManifest?
  /// The digest that the configuration must have, where the archive says one.
  var id: Digest?

  /// The images of an OCI layout, of a docker-archive (its `manifest.json`), or of what is both: then the layout says
  /// what the images are, byte for byte, and both say what they are called.
  static func list(_ spool: ArchiveSpool, _ platform: ImagePlatform? = nil) throws(EngineError) -> [ArchivedImage] {
    let isLayout = spool.has("index.json")
    let isDockerArchive = spool.has("manifest.json")
    guard isLayout || isDockerArchive else {
      throw EngineError(
        .invalidArgument, "the archive holds no images: there is neither manifest.json nor index.json in it")
    }
    let named = isDockerArchive ? try dockerArchive(spool) : []
    // Some archives have an index without the blobs that it names.
    guard isLayout, !isDockerArchive || spool.has("oci-layout") else { return named }
    var images: [ArchivedImage] = []
    for descriptor in try index("index.json", spool).manifests {
      try add(descriptor, spool, platform, depth: 0, to: &images)
    }
    for other in named {
      // One configuration may come with the same layers compressed in several ways.
      let same = images.firstIndex { $0.id == other.id && $0.layers == other.layers }
      if let index = same ?? images.firstIndex(where: { $0.id == other.id }) {
        let missing = other.references.filter { !images[index].references.contains($0) }
        images[index].references += missing
      } else {
        images.append(other)
      }
    }
    if images.isEmpty {
      throw EngineError(.invalidArgument, "the archive holds no image for \(platform ?? ManifestReader.host)")
    }
    return images
  }

  // MARK: docker-archive

  private struct Entry: Decodable {
    var configuration: String
    var repositoryTags: [String]?
    var layers: [String]?

    enum CodingKeys: String, CodingKey {
      case configuration = "Config"
      case repositoryTags = "RepoTags"
      case layers = "Layers"
    }
  }

  private static func dockerArchive(_ spool: ArchiveSpool) throws(EngineError) -> [ArchivedImage] {
    let entries: [Entry]
    do throws(EngineError) {
      entries = try JSON.decode([Entry].self, try spool.document("manifest.json"))
    } catch  where error.code == .protocolViolation {
      throw EngineError(.invalidArgument, "the archive is refused: manifest.json does not read: \(error.message)")
    }
    return try entries.map { (entry) throws(EngineError) in
      ArchivedImage(
        configuration: entry.configuration, layers: entry.layers ?? [],
        references: try (entry.repositoryTags ?? []).map { (tag) throws(EngineError) in try ImageReference(parsing: tag)
        },
        manifest: nil, id: digest(named: entry.configuration))
    }
  }

  /// `<hex>.json` and `blobs/sha256/<hex>` say what the digest of their content is.
  private static func digest(named member: String) -> Digest? {
    let last = member.split(separator: "/").last.map(String.init) ?? ""
    return Digest(hex: last.hasSuffix(".json") ? String(last.dropLast(5)) : last)
  }

  // MARK: OCI layout (OCI image specification, image-layout.md)

  private static func member(_ digest: Digest) -> String { "blobs/sha256/\(digest.hex)" }

  private static func index(_ name: String, _ spool: ArchiveSpool) throws(EngineError) -> ImageIndex {
    let bytes = try spool.document(name)
    guard
      case .index(let index) = try ManifestReader.document(bytes, mediaType: nil, subject: "the archive's \(name)")
    else { throw EngineError(.invalidArgument, "the archive is refused: \(name) is not an index") }
    return index
  }

  /// What containerd or skopeo say the image is called; a bare tag names nothing.
  private static func reference(of descriptor: ContentDescriptor) -> ImageReference? {
    let annotations = descriptor.annotations
    let text = annotations?["io.containerd.image.name"] ?? annotations?["org.opencontainers.image.ref.name"]
    guard let text, text.contains(":") || text.contains("/") else { return nil }
    return try? ImageReference(parsing: text)
  }

  private static func add(
    _ descriptor: ContentDescriptor, _ spool: ArchiveSpool, _ wanted: ImagePlatform?, depth: Int,
    to images: inout [ArchivedImage]
  ) throws(EngineError) {
    guard depth < ManifestReader.maximumDepth else {
      throw EngineError(.invalidArgument, "the archive is refused: its indexes lead in a ring")
    }
    if let platform = descriptor.platform?.normalized {
      guard wanted.map(platform.satisfies) ?? ManifestReader.host.runnable.contains(platform) else { return }
    }
    let name = member(descriptor.digest)
    let bytes = try spool.document(name)
    guard try SHA256.digest(of: bytes) == descriptor.digest else { throw mismatch(name) }
    guard Int64(bytes.count) == descriptor.size else {
      throw wrongSize(name, descriptor.size, Int64(bytes.count))
    }
    let subject = "the archive's \(name)"
    switch try ManifestReader.document(bytes, mediaType: descriptor.mediaType, subject: subject) {
    case .index(let index):
      // The best of those that are there: an index may name platforms that nobody saved.
      let candidates = index.candidates(for: wanted ?? ManifestReader.host, strict: wanted != nil)
      guard var best = candidates.first(where: { spool.has(member($0.digest)) }) else { return }
      if reference(of: best) == nil {
        best.annotations = (best.annotations ?? [:]).merging(descriptor.annotations ?? [:]) { old, _ in old }
      }
      try add(best, spool, wanted, depth: depth + 1, to: &images)
    case .manifest(let manifest):
      let reference = reference(of: descriptor)
      if let index = images.firstIndex(where: { $0.manifest?.digest == descriptor.digest }) {
        if let reference, !images[index].references.contains(reference) { images[index].references.append(reference) }
        return
      }
      images.append(
        ArchivedImage(
          configuration: member(manifest.config.digest), layers: manifest.layers.map { member($0.digest) },
          references: reference.map { [$0] } ?? [],
          manifest: StoredManifest(
            digest: descriptor.digest, mediaType: manifest.mediaType ?? MediaType.ociManifest, bytes: bytes,
            manifest: manifest),
          id: manifest.config.digest))
    }
  }

  static func wrongSize(_ member: String, _ said: Int64, _ actual: Int64) -> EngineError {
    EngineError(.invalidArgument, "the archive is damaged: \(member) has \(actual) bytes, not \(said) as it says")
  }

  static func mismatch(_ member: String) -> EngineError {
    EngineError(.invalidArgument, "the archive is damaged: \(member) does not have the digest that its name says")
  }
}
