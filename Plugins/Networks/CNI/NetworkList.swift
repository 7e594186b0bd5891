import Contracts
import LinuxSystem
import Wire

/// A network configuration list (CNI specification 1.1, section 1): plugins that are run one after the other.
struct NetworkList: Sendable {
  let name: String
  let version: String
  let disablesCheck: Bool
  /// Each plugin's configuration as it stands in the file.
  let plugins: [JSONValue]
  /// The whole list, kept beside each attachment: what was added is deleted by the configuration of then.
  let text: String

  /// - Parameter text: a `.conflist`, or the configuration of one plugin alone, as older files have it.
  /// - Throws: `invalidArgument` that says what is missing.
  init(parsing text: String, path: String) throws(EngineError) {
    let value: JSONValue
    do throws(EngineError) {
      value = try JSON.parse(text.utf8)
    } catch {
      throw EngineError(.invalidArgument, "\(path) is not JSON", because: error)
    }
    guard case .string(let name) = value["name"], !name.isEmpty else {
      throw EngineError(.invalidArgument, "\(path) has no name")
    }
    self.name = name
    self.text = text
    if case .string(let version) = value["cniVersion"] { self.version = version } else { version = "0.2.0" }
    if case .boolean(true) = value["disableCheck"] { disablesCheck = true } else { disablesCheck = false }
    if case .array(let plugins) = value["plugins"] {
      self.plugins = plugins
    } else if value["type"] != nil {
      plugins = [value]
    } else {
      plugins = []
    }
    guard !plugins.isEmpty else { throw EngineError(.invalidArgument, "\(path) names no plugins") }
    for plugin in plugins {
      guard case .string(let type) = plugin["type"], !type.isEmpty, !type.utf8.contains(47) else {
        throw EngineError(.invalidArgument, "a plugin in \(path) has no type")
      }
    }
  }

  /// Whether the version is at least another one: `1.1.0`.
  func isAtLeast(_ major: Int, _ minor: Int) -> Bool {
    let parts = version.split(separator: ".").map { Int($0) ?? 0 }
    guard parts.count >= 2 else { return false }
    return (parts[0], parts[1]) >= (major, minor)
  }

  func supports(_ capability: String) -> Bool { plugins.contains { Self.has(capability, $0) } }

  static func has(_ capability: String, _ plugin: JSONValue) -> Bool {
    plugin["capabilities"]?[capability] == .boolean(true)
  }

  /// The subnet of the first plugin's address management, where it says one.
  var subnet: String? {
    guard let ipam = plugins[0]["ipam"] else { return nil }
    if case .string(let subnet) = ipam["subnet"] { return subnet }
    guard case .array(let sets) = ipam["ranges"], case .array(let ranges)? = sets.first,
      case .string(let subnet)? = ranges.first?["subnet"]
    else { return nil }
    return subnet
  }

  /// The lists of some directories in the order of their files' names, which is the order of preference.
  static func find(in directories: [String]) -> [(path: String, list: Result<NetworkList, EngineError>)] {
    var found: [(path: String, list: Result<NetworkList, EngineError>)] = []
    for directory in directories {
      for file in ((try? Files.list(directory)) ?? []).sorted()
      where [".conflist", ".conf", ".json"].contains(where: { file.hasSuffix($0) }) {
        let path = "\(directory)/\(file)"
        do throws(SystemCallError) {
          let text = try Files.readText(path, limit: 1 << 20)
          found.append((path, Result { () throws(EngineError) in try NetworkList(parsing: text, path: path) }))
        } catch {
          found.append((path, .failure(EngineError(.invalidArgument, "\(error)"))))
        }
      }
    }
    return found
  }
}
