/// The configuration of an image (OCI image specification, config.md), with Docker's additions.
public struct ImageConfiguration: Codable, Sendable, Equatable {
  /// How to find out whether a container works (Docker's addition); durations are nanoseconds, 0 for the default.
  public struct HealthCheck: Codable, Sendable, Equatable {
    /// `NONE`; `CMD` with the arguments; `CMD-SHELL` with a line for the shell; empty for the image's.
    public var test: [String]?
    public var interval: Int64?
    public var timeout: Int64?
    public var startPeriod: Int64?
    public var startInterval: Int64?
    public var retries: Int?

    enum CodingKeys: String, CodingKey {
      case test = "Test"
      case interval = "Interval"
      case timeout = "Timeout"
      case startPeriod = "StartPeriod"
      case startInterval = "StartInterval"
      case retries = "Retries"
    }

    public init() {}
  }

  public struct Execution: Codable, Sendable, Equatable {
    public var user: String?
    public var exposedPorts: [String: EmptyObject]?
    public var environment: [String]?
    public var entrypoint: [String]?
    public var command: [String]?
    public var volumes: [String: EmptyObject]?
    public var workingDirectory: String?
    public var labels: [String: String]?
    public var stopSignal: String?
    public var shell: [String]?
    public var healthCheck: HealthCheck?
    /// Instructions for builds upon this image.
    public var onBuild: [String]?

    enum CodingKeys: String, CodingKey {
      case user = "User"
      case exposedPorts = "ExposedPorts"
      case environment = "Env"
      case entrypoint = "Entrypoint"
      case command = "Cmd"
      case volumes = "Volumes"
      case workingDirectory = "WorkingDir"
      case labels = "Labels"
      case stopSignal = "StopSignal"
      case shell = "Shell"
      case healthCheck = "Healthcheck"
      case onBuild = "OnBuild"
    }

    public init() {}
  }

  public struct RootFilesystem: Codable, Sendable, Equatable {
    public var type: String
    /// Digests of the uncompressed layers, lowest first.
    public var differenceIDs: [Digest]

    enum CodingKeys: String, CodingKey {
      case type
      case differenceIDs = "diff_ids"
    }

    public init(differenceIDs: [Digest]) {
      type = "layers"
      self.differenceIDs = differenceIDs
    }
  }

  public struct History: Codable, Sendable, Equatable {
    public var created: Timestamp?
    public var createdBy: String?
    public var author: String?
    public var comment: String?
    public var emptyLayer: Bool?

    enum CodingKeys: String, CodingKey {
      case created
      case createdBy = "created_by"
      case author
      case comment
      case emptyLayer = "empty_layer"
    }

    public init(created: Timestamp?, createdBy: String?, comment: String?) {
      self.created = created
      self.createdBy = createdBy
      self.comment = comment
    }
  }

  public var created: Timestamp?
  public var author: String?
  public var architecture: String
  public var os: String
  public var variant: String?
  public var config: Execution?
  public var rootfs: RootFilesystem
  public var history: [History]?

  /// What it runs on; Linux where nothing is said.
  public var platform: ImagePlatform {
    ImagePlatform(os: os.isEmpty ? "linux" : os, architecture: architecture, variant: variant).normalized
  }

  /// - Parameter name: the image, for the error.
  /// - Throws: `notFound` in Docker's words where the image is for another platform than the one that was asked for.
  public func check(for wanted: ImagePlatform, name: String) throws(EngineError) {
    if platform.satisfies(wanted) { return }
    throw EngineError(
      .notFound,
      "image with reference \(name) was found but does not match the specified platform: "
        + "wanted \(wanted), actual: \(platform)")
  }

  public init(architecture: String, os: String, rootfs: RootFilesystem) {
    self.architecture = architecture
    self.os = os
    self.rootfs = rootfs
  }
}

/// `{}`: the value of OCI's sets (`ExposedPorts`, `Volumes`).
public struct EmptyObject: Codable, Sendable, Equatable {
  public init() {}
}

/// An image in the store.
public struct ImageDescription: Codable, Sendable, Equatable {
  /// The digest of the configuration, which is the image's ID.
  public var id: Digest
  /// Familiar names, for example `nginx:latest`.
  public var references: [String]
  public var repositoryDigests: [String]
  /// The digest that each familiar name has in its repository; nothing for one that was not pulled or pushed.
  public var referenceDigests: [String: Digest]?
  public var configuration: ImageConfiguration
  /// Chain IDs of the layers, lowest first (OCI image specification, config.md, Layer ChainID).
  public var layers: [Digest]
  /// Bytes of the unpacked layers.
  public var size: Int64
  /// When this engine stored it.
  public var stored: Timestamp

  public init(
    id: Digest, references: [String], repositoryDigests: [String], configuration: ImageConfiguration,
    layers: [Digest], size: Int64, stored: Timestamp
  ) {
    self.id = id
    self.references = references
    self.repositoryDigests = repositoryDigests
    self.configuration = configuration
    self.layers = layers
    self.size = size
    self.stored = stored
  }
}
