import Contracts
import Kernel
import LinuxSystem
import TOMLKit

/// Reads a configuration file in TOML (https://toml.io/en/v1.0.0) against the keys that the plugins declare.
public enum ConfigurationFile {
  /// One thing that is wrong with a file.
  public struct Complaint: Sendable, Equatable, CustomStringConvertible {
    public var path: String
    /// From 1 on.
    public var line: Int
    public var text: String

    public var description: String { "\(path):\(line): \(text)" }
  }

  /// - Throws: `invalidArgument` with every complaint, one a line.
  public static func read(_ path: String, manifests: [PluginManifest]) throws(EngineError) -> EngineConfiguration {
    let text: String
    do {
      text = try Files.readText(path, limit: 1 << 20)
    } catch {
      throw EngineError(
        .invalidArgument,
        "the configuration cannot be read: \(error); --config names another, and --config \"\" the default one")
    }
    let (configuration, complaints) = parse(text, path: path, manifests: manifests)
    if complaints.isEmpty { return configuration }
    throw EngineError(.invalidArgument, complaints.map(\.description).joined(separator: "\n"))
  }

  /// - Parameter path: the file's name, for the complaints.
  public static func parse(
    _ text: String, path: String, manifests: [PluginManifest]
  ) -> (EngineConfiguration, [Complaint]) {
    let table: TOMLTable
    do {
      table = try TOMLTable(string: text)
    } catch let error as TOMLParseError {
      return (EngineConfiguration(), [Complaint(path: path, line: error.source.begin.line, text: error.description)])
    } catch {
      return (EngineConfiguration(), [Complaint(path: path, line: 1, text: "\(error)")])
    }
    var reader = ConfigurationReader(path: path, locator: KeyLocator(text))
    reader.read(table, manifests)
    return (reader.configuration, reader.complaints.sorted { $0.line < $1.line })
  }
}

/// Walks the tables of one file.
struct ConfigurationReader {
  private let path: String
  private let locator: KeyLocator
  private(set) var configuration = EngineConfiguration()
  private(set) var complaints: [ConfigurationFile.Complaint] = []

  init(path: String, locator: KeyLocator) {
    self.path = path
    self.locator = locator
  }

  private mutating func complain(_ place: [String], _ text: String) {
    complaints.append(.init(path: path, line: locator.line(of: place), text: text))
  }

  private mutating func unknown(_ place: [String], _ what: String, among known: [String]) {
    let name = place.last ?? ""
    let hint = Suggestion.nearest(to: name, among: known).map { "; did you mean \"\($0)\"?" }
    let container = place.count > 1 ? " in [\(place.dropLast().joined(separator: "."))]" : ""
    complain(place, "unknown \(what) \"\(name)\"\(container)\(hint ?? "; there is: \(known.joined(separator: ", "))")")
  }

  mutating func read(_ table: TOMLTable, _ manifests: [PluginManifest]) {
    let sections = ["engine", "defaults", "plugins", "drivers"]
    for key in table.keys {
      guard sections.contains(key) else {
        unknown([key], "table", among: sections)
        continue
      }
      guard let inner = table[key]?.table else {
        complain([key], "\(key) must be a table")
        continue
      }
      switch key {
      case "engine": configuration.engine = values(inner, [key], EngineConfiguration.engineKeys)
      case "defaults":
        for (role, value) in values(inner, [key], EngineConfiguration.defaultKeys) {
          configuration.defaults[role] = value.string
        }
      case "plugins": readPlugins(inner, manifests)
      default: readDrivers(inner, manifests)
      }
    }
    warnOfUnknownDefaults(manifests)
    if complaints.isEmpty { complainOfTheSet(manifests) }
  }

  /// What is correct key by key and yet no set of plugins that can start.
  private mutating func complainOfTheSet(_ manifests: [PluginManifest]) {
    let enabled = manifests.filter { configuration.isEnabled($0.name) }.map(configuration.manifest)
    for manifest in enabled {
      for dependency in manifest.dependencies {
        func provides(_ other: PluginManifest) -> Bool {
          other.name == dependency || (other.role == dependency && other.name != manifest.name)
        }
        guard !enabled.contains(where: provides), let off = manifests.first(where: provides) else { continue }
        complain(
          ["plugins", off.name, "enabled"],
          "the plugin \(manifest.name) needs \(off.name), so that cannot be switched off alone")
      }
    }
    do throws(EngineError) {
      _ = try PluginManager.order(enabled)
    } catch {
      guard error.code == .invalidArgument else { return }
      let circle = error.message.split(separator: " ").map(String.init)
      let after = configuration.plugins.filter { circle.contains($0.key) && !$0.value.after.isEmpty }.keys.min() ?? ""
      complain(["plugins", after, "after"], error.message)
    }
  }

  /// A default that nothing known answers for may still be found when the engine runs, so it is no error.
  private mutating func warnOfUnknownDefaults(_ manifests: [PluginManifest]) {
    for role in EngineConfiguration.defaultKeys.map(\.name).sorted() {
      let driver = configuration.defaultDriver(role)
      let builtin = manifests.filter { manifest in
        manifest.role == role && !manifest.driver.isEmpty && configuration.isEnabled(manifest.name)
      }
      let outside = configuration.drivers.filter { $0.role.isEmpty || $0.role == role }.map(\.name)
      let known = Set(builtin.map(\.driver) + outside + driversInDirectories())
      if known.contains(driver) { continue }
      if configuration.defaults[role, default: ""].isEmpty {
        // The standard one, which this file may switch off.
        guard let off = manifests.first(where: { $0.role == role && $0.driver == driver }) else { continue }
        let line = locator.line(of: ["plugins", off.name, "enabled"])
        configuration.warnings.append(
          "\(path):\(line): warning: \"\(driver)\" is the default \(role) driver and is switched off; name another one "
            + "with \(role) = \"...\" in [defaults]")
        continue
      }
      let place = ["defaults", role]
      let other =
        role == "network"
        ? "it can only be the name of a network then, or that of a driver that"
        : "the engine can only use it if a driver of this name"
      let text =
        "warning: defaults.\(role) names no driver that is known: \"\(driver)\"; there is: "
        + "\(known.sorted().joined(separator: ", ")); \(other) is put into a plugin directory"
      configuration.warnings.append("\(path):\(locator.line(of: place)): \(text)")
    }
  }

  /// The names of the files in the plugin directories; a relative one is looked for beside the file, where that is the
  /// instance's own.
  private func driversInDirectories() -> [String] {
    guard case .list(let directories) = configuration.engine("plugin_directories") else { return [] }
    let beside = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    return directories.flatMap { directory in
      ((try? Files.list(directory.hasPrefix("/") ? directory : beside + directory)) ?? [])
        .compactMap(ExternalDriver.name(ofFile:))
    }
  }

  private mutating func readPlugins(_ table: TOMLTable, _ manifests: [PluginManifest]) {
    for name in table.keys {
      guard let manifest = manifests.first(where: { $0.name == name }) else {
        unknown(["plugins", name], "plugin", among: manifests.map(\.name))
        continue
      }
      guard let inner = table[name]?.table else {
        complain(["plugins", name], "plugins.\(name) must be a table")
        continue
      }
      var read = values(inner, ["plugins", name], EngineConfiguration.commonKeys(of: manifest) + manifest.keys)
      var settings = EngineConfiguration.PluginSettings()
      if case .flag(let flag) = read.removeValue(forKey: "enabled") { settings.isEnabled = flag }
      if case .text(let text) = read.removeValue(forKey: "on_failure") {
        settings.onFailure = PluginManifest.FailurePolicy(rawValue: text)
      }
      if case .list(let names) = read.removeValue(forKey: "after") {
        settings.after = names
        let known = manifests.flatMap { [$0.name, $0.role] }
        for other in names where !known.contains(other) {
          let hint = Suggestion.nearest(to: other, among: known).map { "; did you mean \"\($0)\"?" } ?? ""
          complain(["plugins", name, "after"], "plugins.\(name).after names no plugin or role: \"\(other)\"\(hint)")
        }
      }
      settings.values = read
      configuration.plugins[name] = settings
    }
  }

  private mutating func readDrivers(_ table: TOMLTable, _ manifests: [PluginManifest]) {
    for name in table.keys {
      let place = ["drivers", name]
      guard let inner = table[name]?.table else {
        complain(place, "drivers.\(name) must be a table")
        continue
      }
      if manifests.contains(where: { $0.name == name }) {
        complain(place, "\"\(name)\" is the name of a built-in plugin; choose another one for the driver")
      }
      let read = values(inner, place, EngineConfiguration.driverKeys, alsoTables: ["options"])
      let isEnabled = read["enabled"] != .flag(false)
      if !isEnabled { configuration.disabledDrivers.insert(name) }
      guard case .list(let command) = read["command"], let executable = command.first else {
        // One of another type has been complained about; one that is not started needs none.
        if isEnabled, inner["command"]?.type ?? .array == .array {
          complain(place, "drivers.\(name) needs command = [\"/path/of/the/driver\", ...]")
        }
        continue
      }
      if !executable.hasPrefix("/") {
        complain(place + ["command"], "drivers.\(name).command must begin with an absolute path, not \"\(executable)\"")
      }
      var driver = ExternalDriver(name: name, command: command)
      driver.role = read["role"]?.string ?? ""
      if case .list(let environment) = read["environment"] { driver.environment = environment }
      if case .integer(let seconds) = read["deadline_seconds"] { driver.deadline = .seconds(seconds) }
      if let options = inner["options"] {
        if let options = options.table {
          for key in options.keys {
            guard let value = options[key], let text = Self.value(value) else {
              complain(place + ["options", key], "an option of a driver is a string, a number or true or false")
              continue
            }
            driver.options[key] = text.string
          }
        } else {
          complain(place + ["options"], "drivers.\(name).options must be a table")
        }
      }
      if isEnabled { configuration.drivers.append(driver) }
    }
  }

  /// The values of one table that its keys allow; the others are complained about.
  private mutating func values(
    _ table: TOMLTable, _ place: [String], _ keys: [ConfigurationKey], alsoTables: [String] = []
  ) -> [String: ConfigurationValue] {
    var result: [String: ConfigurationValue] = [:]
    for name in table.keys where !alsoTables.contains(name) {
      guard let key = keys.first(where: { $0.name == name }) else {
        unknown(place + [name], "key", among: keys.map(\.name) + alsoTables)
        continue
      }
      let dotted = (place + [name]).joined(separator: ".")
      guard let node = table[name], let value = Self.value(node) else {
        let kind = table[name].map { Self.kind($0.type) } ?? "nothing"
        complain(place + [name], "\(dotted) must be \(key.standard.kind), not \(kind)")
        continue
      }
      if let complaint = key.complaint(about: value) {
        complain(place + [name], "\(dotted) \(complaint)")
      } else {
        result[name] = value
      }
    }
    return result
  }

  /// - Returns: nil for a value of a kind that no key has.
  private static func value(_ node: any TOMLValueConvertible) -> ConfigurationValue? {
    switch node.type {
    case .string: return node.string.map { .text($0) }
    case .int: return node.int.map { .integer($0) }
    case .bool: return node.bool.map { .flag($0) }
    case .array:
      guard let array = node.array else { return nil }
      var elements: [String] = []
      for index in 0..<array.count {
        guard array[index].type == .string, let text = array[index].string else { return nil }
        elements.append(text)
      }
      return .list(elements)
    default: return nil
    }
  }

  private static func kind(_ type: TOMLType) -> String {
    switch type {
    case .table: "a table"
    case .array: "a list of something else"
    case .double: "a number with a fraction"
    case .date, .time, .dateTime: "a date or time"
    case .string: "a string"
    case .int: "a whole number"
    case .bool: "true or false"
    }
  }
}
