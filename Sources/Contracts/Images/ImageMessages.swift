/// Finds an image by name, digest, ID or a unique prefix of its ID.
///
/// Throws `notFound` with Docker's words (`No such image: x:latest`, or that it is for another platform),
/// `invalidArgument` for an ambiguous prefix.
public struct ImageResolve: Request {
  public static let name = "image.resolve"
  public static let isRepeatable = true
  public typealias Reply = ImageDescription
  public var reference: String
  /// The platform that it must be for, or nil for any.
  public var platform: String?

  public init(reference: String, platform: String? = nil) {
    self.reference = reference
    self.platform = platform
  }
}

public struct ImageList: Request {
  public static let name = "image.list"
  public static let isRepeatable = true
  public typealias Reply = [ImageDescription]

  public init() {}
}

public struct ImageTag: Request {
  public static let name = "image.tag"
  public typealias Reply = Done
  public var source: String
  public var target: String

  public init(source: String, target: String) {
    self.source = source
    self.target = target
  }
}

/// What `rmi` did, in the order it did it; printed as `Untagged: x` and `Deleted: sha256:...`.
public enum ImageRemovalStep: Codable, Sendable, Equatable {
  case untagged(String)
  case deleted(Digest)
}

/// Untags, and deletes when the last name goes. Refused with `inUse` while a container uses the image, unless `force`
/// and the container is stopped.
public struct ImageRemove: Request {
  public static let name = "image.remove"
  public typealias Reply = [ImageRemovalStep]
  public var reference: String
  public var force: Bool

  public init(reference: String, force: Bool) {
    self.reference = reference
    self.force = force
  }
}

/// One step of a long work on images, for people to watch.
public struct ImageProgress: Codable, Sendable, Equatable {
  /// The layer's short digest, or empty for a line about the whole.
  public var item: String
  public var status: String
  /// Bytes done and bytes in all, where they are known.
  public var current: Int64?
  public var total: Int64?

  public init(item: String, status: String, current: Int64? = nil, total: Int64? = nil) {
    self.item = item
    self.status = status
    self.current = current
    self.total = total
  }
}

/// Makes an image of one layer from a tar stream of a root file system, plain or compressed with gzip, zstd, xz or
/// bzip2. The reply is the new image's ID.
public struct ImageImport: StreamRequest {
  public static let name = "image.import"
  public typealias Element = ImageProgress
  public typealias Reply = Digest
  /// The tar stream; read to its end.
  public var archive: Descriptor
  /// What the image is to be called, or nil for none.
  public var reference: String?
  /// Dockerfile instructions to apply to the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER,
  /// VOLUME, WORKDIR.
  public var changes: [String]
  public var comment: String?

  public init(archive: Descriptor, reference: String?, changes: [String], comment: String?) {
    self.archive = archive
    self.reference = reference
    self.changes = changes
    self.comment = comment
  }
}

/// Loads every image of a docker-archive (what `docker save`, `podman save` and `skopeo` write), plain or compressed.
/// The reply is a line per image: a familiar name, or `sha256:...` where it has none.
public struct ImageLoad: StreamRequest {
  public static let name = "image.load"
  public typealias Element = ImageProgress
  public typealias Reply = [String]
  public var archive: Descriptor
  /// The platform to take of images for several, or nil for this machine's.
  public var platform: String?

  public init(archive: Descriptor, platform: String? = nil) {
    self.archive = archive
    self.platform = platform
  }
}
