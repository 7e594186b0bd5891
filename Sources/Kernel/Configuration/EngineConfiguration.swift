import Contracts

/// Everything that an instance's configuration file says, checked and typed.
public struct EngineConfiguration: Sendable, Equatable {
  /// What the file says about one built-in plugin.
  public struct PluginSettings: Sendable, Equatable {
    public var isEnabled = true
    /// Nil for the plugin's own policy.
    public var onFailure: PluginManifest.FailurePolicy?
    /// Plugins or roles that must be started before it, beyond those that it needs anyway.
    public var after: [String] = []
    public var values: [String: ConfigurationValue] = [:]

    public init() {}
  }

  /// The kernel's own keys by name.
  public var engine: [String: ConfigurationValue] = [:]
  /// The driver of each role that answers when none is named.
  public var defaults: [String: String] = [:]
  public var plugins: [String: PluginSettings] = [:]
  public var drivers: [ExternalDriver] = []
  /// Drivers that are not started, wherever they are.
  public var disabledDrivers: Set<String> = []
  /// What may be meant otherwise, one line each.
  public var warnings: [String] = []

  public init() {}

  /// The keys of the table `engine`.
  public static let engineKeys: [ConfigurationKey] = [
    ConfigurationKey(
      "idle_seconds", .integer(300), range: 1...31_536_000,
      "Seconds without a client and without a running container after which the daemon leaves."),
    ConfigurationKey(
      "plugin_directories", .list(["plugins", "/usr/lib/engine/plugins", "/usr/local/lib/engine/plugins"]),
      "Directories whose executables are started as drivers. A relative path is below the root of the instance."),
    ConfigurationKey(
      "driver_seconds", .integer(2), range: 0...60,
      "Seconds for which the engine's start waits for out-of-tree drivers; those that come later are taken in then."),
  ]

  /// The keys of the table `defaults`, one a role.
  public static let defaultKeys: [ConfigurationKey] = [
    ConfigurationKey(
      "network", .text("bridge"),
      "The network, or the driver of it, that a container gets when its command line names none."),
    ConfigurationKey("volume", .text("local"), "The driver of volumes that are made without naming one."),
    ConfigurationKey("log", .text("json-file"), "The driver of the logs of containers that name none."),
    ConfigurationKey("snapshot", .text("overlay"), "The driver of image layers and of containers' file systems."),
  ]

  /// The keys that every table `plugins.<name>` has beside the plugin's own.
  public static func commonKeys(of manifest: PluginManifest) -> [ConfigurationKey] {
    [
      ConfigurationKey("enabled", .flag(true), "Whether the plugin is loaded."),
      ConfigurationKey(
        "on_failure", .text(manifest.onFailure.rawValue), choices: ["fail", "skip"],
        "What happens when it cannot start: the engine does not start either, or it starts without the plugin."),
      ConfigurationKey("after", .list([]), "Plugins or roles that are started before it, beyond those that it needs."),
    ]
  }

  /// The keys of each table `drivers.<name>`.
  public static let driverKeys: [ConfigurationKey] = [
    ConfigurationKey("command", .list([]), "The executable and its arguments."),
    ConfigurationKey("enabled", .flag(true), "Whether it is started."),
    ConfigurationKey(
      "role", .text(""), choices: [""] + DriverRole.all.map(\.name),
      "The role that it must have; by default what it says of itself."),
    ConfigurationKey("environment", .list([]), "Variables as NAME=VALUE, beside PATH, HOME and LANG."),
    ConfigurationKey(
      "deadline_seconds", .integer(30), range: 1...3600, "Seconds in which it must answer each message."),
  ]

  public func engine(_ name: String) -> ConfigurationValue {
    engine[name] ?? Self.engineKeys.first { $0.name == name }?.standard ?? .text("")
  }

  public func defaultDriver(_ role: String) -> String {
    if let name = defaults[role], !name.isEmpty { return name }
    guard case .text(let name) = Self.defaultKeys.first(where: { $0.name == role })?.standard else { return "" }
    return name
  }

  /// A plugin's manifest as the file changes it.
  public func manifest(_ manifest: PluginManifest) -> PluginManifest {
    guard let settings = plugins[manifest.name] else { return manifest }
    var manifest = manifest
    if let policy = settings.onFailure { manifest.onFailure = policy }
    manifest.dependencies += settings.after.filter { !manifest.dependencies.contains($0) }
    return manifest
  }

  public func isEnabled(_ plugin: String) -> Bool { plugins[plugin]?.isEnabled ?? true }

  /// What each plugin is given, in text.
  public var pluginValues: [String: [String: String]] {
    plugins.mapValues { $0.values.mapValues(\.string) }
  }

  /// The whole default as a file, each key explained.
  public static func standardText(_ manifests: [PluginManifest]) -> String {
    var text = """
      # The configuration of an engine, with every key at its default.
      # It is read when the daemon starts: engine --config FILE, or <root>/engine.toml, or for the instance at
      # /var/lib/engine also /etc/engine/engine.toml. A file needs only the keys that differ.

      [engine]

      """
    text += keys(engineKeys) + "\n[defaults]\n" + keys(defaultKeys)
    for manifest in manifests {
      text += "\n[plugins.\(manifest.name)]\n"
      let driver = manifest.driver.isEmpty ? "" : ", driver \"\(manifest.driver)\""
      text += "# Role \"\(manifest.role)\"\(driver).\n"
      text += keys(commonKeys(of: manifest) + manifest.keys)
    }
    text += "\n# Drivers out of tree: one table each, named as they are to be called in plugin ls.\n#\n"
    text += "# [drivers.example]\n"
    for line in keys(driverKeys).split(separator: "\n") { text += "# \(line)\n" }
    text += "#\n# [drivers.example.options]    # passed on to the driver as they are\n# place = \"/srv\"\n"
    return text
  }

  private static func keys(_ keys: [ConfigurationKey]) -> String {
    keys.map { "\(wrapped($0.explanation))\($0.name) = \($0.standard.toml)\n" }.joined()
  }

  /// A comment of at most 100 columns a line.
  private static func wrapped(_ text: String) -> String {
    var lines: [String] = []
    for word in text.split(separator: " ") {
      if let last = lines.last, last.utf8.count + word.utf8.count < 100 {
        lines[lines.count - 1] = "\(last) \(word)"
      } else {
        lines.append("# \(word)")
      }
    }
    return lines.map { $0 + "\n" }.joined()
  }
}

/// A driver that is a program of its own.
public struct ExternalDriver: Sendable, Equatable {
  /// As `plugin ls` calls it; its driver's name unless it says another one.
  public var name: String
  public var command: [String]
  /// The role that it must have, or empty for what it says.
  public var role = ""
  public var environment: [String] = []
  public var deadline = Duration.seconds(30)
  /// Passed on when it is started.
  public var options: [String: String] = [:]

  public init(name: String, command: [String]) {
    self.name = name
    self.command = command
  }

  /// What a file in a plugin directory is called as a driver: its name up to the first point.
  ///
  /// - Returns: nil for files that are none: hidden ones, and an editor's copies.
  public static func name(ofFile file: String) -> String? {
    if file.hasPrefix(".") || file.hasSuffix("~") { return nil }
    return file.split(separator: ".").first.map(String.init)
  }
}
