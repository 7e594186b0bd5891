/// What a user asked a container to be: everything that `run` and `create` say.
public struct ContainerConfiguration: Codable, Sendable, Equatable {
  public enum Restart: Codable, Sendable, Equatable {
    case no
    case onFailure(maximumRetries: Int)
    case always
    case unlessStopped
  }

  /// What the container shares or has of a kind of namespace.
  public enum NamespaceMode: Codable, Sendable, Equatable {
    case own
    case host
    /// By name or ID.
    case container(String)
    /// IPC: its own, which other containers may join.
    case shareable
    /// IPC: its own, without /dev/shm.
    case none
  }

  /// As the user wrote it, for example `nginx`.
  public var image: String
  /// Nil takes the image's; empty clears it.
  public var entrypoint: [String]?
  public var command: [String] = []
  /// `KEY=value`; `KEY` alone removes the image's.
  public var environment: [String] = []
  public var workingDirectory = ""
  public var user = ""
  public var additionalGroups: [String] = []
  public var hostname = ""
  public var domainname = ""
  public var labels: [String: String] = [:]
  public var hasTerminal = false
  /// `-i`.
  public var keepsInputOpen = false
  /// Which streams a client was attached to on creation; for `inspect`.
  public var attachesInput = false
  public var attachesOutput = false
  public var attachesError = false
  public var removesItself = false
  public var restart = Restart.no
  public var mounts: [MountRequest] = []
  public var volumesFrom: [String] = []
  /// `bridge`, `host`, `none`, `container:x` or a network's name: the first is the network mode.
  public var networks: [EndpointRequest] = []
  public var networkMode = "default"
  @PortRuns public var ports: [PortBinding] = []
  public var publishesAllPorts = false
  /// Ports that are only declared, `80/tcp`.
  public var exposedPorts: [String] = []
  public var extraHosts: [String] = []
  public var dnsServers: [String] = []
  public var dnsSearch: [String] = []
  public var dnsOptions: [String] = []
  public var pidMode = NamespaceMode.own
  public var ipcMode = NamespaceMode.own
  public var utsMode = NamespaceMode.own
  public var cgroupNamespaceMode = NamespaceMode.own
  public var limits = ResourceLimits()
  public var sharedMemorySize: Int64 = 64 << 20
  public var resourceLimits: [RuntimeSpecification.Process.ResourceLimit] = []
  public var outOfMemoryScoreAdjustment = 0
  public var isRootReadOnly = false
  public var isPrivileged = false
  public var addedCapabilities: [String] = []
  public var droppedCapabilities: [String] = []
  /// `no-new-privileges`, `seccomp=unconfined`, `seccomp=<JSON>`, ...
  public var securityOptions: [String] = []
  public var systemControls: [String: String] = [:]
  public var usesInit = false
  /// A signal's name or number; empty takes the image's.
  public var stopSignal = ""
  /// Seconds until KILL, or nil for 10.
  public var stopTimeout: Int?
  public var logDriver: String?
  public var logOptions: [String: String] = [:]
  /// `linux/arm64` and the like: what the image must be for; nil for whatever is here under its name.
  public var platform: String?

  public init(image: String) { self.image = image }
}

/// Where in its life a container is.
public enum ContainerStatus: String, Codable, Sendable, CaseIterable {
  case created
  case running
  case paused
  case restarting
  case removing
  case exited
  case dead

  /// Whether there are processes of the container, be they frozen.
  public var hasProcesses: Bool { self == .running || self == .paused }
}

public struct ContainerState: Codable, Sendable, Equatable {
  public var status = ContainerStatus.created
  /// 0 when it does not run.
  public var pid: Int32 = 0
  public var shimPID: Int32 = 0
  public var exitCode: Int32 = 0
  public var wasKilledForMemory = false
  /// Why the last start failed, or the exit status is not the process's own.
  public var error = ""
  public var started = Timestamp.never
  public var finished = Timestamp.never
  /// A user stopped it; `always` does not bring it back until the engine starts anew.
  public var wasStoppedByUser = false
  public var restartCount = 0

  public init() {}
}

/// A container as the engine keeps it. The lifecycle plugin is its only writer.
public struct ContainerRecord: Codable, Sendable, Equatable {
  public var id: ObjectID
  /// Without a leading slash.
  public var name: String
  public var created: Timestamp
  public var configuration: ContainerConfiguration
  public var imageID: Digest
  /// Chain IDs of the image's layers, lowest first.
  public var layers: [Digest]
  /// The command with the image's defaults applied: what is executed.
  public var path: String
  public var arguments: [String]
  public var environment: [String]
  public var workingDirectory: String
  public var user: String
  public var exposedPorts: [String]
  public var stopSignal: String
  public var imageLabels: [String: String]
  public var mounts: [MountRequest]
  public var mountPoints: [MountPoint]
  public var endpoints: [Endpoint]
  /// The ports that are published now, with the host ports that were taken.
  @PortRuns public var publishedPorts: [PortBinding]
  public var logPath: String
  public var logMaximumSize: Int64
  public var logMaximumFiles: Int
  public var cgroupPaths: [String: String]
  /// Where on the host the files are that the engine writes for it, by their path inside, while it runs.
  public var generatedPaths: [String: String]?
  public var state: ContainerState

  public init(
    id: ObjectID, name: String, created: Timestamp, configuration: ContainerConfiguration, imageID: Digest,
    layers: [Digest], path: String, arguments: [String], environment: [String], workingDirectory: String,
    user: String, exposedPorts: [String], stopSignal: String, imageLabels: [String: String],
    mounts: [MountRequest], mountPoints: [MountPoint], log: LogOpen.Reply
  ) {
    self.id = id
    self.name = name
    self.created = created
    self.configuration = configuration
    self.imageID = imageID
    self.layers = layers
    self.path = path
    self.arguments = arguments
    self.environment = environment
    self.workingDirectory = workingDirectory
    self.user = user
    self.exposedPorts = exposedPorts
    self.stopSignal = stopSignal
    self.imageLabels = imageLabels
    self.mounts = mounts
    self.mountPoints = mountPoints
    endpoints = []
    publishedPorts = []
    logPath = log.path
    logMaximumSize = log.maximumSize
    logMaximumFiles = log.maximumFiles
    cgroupPaths = [:]
    state = ContainerState()
  }
}
