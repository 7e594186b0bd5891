import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// The way to the daemon of an instance, which is started when nobody listens.
enum Engine {
  static func paths(_ global: GlobalOptions) -> InstancePaths {
    let root = global.root.isEmpty ? Environment.value("ENGINE_ROOT") ?? "" : global.root
    let isRelative = !root.isEmpty && !root.hasPrefix("/")
    return InstancePaths(root: root, currentDirectory: isRelative ? WorkingDirectory.current : "/")
  }

  /// - Throws: `unavailable` when no daemon listens and none can be started.
  static func connect(_ global: GlobalOptions) throws(EngineError) -> Client {
    if let socket = global.socket { return try Client(path: socket) }
    let paths = paths(global)
    if let client = try attempt(paths) { return client }
    return try DaemonStarter(paths: paths).start()
  }

  /// - Returns: nil when nobody listens.
  static func attempt(_ paths: InstancePaths) throws(EngineError) -> Client? {
    var status = stat()
    if stat(paths.socket, &status) != 0 {
      guard errno == EACCES else { return nil }
      throw EngineError(
        .permissionDenied,
        "permission denied while trying to connect to the engine's socket at \(paths.socket): run it as root")
    }
    do {
      return try Client(path: paths.socket)
    } catch  where error.code == .unavailable {
      guard access(paths.socket, R_OK | W_OK) != 0, errno == EACCES else { return nil }
      throw EngineError(
        .permissionDenied,
        "permission denied while trying to connect to the engine's socket at \(paths.socket): run it as root")
    }
  }
}

enum Environment {
  static func value(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
