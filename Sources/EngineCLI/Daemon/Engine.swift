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

  /// How often a daemon is looked for, and started, that greets.
  private static let attempts = 5

  /// - Throws: `unavailable` when no daemon listens and none can be started, or when each one ends before it greets.
  static func connect(_ global: GlobalOptions) throws(EngineError) -> Client {
    if let socket = global.socket { return try Client(path: socket) }
    let paths = paths(global)
    return try Client { (attempt) throws(EngineError) in
      guard attempt < attempts else {
        throw EngineError(.unavailable, "the engine ended before it answered, \(attempts) times; see \(paths.log)")
      }
      if let socket = try Engine.attempt(paths) { return socket }
      return try DaemonStarter(paths: paths).start()
    }
  }

  /// - Returns: nil when nobody listens.
  static func attempt(_ paths: InstancePaths) throws(EngineError) -> OwnedDescriptor? {
    var status = stat()
    if stat(paths.socket, &status) != 0 {
      guard errno == EACCES else { return nil }
      throw denied(paths)
    }
    do {
      return try UnixSocket.connect(paths.socket)
    } catch {
      guard access(paths.socket, R_OK | W_OK) != 0, errno == EACCES else { return nil }
      throw denied(paths)
    }
  }

  private static func denied(_ paths: InstancePaths) -> EngineError {
    EngineError(
      .permissionDenied,
      "permission denied while trying to connect to the engine's socket at \(paths.socket): run it as root")
  }
}

enum Environment {
  static func value(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
