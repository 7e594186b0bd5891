/// Names content by type, digest and size (OCI image specification, descriptor.md). Both sides are strangers' input.
public struct ContentDescriptor: Codable, Sendable, Hashable {
  public var mediaType: String?
  public var digest: Digest
  public var size: Int64
  public var platform: ImagePlatform?
  public var annotations: [String: String]?

  public init(
    mediaType: String?, digest: Digest, size: Int64, platform: ImagePlatform? = nil,
    annotations: [String: String]? = nil
  ) {
    self.mediaType = mediaType
    self.digest = digest
    self.size = size
    self.platform = platform
    self.annotations = annotations
  }
}

/// The media types of images (OCI image specification, media-types.md, and Docker's image manifest version 2).
public enum MediaType {
  public static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
  public static let ociIndex = "application/vnd.oci.image.index.v1+json"
  public static let ociConfiguration = "application/vnd.oci.image.config.v1+json"
  public static let ociLayer = "application/vnd.oci.image.layer.v1.tar"
  public static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
  public static let dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
  public static let dockerConfiguration = "application/vnd.docker.container.image.v1+json"
  public static let dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"
}

/// What makes one image: its configuration and its layers, lowest first (OCI image specification, manifest.md; Docker's
/// image manifest version 2, schema 2, has the same members).
public struct ImageManifest: Codable, Sendable, Equatable {
  public var schemaVersion: Int
  public var mediaType: String?
  public var config: ContentDescriptor
  public var layers: [ContentDescriptor]
  public var annotations: [String: String]?

  public init(mediaType: String, config: ContentDescriptor, layers: [ContentDescriptor]) {
    schemaVersion = 2
    self.mediaType = mediaType
    self.config = config
    self.layers = layers
  }
}

/// Manifests for several platforms under one name (OCI image specification, image-index.md; Docker's manifest list).
public struct ImageIndex: Codable, Sendable, Equatable {
  public var schemaVersion: Int
  public var mediaType: String?
  public var manifests: [ContentDescriptor]
  public var annotations: [String: String]?

  public init(mediaType: String = MediaType.ociIndex, manifests: [ContentDescriptor]) {
    schemaVersion = 2
    self.mediaType = mediaType
    self.manifests = manifests
  }

  /// The manifests for a platform, the best first. One that does not say its platform comes last; attestations, which
  /// say `unknown/unknown`, never.
  ///
  /// - Parameter strict: only the platform itself, as people who name one mean it.
  public func candidates(for platform: ImagePlatform, strict: Bool = false) -> [ContentDescriptor] {
    let wanted = strict ? [platform.normalized] : platform.runnable
    var result: [ContentDescriptor] = []
    for one in wanted { result += manifests.filter { $0.platform?.normalized == one } }
    return result + manifests.filter { $0.platform == nil && $0.annotations?["vnd.docker.reference.type"] == nil }
  }
}

/// A manifest or an index, told apart. Media types in the content come before those of a header, which may be of any
/// proxy's making (OCI image specification, manifest.md, "mediaType").
public enum ManifestDocument: Sendable, Equatable {
  case manifest(ImageManifest)
  case index(ImageIndex)
}

/// Any JSON that may be a manifest or an index.
public struct ManifestEnvelope: Decodable, Sendable {
  private struct Anything: Decodable, Sendable {
    init(from decoder: any Decoder) throws {}
  }
  private var schemaVersion: Int?
  private var mediaType: String?
  private var config: ContentDescriptor?
  private var layers: [ContentDescriptor]?
  private var manifests: [ContentDescriptor]?
  private var fsLayers: Anything?
  private var annotations: [String: String]?

  /// More would be refused by every registry's limit of 4 MiB.
  private static let entryLimit = 16_384
  /// What `mount(2)` and the depth of images allow elsewhere, with room.
  public static let layerLimit = 512

  /// - Parameters:
  ///   - mediaType: what the registry or the descriptor said; used only where the content says nothing.
  ///   - subject: what it is, for errors: `the manifest of nginx:latest`.
  /// - Throws: `unsupported` for schema 1 and for what is no image, `invalidArgument` for what contradicts itself.
  public func document(mediaType said: String?, subject: String) throws(EngineError) -> ManifestDocument {
    func refuse(_ why: String) -> EngineError { EngineError(.invalidArgument, "\(subject) is refused: \(why)") }
    let type = mediaType ?? said ?? ""
    if schemaVersion == 1 || fsLayers != nil || type.hasPrefix("application/vnd.docker.distribution.manifest.v1+") {
      throw EngineError(
        .unsupported,
        "\(subject) has the format of Docker's image manifest version 2, schema 1, which nobody writes since 2017 and "
          + "this engine does not read: push the image again with a current tool")
    }
    guard schemaVersion == nil || schemaVersion == 2 else {
      throw EngineError(.unsupported, "\(subject) has the unknown schema version \(schemaVersion ?? 0)")
    }
    if let manifests {
      if config != nil || layers != nil { throw refuse("it is a manifest and an index at once") }
      if mediaType == MediaType.ociManifest || mediaType == MediaType.dockerManifest {
        throw refuse("it says that it is a manifest, and is an index")
      }
      if manifests.count > Self.entryLimit { throw refuse("it has more than \(Self.entryLimit) entries") }
      if let entry = manifests.first(where: { $0.size < 0 }) { throw refuse("\(entry.digest) has a negative size") }
      let kind = type == MediaType.dockerList ? type : MediaType.ociIndex
      var index = ImageIndex(mediaType: kind, manifests: manifests)
      index.annotations = annotations
      return .index(index)
    }
    guard let config, let layers else { throw refuse("it is neither a manifest nor an index") }
    if mediaType == MediaType.ociIndex || mediaType == MediaType.dockerList {
      throw refuse("it says that it is an index, and is a manifest")
    }
    if layers.count > Self.layerLimit { throw refuse("it has more than \(Self.layerLimit) layers") }
    if let entry = ([config] + layers).first(where: { $0.size < 0 }) {
      throw refuse("\(entry.digest) has a negative size")
    }
    if let kind = config.mediaType, !kind.isEmpty, kind != MediaType.ociConfiguration,
      kind != MediaType.dockerConfiguration, kind != "application/octet-stream"
    {
      throw EngineError(.unsupported, "\(subject) is not an image: its configuration is of type \"\(kind)\"")
    }
    let kind =
      type == MediaType.dockerManifest || (mediaType == nil && config.mediaType == MediaType.dockerConfiguration)
      ? MediaType.dockerManifest : MediaType.ociManifest
    var manifest = ImageManifest(mediaType: kind, config: config, layers: layers)
    manifest.annotations = annotations
    return .manifest(manifest)
  }
}
