import Contracts

/// What one `-v` mounts: `name:/path[:options]`, `/host:/path[:options]` or `/path` for an anonymous volume.
struct VolumeSpecification {
  static let propagations: Set<String> = ["shared", "slave", "private", "rshared", "rslave", "rprivate"]

  /// - Parameter currentDirectory: what `./dir` and `~` free relative host paths are relative to.
  static func parse(_ text: String, currentDirectory: String) throws(EngineError) -> MountRequest {
    guard !text.isEmpty else { throw EngineError(.invalidArgument, "invalid empty volume spec") }
    let fields = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    func refuse(_ why: String) -> EngineError {
      EngineError(.invalidArgument, "invalid volume specification: '\(text)': \(why)")
    }
    guard !fields.contains("") else {
      throw EngineError(.invalidArgument, "invalid spec: \(text): empty section between colons")
    }
    guard fields.count <= 3 else { throw EngineError(.invalidArgument, "invalid volume specification: '\(text)'") }
    if fields.count == 1 {
      try checkTarget(fields[0], refuse)
      return MountRequest(kind: .volume, source: "", target: fields[0])
    }
    let source = fields[0]
    try checkTarget(fields[1], refuse)
    var mount: MountRequest
    if source.hasPrefix("/") || source.hasPrefix(".") {
      let path = source.hasPrefix("/") ? source : HostPath.absolute(source, in: currentDirectory)
      mount = MountRequest(kind: .bind, source: path, target: fields[1], createsSource: true)
    } else {
      guard ObjectName.isValid(source) else {
        throw refuse(
          "\"\(source)\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are "
            + "allowed. If you intended to pass a host directory, use absolute path")
      }
      mount = MountRequest(kind: .volume, source: source, target: fields[1])
    }
    if fields.count == 3 { try apply(fields[2], to: &mount, refuse) }
    return mount
  }

  private static func checkTarget(_ target: String, _ refuse: (String) -> EngineError) throws(EngineError) {
    guard target.hasPrefix("/") else { throw refuse("mount path must be absolute: \(target)") }
    guard HostPath.normalized(target) != "/" else { throw refuse("destination can't be '/'") }
  }

  private static func apply(
    _ options: String, to mount: inout MountRequest, _ refuse: (String) -> EngineError
  ) throws(EngineError) {
    var modes: Set<String> = []
    for option in options.split(separator: ",", omittingEmptySubsequences: false).map(String.init) {
      switch option {
      case "ro", "rw":
        guard modes.insert("access").inserted else { throw refuse("invalid mode: \(options)") }
        mount.isReadOnly = option == "ro"
      case "z", "Z", "consistent", "cached", "delegated": continue
      case "nocopy" where mount.kind == .volume: mount.copiesImage = false
      case _ where propagations.contains(option) && mount.kind == .bind:
        guard modes.insert("propagation").inserted else { throw refuse("invalid mode: \(options)") }
        mount.propagation = option
      default: throw refuse("invalid mode: \(options)")
      }
    }
  }
}

/// Paths of the host as text, without asking the file system.
enum HostPath {
  static func absolute(_ path: String, in directory: String) -> String {
    normalized(path.hasPrefix("/") ? path : "\(directory)/\(path)")
  }

  /// Without `.`, `..`, doubled and trailing slashes.
  static func normalized(_ path: String) -> String {
    var components: [Substring] = []
    for component in path.split(separator: "/") {
      switch component {
      case ".": continue
      case "..": components = components.dropLast()
      default: components.append(component)
      }
    }
    return "/" + components.joined(separator: "/")
  }
}

/// Names of containers, volumes and networks: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
enum ObjectName {
  static func isValid(_ text: String) -> Bool {
    guard let first = text.utf8.first, isAlphanumeric(first), text.utf8.count >= 2 else { return false }
    return text.utf8.allSatisfy { isAlphanumeric($0) || $0 == 0x5F || $0 == 0x2E || $0 == 0x2D }
  }

  static func checkContainer(_ text: String) throws(EngineError) {
    let name = text.hasPrefix("/") ? String(text.dropFirst()) : text
    guard isValid(name) else {
      throw EngineError(
        .invalidArgument, "Invalid container name (\(text)), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    }
  }

  private static func isAlphanumeric(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
  }
}
