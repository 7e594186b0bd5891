import Contracts

/// What one `--mount` mounts: comma-separated `key=value` fields in the form of RFC 4180, so that a field with a
/// comma can be quoted.
struct MountSpecification {
  static func parse(_ text: String) throws(EngineError) -> MountRequest {
    var mount = MountRequest(kind: .volume, source: "", target: "")
    var kind = "volume"
    var keys: [String] = []
    func refuse(_ key: String, _ value: String) -> EngineError {
      EngineError(.invalidArgument, "invalid value for \(key): \(value)")
    }
    for field in try CommaSeparated.fields(text) {
      let parts = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let key = parts[0].lowercased()
      keys.append(key)
      if parts.count == 1 {
        switch key {
        case "readonly", "ro": mount.isReadOnly = true
        case "volume-nocopy": mount.copiesImage = false
        case "bind-nonrecursive": mount.isRecursive = false
        case "bind-create-src": mount.createsSource = true
        default: throw EngineError(.invalidArgument, "invalid field '\(field)' must be a key=value pair")
        }
        continue
      }
      let value = parts[1]
      func truth() throws(EngineError) -> Bool {
        do { return try Truth.parse(value) } catch { throw refuse(key, value) }
      }
      func pair() -> (String, String) {
        let pair = value.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        return (pair[0], pair.count == 2 ? pair[1] : "")
      }
      switch key {
      case "type": kind = value.lowercased()
      case "source", "src": mount.source = value
      case "target", "dst", "destination": mount.target = value
      case "readonly", "ro": mount.isReadOnly = try truth()
      case "consistency",
        "bind-recursive" where value == "enabled":
        continue
      case "bind-recursive" where value == "disabled": mount.isRecursive = false
      case "bind-propagation":
        guard VolumeSpecification.propagations.contains(value) else { throw refuse(key, value) }
        mount.propagation = value
      case "bind-nonrecursive": mount.isRecursive = try !truth()
      case "bind-create-src": mount.createsSource = try truth()
      case "volume-nocopy": mount.copiesImage = try !truth()
      case "volume-subpath": mount.subpath = value
      case "volume-driver": mount.driver = value
      case "volume-label": mount.labels[pair().0] = pair().1
      case "volume-opt": mount.driverOptions[pair().0] = pair().1
      case "tmpfs-size":
        do { mount.tmpfsOptions.append("size=\(try ByteSize(parsing: value).bytes)") } catch {
          throw refuse(key, value)
        }
      case "tmpfs-mode":
        guard let mode = UInt16(value, radix: 8), mode <= 0o7777 else { throw refuse(key, value) }
        mount.tmpfsOptions.append("mode=\(value)")
      case "bind-recursive": throw refuse(key, value)
      default: throw EngineError(.invalidArgument, "unexpected key '\(key)' in '\(field)'")
      }
    }
    try finish(&mount, kind: kind, keys: keys)
    return mount
  }

  private static func finish(_ mount: inout MountRequest, kind: String, keys: [String]) throws(EngineError) {
    guard let known = MountRequest.Kind(rawValue: kind) else {
      throw EngineError(
        .invalidArgument, "mount type \"\(kind)\" is not known: it must be \"volume\", \"bind\" or \"tmpfs\"")
    }
    mount.kind = known
    guard !mount.target.isEmpty else { throw EngineError(.invalidArgument, "target is required") }
    guard mount.target.hasPrefix("/") else {
      throw EngineError(.invalidArgument, "invalid mount path: '\(mount.target)' mount path must be absolute")
    }
    guard HostPath.normalized(mount.target) != "/" else {
      throw EngineError(.invalidArgument, "invalid specification: destination can't be '/'")
    }
    for kind in MountRequest.Kind.allKinds where kind != known {
      if keys.contains(where: { $0.hasPrefix("\(kind.rawValue)-") }) {
        throw EngineError(
          .invalidArgument, "cannot mix '\(kind.rawValue)-*' options with mount type '\(known.rawValue)'")
      }
    }
    switch known {
    case .bind:
      guard !mount.source.isEmpty else {
        throw EngineError(.invalidArgument, "invalid mount config for type \"bind\": field Source must not be empty")
      }
      guard mount.source.hasPrefix("/") else {
        throw EngineError(
          .invalidArgument, "invalid mount config for type \"bind\": source path must be absolute: \(mount.source)")
      }
    case .tmpfs:
      guard mount.source.isEmpty else {
        throw EngineError(
          .invalidArgument, "invalid mount config for type \"tmpfs\": field Source must not be specified")
      }
    case .volume:
      guard mount.source.isEmpty || ObjectName.isValid(mount.source) else {
        throw EngineError(
          .invalidArgument, "\"\(mount.source)\" is not a volume's name: use type=bind for a directory of the host")
      }
    }
  }
}

extension MountRequest.Kind {
  static let allKinds: [MountRequest.Kind] = [.volume, .bind, .tmpfs]
}

/// One record of comma-separated values (RFC 4180), as Go's encoding/csv reads it.
enum CommaSeparated {
  static func fields(_ text: String) throws(EngineError) -> [String] {
    var fields: [String] = []
    var field = ""
    var isQuoted = false
    var characters = text[...]
    while let character = characters.popFirst() {
      switch character {
      case "\"" where isQuoted:
        if characters.first == "\"" {
          characters.removeFirst()
          field.append("\"")
        } else {
          isQuoted = false
        }
      case "\"" where field.isEmpty: isQuoted = true
      case "," where !isQuoted:
        fields.append(field)
        field = ""
      default: field.append(character)
      }
    }
    guard !isQuoted else { throw EngineError(.invalidArgument, "extraneous or missing \" in quoted-field") }
    return fields + [field]
  }
}

/// `--tmpfs /run:size=64m,noexec`.
enum TmpfsSpecification {
  static func parse(_ text: String) throws(EngineError) -> MountRequest {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts[0].hasPrefix("/"), HostPath.normalized(parts[0]) != "/" else {
      throw EngineError(
        .invalidArgument, "invalid tmpfs path '\(parts[0])': it must be absolute and beneath the root")
    }
    let options = parts.count == 2 ? parts[1].split(separator: ",").map(String.init) : []
    return MountRequest(
      kind: .tmpfs, source: "", target: parts[0], isReadOnly: options.contains("ro"), tmpfsOptions: options)
  }
}
