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
  var manifest: Digest?
  /// The digest that the configuration must have, where the archive says one.
  var id: Digest?

  /// The images of a docker-archive (its `manifest.json`), or of an OCI layout.
  static func list(_ spool: ArchiveSpool) throws(EngineError) -> [ArchivedImage] {
    if spool.has("manifest.json") { return try dockerArchive(spool) }
    if spool.has("index.json") {
      var images: [ArchivedImage] = []
      let index = try document(Index.self, "index.json", spool)
      for descriptor in index.manifests { try add(descriptor, spool, depth: 0, to: &images) }
      if images.isEmpty {
        throw EngineError(.invalidArgument, "the archive holds no image for linux/\(ImageImporter.architecture)")
      }
      return images
    }
    throw EngineError(
      .invalidArgument, "the archive holds no images: there is neither manifest.json nor index.json in it")
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
    try document([Entry].self, "manifest.json", spool).map { (entry) throws(EngineError) in
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

  private struct Index: Decodable {
    var manifests: [Descriptor]
  }

  private struct Manifest: Decodable {
    var config: Descriptor
    var layers: [Descriptor]
  }

  private struct Descriptor: Decodable {
    struct Platform: Decodable {
      var os: String?
      var architecture: String?
    }
    var mediaType: String?
    var digest: Digest
    var platform: Platform?
    var annotations: [String: String]?

    var member: String { "blobs/sha256/\(digest.hex)" }
    var isIndex: Bool { mediaType?.contains("index") == true || mediaType?.contains("manifest.list") == true }

    /// What containerd or skopeo say the image is called; a bare tag names nothing.
    var reference: ImageReference? {
      let text = annotations?["io.containerd.image.name"] ?? annotations?["org.opencontainers.image.ref.name"]
      guard let text, text.contains(":") || text.contains("/") else { return nil }
      return try? ImageReference(parsing: text)
    }
  }

  private static func add(
    _ descriptor: Descriptor, _ spool: ArchiveSpool, depth: Int, to images: inout [ArchivedImage]
  ) throws(EngineError) {
    guard depth < 4 else { throw EngineError(.invalidArgument, "the archive is refused: its indexes lead in a ring") }
    if let platform = descriptor.platform,
      platform.os ?? "linux" != "linux" || platform.architecture ?? "" != ImageImporter.architecture
    {
      return
    }
    let bytes = try spool.document(descriptor.member)
    guard try SHA256.digest(of: bytes) == descriptor.digest else { throw mismatch(descriptor.member) }
    if descriptor.isIndex {
      for var inner in try decode(Index.self, bytes, descriptor.member).manifests {
        inner.annotations = inner.annotations ?? [:]
        if inner.reference == nil { inner.annotations?.merge(descriptor.annotations ?? [:]) { old, _ in old } }
        try add(inner, spool, depth: depth + 1, to: &images)
      }
      return
    }
    let manifest = try decode(Manifest.self, bytes, descriptor.member)
    images.append(
      ArchivedImage(
        configuration: manifest.config.member, layers: manifest.layers.map(\.member),
        references: descriptor.reference.map { [$0] } ?? [], manifest: descriptor.digest, id: manifest.config.digest))
  }

  static func mismatch(_ member: String) -> EngineError {
    EngineError(.invalidArgument, "the archive is damaged: \(member) does not have the digest that its name says")
  }

  private static func document<Value: Decodable>(
    _ type: Value.Type, _ name: String, _ spool: ArchiveSpool
  ) throws(EngineError) -> Value {
    try decode(type, try spool.document(name), name)
  }

  private static func decode<Value: Decodable>(
    _ type: Value.Type, _ bytes: [UInt8], _ name: String
  ) throws(EngineError) -> Value {
    do throws(EngineError) {
      return try JSON.decode(type, bytes)
    } catch {
      throw EngineError(.invalidArgument, "the archive is refused: \(name) does not read: \(error.message)")
    }
  }
}
