/// Where the log of a container is to be written. Asked once, when the container is created.
public struct LogOpen: Request {
  public static let name = "log.open"
  public struct Reply: Codable, Sendable, Equatable {
    /// The path of the newest file, or empty where the driver keeps none.
    public var path: String
    public var maximumSize: Int64
    public var maximumFiles: Int

    public init(path: String, maximumSize: Int64, maximumFiles: Int) {
      self.path = path
      self.maximumSize = maximumSize
      self.maximumFiles = maximumFiles
    }
  }
  public var container: ObjectID
  /// `--log-opt`; an unknown one is `invalidArgument` that names it.
  public var options: [String: String]

  public init(container: ObjectID, options: [String: String]) {
    self.container = container
    self.options = options
  }
}

/// Writes a container's log to the client's descriptors; each element is a keep-alive while it follows.
public struct LogRead: StreamRequest {
  public static let name = "log.read"
  public typealias Element = Done
  public typealias Reply = Done
  public var container: ObjectID
  public var output: Descriptor
  public var error: Descriptor
  public var follow: Bool
  /// Readable while the container runs; the log is at its end for good once this is at its end (a pidfd or a pipe).
  /// Nil when it does not run.
  public var running: Descriptor?
  /// Lines from the end, or nil for all.
  public var tail: Int?
  public var since: Timestamp?
  public var until: Timestamp?
  public var timestamps: Bool

  public init(
    container: ObjectID, output: Descriptor, error: Descriptor, follow: Bool, running: Descriptor?, tail: Int?,
    since: Timestamp?, until: Timestamp?, timestamps: Bool
  ) {
    self.container = container
    self.output = output
    self.error = error
    self.follow = follow
    self.running = running
    self.tail = tail
    self.since = since
    self.until = until
    self.timestamps = timestamps
  }
}

/// Removes a container's log with its rotated files.
public struct LogRemove: Request {
  public static let name = "log.remove"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}
