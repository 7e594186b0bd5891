/// When a pull asks the registry.
public enum ImagePullPolicy: String, Codable, Sendable, CaseIterable {
  /// Always: what is here already is not fetched again, but the registry is asked what the name means now.
  case always
  /// Only if there is no image of that name.
  case missing
}

/// What a pull found or fetched.
public struct PulledImage: Codable, Sendable, Equatable {
  /// The familiar name, for example `nginx:latest`.
  public var reference: String
  /// The digest of the manifest or index that the name stands for.
  public var digest: Digest
  public var id: Digest
  /// False where the same image had that name before.
  public var isNew: Bool

  public init(reference: String, digest: Digest, id: Digest, isNew: Bool) {
    self.reference = reference
    self.digest = digest
    self.id = id
    self.isNew = isNew
  }
}

/// Fetches an image from its registry, verifies it, unpacks it and gives it its name; everything or nothing. A blob that
/// was not complete is kept for a day and resumed by a later pull.
///
/// Throws what `RegistryManifestGet` throws, `notFound` for a platform that the image does not have, and
/// `invalidArgument` for content that is not what its digest says or that is hostile.
public struct ImagePull: StreamRequest {
  public static let name = "image.pull"
  public typealias Element = ImageProgress
  public typealias Reply = [PulledImage]
  public var reference: String
  /// `linux/arm64` and the like, or nil for this machine's.
  public var platform: String?
  /// Every tag of the repository.
  public var allTags: Bool
  public var policy: ImagePullPolicy
  public var credentials: RegistryCredentials?

  public init(
    reference: String, platform: String? = nil, allTags: Bool = false, policy: ImagePullPolicy = .always,
    credentials: RegistryCredentials? = nil
  ) {
    self.reference = reference
    self.platform = platform
    self.allTags = allTags
    self.policy = policy
    self.credentials = credentials
  }
}

/// What a push put under a tag.
public struct PushedImage: Codable, Sendable, Equatable {
  public var tag: String
  public var digest: Digest
  /// Bytes of the manifest.
  public var size: Int64

  public init(tag: String, digest: Digest, size: Int64) {
    self.tag = tag
    self.digest = digest
    self.size = size
  }
}

/// Puts an image into the registry that its name says, byte for byte as it came.
public struct ImagePush: StreamRequest {
  public static let name = "image.push"
  public typealias Element = ImageProgress
  public typealias Reply = [PushedImage]
  public var reference: String
  /// Every tag of the repository that is here.
  public var allTags: Bool
  public var credentials: RegistryCredentials?

  public init(reference: String, allTags: Bool = false, credentials: RegistryCredentials? = nil) {
    self.reference = reference
    self.allTags = allTags
    self.credentials = credentials
  }
}

/// Writes images as one archive that is a docker-archive and an OCI layout at once (as Docker does since 25), or as an
/// OCI layout into a directory.
public struct ImageSave: StreamRequest {
  public static let name = "image.save"
  public typealias Element = ImageProgress
  public typealias Reply = Done
  /// Names or IDs.
  public var references: [String]
  /// A file or pipe for the archive, or an open, empty directory for the layout.
  public var output: Descriptor
  /// The platform that the images must be for, or nil for any.
  public var platform: String?

  public init(references: [String], output: Descriptor, platform: String? = nil) {
    self.references = references
    self.output = output
    self.platform = platform
  }
}

/// One step of how an image was made.
public struct ImageHistoryEntry: Codable, Sendable, Equatable {
  /// The image's ID for the topmost step; others have none.
  public var id: Digest?
  public var created: Timestamp?
  public var createdBy: String
  public var comment: String
  /// Bytes of the step's layer; 0 for one that made none.
  public var size: Int64

  public init(id: Digest?, created: Timestamp?, createdBy: String, comment: String, size: Int64) {
    self.id = id
    self.created = created
    self.createdBy = createdBy
    self.comment = comment
    self.size = size
  }
}

/// How an image was made, the last step first.
public struct ImageHistory: Request {
  public static let name = "image.history"
  public typealias Reply = [ImageHistoryEntry]
  public var reference: String

  public init(reference: String) { self.reference = reference }
}

/// Removes images that nobody uses: those without a name, or with `all` every image without a container.
public struct ImagePrune: Request {
  public static let name = "image.prune"
  public struct Reply: Codable, Sendable, Equatable {
    public var steps: [ImageRemovalStep]
    /// Bytes of layers and blobs that went.
    public var reclaimed: Int64

    public init(steps: [ImageRemovalStep], reclaimed: Int64) {
      self.steps = steps
      self.reclaimed = reclaimed
    }
  }
  public var all: Bool
  /// Only images made before.
  public var until: Timestamp?
  /// Only images with all of these labels, `key` or `key=value`.
  public var labels: [String]
  /// Only images with none of these.
  public var withoutLabels: [String]

  public init(all: Bool, until: Timestamp? = nil, labels: [String] = [], withoutLabels: [String] = []) {
    self.all = all
    self.until = until
    self.labels = labels
    self.withoutLabels = withoutLabels
  }
}
