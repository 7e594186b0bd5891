public struct SystemVersion: Request {
  public static let name = "system.version"
  public static let isRepeatable = true
  public struct Reply: Codable, Sendable, Equatable {
    public var version: String
    public var protocolVersion: Int
    public var commit: String
    public var kernel: String
    public var architecture: String
    public var started: Timestamp

    public init(
      version: String, protocolVersion: Int, commit: String, kernel: String, architecture: String, started: Timestamp
    ) {
      self.version = version
      self.protocolVersion = protocolVersion
      self.commit = commit
      self.kernel = kernel
      self.architecture = architecture
      self.started = started
    }
  }

  public init() {}
}

/// The state of one plugin.
public struct PluginStatus: Codable, Sendable, Equatable {
  public enum State: Codable, Sendable, Equatable {
    case waiting
    case running
    case skipped(reason: String)
    case failed(reason: String)
    case stopped
  }
  public var name: String
  public var role: String
  public var driver: String
  public var version: String
  public var state: State
  public var capabilities: [String]
  /// The command of a driver out of tree; empty for a built-in plugin.
  public var command: [String]
  /// The driver's process, or 0.
  public var pid: Int32
  /// How often the driver was started again.
  public var restarts: Int
  /// What there is to say of a plugin that runs; nil for nothing.
  public var note: String?

  public init(
    name: String, role: String, driver: String, version: String, state: State, capabilities: [String] = [],
    command: [String] = [], pid: Int32 = 0, restarts: Int = 0, note: String? = nil
  ) {
    self.name = name
    self.role = role
    self.driver = driver
    self.version = version
    self.state = state
    self.capabilities = capabilities
    self.command = command
    self.pid = pid
    self.restarts = restarts
    self.note = note
  }
}

public struct PluginList: Request {
  public static let name = "plugin.list"
  public static let isRepeatable = true
  public typealias Reply = [PluginStatus]

  public init() {}
}

/// One difference between what the engine recorded and what the system has.
public struct SystemDifference: Codable, Sendable, Equatable {
  public enum Kind: String, Codable, Sendable {
    /// On the system, and nobody's.
    case leftover
    /// Recorded, and not on the system.
    case missing
    /// Being removed by the reaper; will be gone by itself.
    case draining
  }
  public var kind: Kind
  /// The plugin that found it.
  public var plugin: String
  /// What it is, for people: `link veth1a2b3c4`, `cgroup /sys/fs/cgroup/...`.
  public var object: String

  public init(kind: Kind, plugin: String, object: String) {
    self.kind = kind
    self.plugin = plugin
    self.object = object
  }
}

/// Asked of every plugin that owns something on the system, routed by the plugin's own name: what differs from what it
/// recorded. `containers` are those that run. With `repair` it also sets right what it reports, except what drains.
public struct PluginCheck: Request {
  public static let name = "plugin.check"
  public typealias Reply = [SystemDifference]
  /// Every container that has a record.
  public var known: [ObjectID]
  /// Those of them that run.
  public var running: [ObjectID]
  public var repair: Bool

  public init(known: [ObjectID], running: [ObjectID], repair: Bool) {
    self.known = known
    self.running = running
    self.repair = repair
  }
}

/// Compares everything with the records (`engine system check`).
public struct SystemCheck: Request {
  public static let name = "system.check"
  public typealias Reply = [SystemDifference]
  public var repair: Bool

  public init(repair: Bool) { self.repair = repair }
}

/// What `info` shows.
public struct SystemInfo: Request {
  public static let name = "system.info"
  public static let isRepeatable = true
  public struct Reply: Codable, Sendable, Equatable {
    public var containers: Int
    public var running: Int
    public var paused: Int
    public var stopped: Int
    public var images: Int
    public var version: String
    public var root: String
    public var runtimeDirectory: String
    public var kernel: String
    public var operatingSystem: String
    public var architecture: String
    public var cpus: Int
    public var memory: Int64
    public var hostname: String
    public var cgroups: ResourceCapabilities.Reply
    public var plugins: [PluginStatus]
    public var warnings: [String]

    public init(
      containers: Int, running: Int, paused: Int, stopped: Int, images: Int, version: String, root: String,
      runtimeDirectory: String, kernel: String, operatingSystem: String, architecture: String, cpus: Int,
      memory: Int64, hostname: String, cgroups: ResourceCapabilities.Reply, plugins: [PluginStatus],
      warnings: [String]
    ) {
      self.containers = containers
      self.running = running
      self.paused = paused
      self.stopped = stopped
      self.images = images
      self.version = version
      self.root = root
      self.runtimeDirectory = runtimeDirectory
      self.kernel = kernel
      self.operatingSystem = operatingSystem
      self.architecture = architecture
      self.cpus = cpus
      self.memory = memory
      self.hostname = hostname
      self.cgroups = cgroups
      self.plugins = plugins
      self.warnings = warnings
    }
  }

  public init() {}
}

/// Ends the engine; containers run on.
public struct SystemShutdown: Request {
  public static let name = "system.shutdown"
  public typealias Reply = Done

  public init() {}
}
