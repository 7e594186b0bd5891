/// One step of the start of a container. Steps may overlap: what does not depend on each other is done side by side.
public struct TimedStep: Codable, Sendable, Equatable {
  /// Who did it.
  public enum Place: String, Codable, Sendable {
    /// The engine's own process.
    case engine
    /// The process beside the container.
    case shim
    /// The container's first process, before its command was executed.
    case process
  }
  public var name: String
  public var place: Place
  /// Nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)), the same clock in every process.
  public var begin: Int64
  public var end: Int64

  public init(_ name: String, _ place: Place, begin: Int64, end: Int64) {
    self.name = name
    self.place = place
    self.begin = begin
    self.end = end
  }
}

/// How the last start of a container went, step by step. The engine keeps a bounded number of the latest starts in
/// memory, also of containers that are gone.
///
/// Throws `notFound` for a container that the engine does not know, and `conflict` in words for one whose start it did
/// not see or no longer remembers.
public struct ContainerTimings: Request {
  public static let name = "container.timings"
  public struct Reply: Codable, Sendable, Equatable {
    public var id: ObjectID
    public var containerName: String
    /// When the command was executed.
    public var started: Timestamp
    /// From the request to the stored record of a running container: nanoseconds of CLOCK_MONOTONIC.
    public var begin: Int64
    public var end: Int64
    /// In the order in which they began.
    public var steps: [TimedStep]

    public init(
      id: ObjectID, containerName: String, started: Timestamp, begin: Int64, end: Int64, steps: [TimedStep]
    ) {
      self.id = id
      self.containerName = containerName
      self.started = started
      self.begin = begin
      self.end = end
      self.steps = steps
    }
  }
  public var container: String

  public init(container: String) { self.container = container }
}
