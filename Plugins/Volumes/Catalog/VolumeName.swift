import Contracts

/// The names of volumes and the paths in mounts, checked in Docker's words (moby, volume/mounts/linux_parser.go).
enum VolumeName {
  /// Bytes: the longest component of a path.
  static let maximumLength = 255

  /// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`: it becomes a directory's name, so nothing of a path may be in it.
  static func check(_ name: String) throws(EngineError) {
    let bytes = Array(name.utf8)
    if bytes.count == 1 {
      throw EngineError(
        .invalidArgument, "volume name is too short, names should be at least two alphanumeric characters")
    }
    if bytes.count > maximumLength {
      throw EngineError(.invalidArgument, "volume name is too long, names can be at most \(maximumLength) characters")
    }
    guard let first = bytes.first, first.isAlphanumeric,
      bytes.allSatisfy({ $0.isAlphanumeric || $0 == 95 || $0 == 46 || $0 == 45 })
    else {
      throw EngineError(
        .invalidArgument,
        "create \(name): \"\(name)\" includes invalid characters for a local volume name, only "
          + "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path")
    }
  }

  /// A path without empty, `.` and `..` components, by its letters alone (Go's path.Clean on an absolute path).
  static func clean(_ path: String) -> String {
    var result: [Substring] = []
    for component in path.split(separator: "/") where component != "." {
      if component == ".." {
        _ = result.popLast()
      } else {
        result.append(component)
      }
    }
    return "/" + result.joined(separator: "/")
  }
}

extension UInt8 {
  fileprivate var isAlphanumeric: Bool {
    (48...57).contains(self) || (65...90).contains(self) || (97...122).contains(self)
  }
}
