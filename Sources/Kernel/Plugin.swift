import Contracts
import LinuxSystem
import Logging

/// What a plugin says of itself before it is loaded.
public struct PluginManifest: Sendable, Equatable {
  /// What the engine does when the plugin cannot start.
  public enum FailurePolicy: String, Sendable {
    /// The engine does not start.
    case fail
    /// The engine starts without it; its messages are answered with the reason.
    case skip
  }

  /// Unique, for example `network-bridge`.
  public var name: String
  /// What it implements, for example `network`.
  public var role: String
  /// Its name among the drivers of its role, or empty where the role has only one.
  public var driver: String
  public var version: String
  /// Names of plugins, or roles of which at least one plugin must run, that are started before it.
  public var dependencies: [String]
  public var onFailure: FailurePolicy
  /// What it takes from the configuration file.
  public var keys: [ConfigurationKey]

  public init(
    name: String, role: String, driver: String = "", version: String = "1", dependencies: [String] = [],
    onFailure: FailurePolicy = .fail, keys: [ConfigurationKey] = []
  ) {
    self.name = name
    self.role = role
    self.driver = driver
    self.version = version
    self.dependencies = dependencies
    self.onFailure = onFailure
    self.keys = keys
  }
}

/// A module that implements one piece of the engine by answering messages.
///
/// Life: `init`, `register`, `start`; requests reach it only after `start` has returned; `stop` when the engine ends.
public protocol Plugin: AnyObject, Sendable {
  static var manifest: PluginManifest { get }
  /// The ways in which the conformance kit of its role examines it, where it is a driver.
  static var examinations: [Examination] { get }
  init(host: PluginHost) throws(EngineError)
  /// The plugin's table of contents: names every message it answers.
  func register(_ registrar: Registrar) throws(EngineError)
  /// Opens what the plugin needs. It may ask the plugins that it depends on.
  func start() async throws(EngineError)
  func stop() async
}

extension Plugin {
  public static var examinations: [Examination] { [Examination()] }
  public func start() async throws(EngineError) {}
  public func stop() async {}
}

/// Takes a plugin's handlers while it registers.
public struct Registrar: Sendable {
  let bus: Bus
  let manifest: PluginManifest

  public init(bus: Bus, manifest: PluginManifest) {
    self.bus = bus
    self.manifest = manifest
  }

  /// Answers a message for everybody.
  public func answer<R: Request>(_ type: R.Type, _ body: @escaping RequestHandler<R>) throws(EngineError) {
    try bus.register(type, driver: "", owner: manifest.name, body)
  }

  /// Answers a message that is routed by the name of this plugin's driver.
  public func answerAsDriver<R: Request>(_ type: R.Type, _ body: @escaping RequestHandler<R>) throws(EngineError) {
    try bus.register(type, driver: manifest.driver, owner: manifest.name, body)
  }

  /// Answers for one of several drivers that the plugin speaks for; also after it has started.
  public func answer<R: Request>(
    _ type: R.Type, driver: String, _ body: @escaping RequestHandler<R>
  ) throws(EngineError) {
    try bus.register(type, driver: driver, owner: manifest.name, body)
  }

  /// Answers a message that is routed by the name of this plugin itself (`PluginCheck`).
  public func answerAsPlugin<R: Request>(_ type: R.Type, _ body: @escaping RequestHandler<R>) throws(EngineError) {
    try bus.register(type, driver: manifest.name, owner: manifest.name, body)
  }

  /// Answers a streaming message that is routed by the name of this plugin's driver.
  public func streamAsDriver<R: StreamRequest>(
    _ type: R.Type, _ body: @escaping StreamHandler<R>
  ) throws(EngineError) {
    try bus.register(type, driver: manifest.driver, owner: manifest.name, body)
  }

  public func stream<R: StreamRequest>(_ type: R.Type, _ body: @escaping StreamHandler<R>) throws(EngineError) {
    try bus.register(type, driver: "", owner: manifest.name, body)
  }
}

/// Which engine this is, where it keeps things, and whether the host's default names are its own.
public struct Instance: Sendable, Equatable {
  /// Durable state.
  public var root: String
  /// Sockets and what a reboot clears: `/run/engine/<hash>`.
  public var runtimeDirectory: String
  /// Eight hexadecimal digits of the root's path, for names of kernel objects.
  public var hash: String
  /// The one with the default root: takes docker0 and 172.17.0.0/16 where both are free.
  public var isDefault: Bool
  /// Paths of the executables: of this daemon, and of the shim beside it.
  public var daemonPath: String
  public var shimPath: String
  public var version: String

  public init(
    root: String, runtimeDirectory: String, hash: String, isDefault: Bool, daemonPath: String, shimPath: String,
    version: String
  ) {
    self.root = root
    self.runtimeDirectory = runtimeDirectory
    self.hash = hash
    self.isDefault = isDefault
    self.daemonPath = daemonPath
    self.shimPath = shimPath
    self.version = version
  }
}

/// What the kernel gives a plugin.
public struct PluginHost: Sendable {
  public let manifest: PluginManifest
  public let bus: Bus
  public let instance: Instance
  public let journal: Journal
  /// The plugin's own keys that the configuration sets, in text; the elements of a list one a line.
  public let configuration: [String: String]
  public let log: Logger

  public init(
    manifest: PluginManifest, bus: Bus, instance: Instance, journal: Journal, configuration: [String: String] = [:]
  ) {
    self.manifest = manifest
    self.bus = bus
    self.instance = instance
    self.journal = journal
    self.configuration = configuration
    log = Logger(label: manifest.name)
  }

  /// What the configuration says about a key, or the key's default.
  public func setting(_ name: String) -> String {
    configuration[name] ?? manifest.keys.first { $0.name == name }?.standard.string ?? ""
  }

  /// - Throws: `invalidArgument` for a value that is no number, which only a test can give.
  public func integerSetting(_ name: String) throws(EngineError) -> Int {
    guard let number = Int(setting(name)) else {
      throw EngineError(.invalidArgument, "\(manifest.name): \(name) = \"\(setting(name))\" is not a number")
    }
    return number
  }

  public func flagSetting(_ name: String) -> Bool { setting(name) == "true" }

  public func listSetting(_ name: String) -> [String] { setting(name).split(separator: "\n").map(String.init) }

  /// The plugin's directory for durable state; made when it is asked for.
  public func stateDirectory() throws(EngineError) -> String { try directory(instance.root) }

  /// The plugin's directory for what a reboot clears; made when it is asked for.
  public func runtimeDirectory() throws(EngineError) -> String { try directory(instance.runtimeDirectory) }

  private func directory(_ base: String) throws(EngineError) -> String {
    let path = "\(base)/\(manifest.name)"
    do {
      try Files.makeDirectories(path)
    } catch {
      throw EngineError(.internalFailure, "the plugin \(manifest.name) cannot make its directory: \(error)")
    }
    return path
  }
}
