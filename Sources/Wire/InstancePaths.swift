/// Where an instance of the engine keeps what it has. An instance is chosen by its root directory alone: everything
/// else follows from that path, so a client finds the daemon without asking anybody.
public struct InstancePaths: Sendable, Equatable {
  /// The root of the instance that a system has when nobody says otherwise.
  public static let defaultRoot = "/var/lib/engine"

  /// Durable state: absolute, without `.`, `..`, doubled or trailing slashes.
  public let root: String
  /// The low 32 bits of the FNV-1a 64-bit hash of `root`, as eight hexadecimal digits.
  public let hash: String

  /// - Parameters:
  ///   - root: as the user wrote it; an empty path is the default one.
  ///   - currentDirectory: what a relative path is relative to.
  public init(root: String, currentDirectory: String = "/") {
    let absolute =
      root.isEmpty ? Self.defaultRoot : root.utf8.first == 0x2F ? root : "\(currentDirectory)/\(root)"
    var components: [Substring] = []
    for component in absolute.split(separator: "/") {
      switch component {
      case ".": continue
      case "..": components = components.dropLast()
      default: components.append(component)
      }
    }
    self.root = "/" + components.joined(separator: "/")
    hash = Self.hash(of: self.root)
  }

  /// Sockets and all that a reboot clears. It is short, because a socket's path has 108 bytes (unix(7)).
  public var runtimeDirectory: String { "/run/engine/\(hash)" }
  /// Where the daemon listens.
  public var socket: String { "\(runtimeDirectory)/engine.sock" }
  /// Held with flock(2) by the client that starts the daemon, so that two clients start one.
  public var startLock: String { "\(runtimeDirectory)/start.lock" }
  /// What the daemon says when nobody listens.
  public var log: String { "\(runtimeDirectory)/engined.log" }
  /// Holds the path of the configuration file that the daemon read last, or nothing.
  public var configurationNote: String { "\(runtimeDirectory)/configuration" }
  /// Whether this is the one instance that may take `docker0` and its usual addresses.
  public var isDefault: Bool { root == Self.defaultRoot }

  private static func hash(of text: String) -> String {
    var value: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let digits = String(UInt32(truncatingIfNeeded: value), radix: 16)
    return String(repeating: "0", count: 8 - digits.utf8.count) + digits
  }
}
