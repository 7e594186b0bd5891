import Contracts
import Glibc
import LinuxSystem
import Wire

/// Where a plugin of Docker's protocol listens.
enum PluginAddress: Sendable, Equatable {
  case unix(String)
  case tcp(host: String, port: UInt16)

  /// - Throws: `invalidArgument` for what is neither `unix:///path` nor `tcp://host:port`.
  init(_ text: String) throws(EngineError) {
    if text.hasPrefix("unix://"), text.utf8.count > 7 {
      self = .unix(String(text.dropFirst(7)))
      return
    }
    for scheme in ["tcp://", "http://"] where text.hasPrefix(scheme) {
      let rest = text.dropFirst(scheme.utf8.count).prefix { $0 != "/" }
      guard let colon = rest.lastIndex(of: ":"), let port = UInt16(rest[rest.index(after: colon)...]) else { break }
      self = .tcp(host: String(rest[..<colon]), port: port)
      return
    }
    throw EngineError(.invalidArgument, "\"\(text)\" is no address of a plugin: it is unix:///path or tcp://host:port")
  }
}

/// Finds plugins as Docker does (moby, pkg/plugins/discovery.go): sockets `name.sock`, and files `name.spec` with an
/// address or `name.json` with `{"Name", "Addr"}`, each also in a directory of the plugin's name.
enum PluginDiscovery {
  private struct JSONFile: Decodable {
    struct Security: Decodable {
      var InsecureSkipVerify: Bool?
    }
    var Name: String?
    var Addr: String
    var TLSConfig: Security?
  }

  /// Name to address, or to what is wrong with its file; the first directory that has a name counts.
  static func find(in directories: [String]) -> [String: Result<PluginAddress, EngineError>] {
    var found: [String: Result<PluginAddress, EngineError>] = [:]
    for directory in directories {
      for entry in ((try? Files.list(directory)) ?? []).sorted() {
        let path = "\(directory)/\(entry)"
        if Files.isDirectory(path) {
          for suffix in ["sock", "spec", "json"] { note("\(path)/\(entry).\(suffix)", &found) }
        } else {
          note(path, &found)
        }
      }
    }
    return found
  }

  private static func note(_ path: String, _ found: inout [String: Result<PluginAddress, EngineError>]) {
    let file = path.split(separator: "/").last ?? ""
    guard let dot = file.lastIndex(of: "."), dot != file.startIndex, let status = Files.status(path) else { return }
    let name = String(file[..<dot])
    if found[name] != nil { return }
    do throws(EngineError) {
      switch file[dot...] {
      case ".sock" where status.st_mode & S_IFMT == S_IFSOCK: found[name] = .success(.unix(path))
      case ".spec":
        let text = try read(path).split(whereSeparator: \.isWhitespace).first.map(String.init) ?? ""
        found[name] = .success(try PluginAddress(text))
      case ".json":
        let file = try JSON.decode(JSONFile.self, try read(path).utf8)
        if file.TLSConfig != nil {
          throw EngineError(.unsupported, "\(path) asks for TLS, which the engine does not speak with plugins")
        }
        found[file.Name ?? name] = .success(try PluginAddress(file.Addr))
      default: return
      }
    } catch {
      found[name] = .failure(EngineError(error.code, "\(path): \(error.message)", causes: error.causes))
    }
  }

  private static func read(_ path: String) throws(EngineError) -> String {
    do {
      return try Files.readText(path, limit: 64 << 10)
    } catch {
      throw EngineError(.invalidArgument, "it cannot be read: \(error)")
    }
  }
}
