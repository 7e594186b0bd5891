// What is asked of plugins as such, and what the kernel tells about drivers.

/// The first request that a driver out of tree is sent: who are you?
public struct PluginDescribe: Request {
  public static let name = "plugin.describe"
  public struct Reply: Codable, Sendable, Equatable {
    /// One of `volume`, `network`, `log`, `snapshot`.
    public var role: String
    /// What users call it: `--volume-driver NAME`.
    public var driver: String
    public var version: String
    /// What it can do beyond its role's messages, for people.
    public var capabilities: [String]

    public init(role: String, driver: String, version: String, capabilities: [String] = []) {
      self.role = role
      self.driver = driver
      self.version = version
      self.capabilities = capabilities
    }
  }
  /// What the engine calls it: the table of the configuration, or the file's name without its ending.
  public var plugin: String
  /// A directory of its own for what must survive its end; it exists.
  public var stateDirectory: String
  /// A directory of its own for what a reboot clears; it exists.
  public var runtimeDirectory: String
  /// `[drivers.<name>.options]` of the configuration.
  public var options: [String: String]

  public init(plugin: String, stateDirectory: String, runtimeDirectory: String, options: [String: String]) {
    self.plugin = plugin
    self.stateDirectory = stateDirectory
    self.runtimeDirectory = runtimeDirectory
    self.options = options
  }
}

/// Somebody names a driver that does not answer yet: whoever can find it makes it answer before this returns.
public struct DriverWanted: Event {
  public static let name = "driver.wanted"
  public var role: String
  public var driver: String

  public init(role: String, driver: String) {
    self.role = role
    self.driver = driver
  }
}

/// A driver out of tree answers, also again after it ended: catalogs tell it what it must know.
public struct DriverStarted: Event {
  public static let name = "driver.started"
  public var role: String
  public var driver: String

  public init(role: String, driver: String) {
    self.role = role
    self.driver = driver
  }
}

/// How often a plugin answered a message, and how long that took.
public struct MessageStatistics: Codable, Sendable, Equatable {
  public var message: String
  public var driver: String
  public var count: Int64
  public var failures: Int64
  /// How many of the calls were measured: all of a driver's out of tree, one of 16 of a built-in plugin's.
  public var measured: Int64
  public var totalNanoseconds: Int64
  public var maximumNanoseconds: Int64

  public init(
    message: String, driver: String, count: Int64, failures: Int64, measured: Int64, totalNanoseconds: Int64,
    maximumNanoseconds: Int64
  ) {
    self.message = message
    self.driver = driver
    self.count = count
    self.failures = failures
    self.measured = measured
    self.totalNanoseconds = totalNanoseconds
    self.maximumNanoseconds = maximumNanoseconds
  }
}

/// Everything about one plugin, by its name.
public struct PluginInspect: Request {
  public static let name = "plugin.inspect"
  public struct Reply: Codable, Sendable {
    public var status: PluginStatus
    public var dependencies: [String]
    /// What the configuration sets or leaves at its default, in text.
    public var configuration: [String: String]
    public var messages: [MessageStatistics]

    public init(
      status: PluginStatus, dependencies: [String], configuration: [String: String], messages: [MessageStatistics]
    ) {
      self.status = status
      self.dependencies = dependencies
      self.configuration = configuration
      self.messages = messages
    }
  }
  public var plugin: String

  public init(plugin: String) { self.plugin = plugin }
}

/// What a run would do, without doing any of it (`engine run --plan`).
public struct ContainerPlan: Request {
  public static let name = "container.plan"
  public struct Step: Codable, Sendable {
    public var message: String
    public var driver: String
    /// How deep it is nested: 1 for what a catalog asks its driver.
    public var depth: Int
    /// What it would change on the host, a line each, for people; empty for a question.
    public var changes: [String]

    public init(message: String, driver: String, depth: Int, changes: [String]) {
      self.message = message
      self.driver = driver
      self.depth = depth
      self.changes = changes
    }
  }
  public typealias Reply = [Step]
  public var containerName: String?
  public var configuration: ContainerConfiguration

  public init(containerName: String?, configuration: ContainerConfiguration) {
    self.containerName = containerName
    self.configuration = configuration
  }
}

/// Watches what is answered on the bus from now on, until it is cancelled.
public struct BusTap: StreamRequest {
  public static let name = "bus.tap"
  public typealias Reply = Done
  public struct Element: Codable, Sendable {
    /// When it was answered.
    public var time: Timestamp
    public var message: String
    public var driver: String
    /// The plugin that answered, and its role.
    public var plugin: String
    public var role: String
    public var trace: String
    public var nanoseconds: Int64
    public var error: EngineError?
    /// The message as it travels between processes; descriptors are numbers.
    public var parameters: JSONValue
    public var reply: JSONValue?
    /// How many messages were passed over before this one, because they came faster than they were taken.
    public var dropped: Int64

    public init(
      time: Timestamp, message: String, driver: String, plugin: String, role: String, trace: String,
      nanoseconds: Int64, error: EngineError?, parameters: JSONValue, reply: JSONValue?, dropped: Int64
    ) {
      self.time = time
      self.message = message
      self.driver = driver
      self.plugin = plugin
      self.role = role
      self.trace = trace
      self.nanoseconds = nanoseconds
      self.error = error
      self.parameters = parameters
      self.reply = reply
      self.dropped = dropped
    }
  }
  /// Names of messages, or their beginnings up to a dot; empty for all.
  public var types: [String]
  public var roles: [String]
  /// A container's name or ID, which must stand in the message; empty for all.
  public var container: String
  public var withReplies: Bool

  public init(types: [String], roles: [String], container: String, withReplies: Bool) {
    self.types = types
    self.roles = roles
    self.container = container
    self.withReplies = withReplies
  }
}
