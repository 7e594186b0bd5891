public struct ContainerCreate: Request {
  public static let name = "container.create"
  public struct Reply: Codable, Sendable, Equatable {
    public var id: ObjectID
    public var warnings: [String]

    public init(id: ObjectID, warnings: [String]) {
      self.id = id
      self.warnings = warnings
    }
  }
  /// Nil for one that the engine invents (`adjective_surname`).
  public var containerName: String?
  public var configuration: ContainerConfiguration

  public init(containerName: String?, configuration: ContainerConfiguration) {
    self.containerName = containerName
    self.configuration = configuration
  }
}

/// How a client watched a container: what it says while it runs and how it ended.
public enum ContainerRunElement: Codable, Sendable, Equatable {
  /// All is ready; its process is started next. Told again when there are more warnings then.
  case created(ObjectID, warnings: [String])
  case started
  /// The user let go with the detach keys.
  case detached
}

/// Creates and starts a container in one go and, unless detached, waits for its end.
public struct ContainerRun: StreamRequest {
  public static let name = "container.run"
  public typealias Element = ContainerRunElement
  /// How it ended; nil for a container that runs on (detached). With `--rm` it is sent when everything is removed.
  public typealias Reply = ExitStatus?
  public var containerName: String?
  public var configuration: ContainerConfiguration
  public var isDetached: Bool
  public var streams: StandardStreams

  public init(
    containerName: String?, configuration: ContainerConfiguration, isDetached: Bool, streams: StandardStreams
  ) {
    self.containerName = containerName
    self.configuration = configuration
    self.isDetached = isDetached
    self.streams = streams
  }
}

/// Starts a created or stopped container; with `isAttached`, waits for its end like `ContainerRun`. One that runs
/// already is done already.
public struct ContainerStart: StreamRequest {
  public static let name = "container.start"
  public typealias Element = ContainerRunElement
  public typealias Reply = ExitStatus?
  /// Name, ID or unique prefix of the ID: so in all messages below.
  public var container: String
  public var isAttached: Bool
  public var streams: StandardStreams

  public init(container: String, isAttached: Bool, streams: StandardStreams) {
    self.container = container
    self.isAttached = isAttached
    self.streams = streams
  }
}

/// Connects a client to a container that runs, and waits for its end like `ContainerRun`.
///
/// `conflict` says that it is stopped, paused or restarting.
public struct ContainerAttach: StreamRequest {
  public static let name = "container.attach"
  public typealias Element = ContainerRunElement
  public typealias Reply = ExitStatus?
  public var container: String
  public var streams: StandardStreams

  public init(container: String, streams: StandardStreams) {
    self.container = container
    self.streams = streams
  }
}

/// Sends the stop signal, waits, then KILL. A stopped container is done already.
public struct ContainerStop: Request {
  public static let name = "container.stop"
  public typealias Reply = Done
  public var container: String
  /// Seconds; nil for the container's own, -1 to wait for ever.
  public var timeout: Int?
  /// A name or number; nil for the container's own.
  public var signal: String?

  public init(container: String, timeout: Int?, signal: String?) {
    self.container = container
    self.timeout = timeout
    self.signal = signal
  }
}

/// `conflict` says `Container x is not running`.
public struct ContainerKill: Request {
  public static let name = "container.kill"
  public typealias Reply = Done
  public var container: String
  public var signal: String

  public init(container: String, signal: String) {
    self.container = container
    self.signal = signal
  }
}

/// Stops a container that runs, and starts it.
public struct ContainerRestart: Request {
  public static let name = "container.restart"
  public typealias Reply = Done
  public var container: String
  /// See `ContainerStop`.
  public var timeout: Int?
  public var signal: String?

  public init(container: String, timeout: Int?, signal: String?) {
    self.container = container
    self.timeout = timeout
    self.signal = signal
  }
}

/// Freezes every process of a container; `conflict` says that it does not run or is frozen already.
public struct ContainerPause: Request {
  public static let name = "container.pause"
  public typealias Reply = Done
  public var container: String

  public init(container: String) { self.container = container }
}

/// Lets a frozen container go on.
public struct ContainerUnpause: Request {
  public static let name = "container.unpause"
  public typealias Reply = Done
  public var container: String

  public init(container: String) { self.container = container }
}

/// Gives a container another name, whether it runs or not.
public struct ContainerRename: Request {
  public static let name = "container.rename"
  public typealias Reply = Done
  public var container: String
  public var newName: String

  public init(container: String, newName: String) {
    self.container = container
    self.newName = newName
  }
}

/// The processes of a container that runs, as ps(1) shows them on the host.
public struct ContainerTop: Request {
  public static let name = "container.top"
  public struct Reply: Codable, Sendable, Equatable {
    public var titles: [String]
    /// One row a process, with a text for each title.
    public var processes: [[String]]

    public init(titles: [String], processes: [[String]]) {
      self.titles = titles
      self.processes = processes
    }
  }
  public var container: String
  /// Options of ps(1); empty is `-ef`.
  public var arguments: [String]

  public init(container: String, arguments: [String]) {
    self.container = container
    self.arguments = arguments
  }
}

/// Changes limits and the restart policy, also while it runs. The reply holds warnings.
public struct ContainerUpdate: Request {
  public static let name = "container.update"
  public typealias Reply = [String]
  public var container: String
  /// What is 0 or empty stays as it is.
  public var limits: ResourceLimits
  /// Nil leaves it as it is.
  public var restart: ContainerConfiguration.Restart?

  public init(container: String, limits: ResourceLimits, restart: ContainerConfiguration.Restart?) {
    self.container = container
    self.limits = limits
    self.restart = restart
  }
}

/// What a container has used so far, all counted from its start; nothing for one that does not run.
public struct ContainerStatistics: Request {
  public static let name = "container.statistics"
  public struct Reply: Codable, Sendable, Equatable {
    public var usage: ResourceUsage
    /// Bytes over all interfaces of its own but `lo`.
    public var received: UInt64
    public var sent: UInt64
    /// Nanoseconds of CLOCK_MONOTONIC when this was read.
    public var time: UInt64

    public init(usage: ResourceUsage, received: UInt64, sent: UInt64, time: UInt64) {
      self.usage = usage
      self.received = received
      self.sent = sent
      self.time = time
    }
  }
  public var container: String

  public init(container: String) { self.container = container }
}

/// What is different in a container's file system from its image's, in the order of the paths.
public struct ContainerDifferences: Request {
  public static let name = "container.differences"
  public typealias Reply = [FileDifference]
  public var container: String

  public init(container: String) { self.container = container }
}

/// Removes a container with its writable layer, log and, with `removesVolumes`, its anonymous volumes.
public struct ContainerRemove: Request {
  public static let name = "container.remove"
  public typealias Reply = Done
  public var container: String
  public var force: Bool
  public var removesVolumes: Bool

  public init(container: String, force: Bool, removesVolumes: Bool) {
    self.container = container
    self.force = force
    self.removesVolumes = removesVolumes
  }
}

/// Every record, newest first; filters, limits and formats are the client's.
public struct ContainerList: Request {
  public static let name = "container.list"
  public static let isRepeatable = true
  public typealias Reply = [ContainerRecord]
  /// Also those that do not run.
  public var all: Bool

  public init(all: Bool) { self.all = all }
}

public struct ContainerInspect: Request {
  public static let name = "container.inspect"
  public static let isRepeatable = true
  public typealias Reply = ContainerRecord
  public var container: String

  public init(container: String) { self.container = container }
}

/// Bytes of a container's writable layer, for `--size`.
public struct ContainerSize: Request {
  public static let name = "container.size"
  public static let isRepeatable = true
  public typealias Reply = Int64
  public var container: String

  public init(container: String) { self.container = container }
}

/// Answers when the container no longer runs.
public struct ContainerWait: Request {
  public static let name = "container.wait"
  public typealias Reply = ExitStatus
  public var container: String

  public init(container: String) { self.container = container }
}

/// Writes a container's log to the client's descriptors.
public struct ContainerLogs: StreamRequest {
  public static let name = "container.logs"
  public typealias Element = Done
  public typealias Reply = Done
  public var container: String
  public var output: Descriptor
  public var error: Descriptor
  public var follow: Bool
  public var tail: Int?
  public var since: Timestamp?
  public var until: Timestamp?
  public var timestamps: Bool

  public init(
    container: String, output: Descriptor, error: Descriptor, follow: Bool, tail: Int?, since: Timestamp?,
    until: Timestamp?, timestamps: Bool
  ) {
    self.container = container
    self.output = output
    self.error = error
    self.follow = follow
    self.tail = tail
    self.since = since
    self.until = until
    self.timestamps = timestamps
  }
}

/// Runs one more command in a running container. The first element carries the exec's ID.
public struct ContainerExec: StreamRequest {
  public static let name = "container.exec"
  public enum Element: Codable, Sendable, Equatable {
    case created(ObjectID)
    case started
    case detached
  }
  public typealias Reply = ExitStatus?
  public var container: String
  public var command: [String]
  public var environment: [String]
  public var workingDirectory: String
  public var user: String
  public var hasTerminal: Bool
  public var isPrivileged: Bool
  public var isDetached: Bool
  public var streams: StandardStreams

  public init(
    container: String, command: [String], environment: [String], workingDirectory: String, user: String,
    hasTerminal: Bool, isPrivileged: Bool, isDetached: Bool, streams: StandardStreams
  ) {
    self.container = container
    self.command = command
    self.environment = environment
    self.workingDirectory = workingDirectory
    self.user = user
    self.hasTerminal = hasTerminal
    self.isPrivileged = isPrivileged
    self.isDetached = isDetached
    self.streams = streams
  }
}

/// Sets the size of a container's terminal, or of one of its execs.
public struct ContainerResize: Request {
  public static let name = "container.resize"
  public typealias Reply = Done
  public var container: String
  public var exec: ObjectID?
  public var rows: UInt16
  public var columns: UInt16

  public init(container: String, exec: ObjectID?, rows: UInt16, columns: UInt16) {
    self.container = container
    self.exec = exec
    self.rows = rows
    self.columns = columns
  }
}

/// Sends a signal to an exec's process, for signals that the client proxies.
public struct ContainerExecSignal: Request {
  public static let name = "container.exec.signal"
  public typealias Reply = Done
  public var container: String
  public var exec: ObjectID
  public var signal: Int32

  public init(container: String, exec: ObjectID, signal: Int32) {
    self.container = container
    self.exec = exec
    self.signal = signal
  }
}

/// Which containers use an image, a volume or a network: asked by the plugins that own those before they remove one.
public struct ContainerUsers: Request {
  public static let name = "container.users"
  public enum Resource: Codable, Sendable, Equatable {
    case image(Digest)
    case volume(String)
    case network(ObjectID)
  }
  public struct User: Codable, Sendable, Equatable {
    public var id: ObjectID
    public var containerName: String
    public var isRunning: Bool

    public init(id: ObjectID, containerName: String, isRunning: Bool) {
      self.id = id
      self.containerName = containerName
      self.isRunning = isRunning
    }
  }
  public typealias Reply = [User]
  public var resource: Resource

  public init(resource: Resource) { self.resource = resource }
}
