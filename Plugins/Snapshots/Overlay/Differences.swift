import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Reads a writable layer as what it changes (overlayfs documentation, "whiteouts and opaque directories").
enum Differences {
  /// - Parameters:
  ///   - lower: the trees beneath, the topmost first.
  ///   - ignored: paths that count for nothing where the image has none.
  static func list(upper: String, lower: [String], ignored: Set<String>) throws(EngineError) -> [FileDifference] {
    var found: [FileDifference] = []
    do throws(SystemCallError) {
      _ = try walk(upper, "", lower, ignored, &found)
    } catch {
      throw EngineError(.internalFailure, "the container's layer cannot be read: \(error)")
    }
    return found
  }

  /// - Returns: whether something beneath was passed over.
  private static func walk(
    _ upper: String, _ directory: String, _ lower: [String], _ ignored: Set<String>, _ found: inout [FileDifference]
  ) throws(SystemCallError) -> Bool {
    let names: [String]
    do {
      names = try Files.list(upper + directory)
    } catch  where error.number == ENOENT {
      return false
    }
    var passesOver = false
    for name in names.sorted() {
      let path = "\(directory)/\(name)"
      var status = stat()
      guard lstat(upper + path, &status) == 0 else { continue }
      let below = present(path, lower)
      if status.st_mode & S_IFMT == S_IFCHR, status.st_rdev == 0 {
        if below != nil { found.append(FileDifference(kind: .deleted, path: path)) }
        continue
      }
      let isDirectory = status.st_mode & S_IFMT == S_IFDIR
      if below == nil, ignored.contains(path) {
        passesOver = true
        continue
      }
      let place = found.count
      found.append(FileDifference(kind: below == nil ? .added : .changed, path: path))
      guard isDirectory else { continue }
      // What an opaque directory hides of the layers beneath is gone.
      let hides = isOpaque(upper + path)
      let passed = try walk(upper, path, hides ? [] : lower, ignored, &found)
      // A directory that is here only because the engine made a place for a mount in it.
      if passed, found.count == place + 1, let below, below.st_mode == status.st_mode, below.st_uid == status.st_uid,
        below.st_gid == status.st_gid
      {
        found.removeLast()
        passesOver = true
      }
    }
    return passesOver
  }

  /// What the image has at a path, or nil: the topmost layer that says something decides.
  private static func present(_ path: String, _ lower: [String]) -> stat? {
    for tree in lower {
      var status = stat()
      if lstat(tree + path, &status) == 0 {
        return status.st_mode & S_IFMT == S_IFCHR && status.st_rdev == 0 ? nil : status
      }
      if hidesBelow(tree, path) { return nil }
    }
    return nil
  }

  /// Whether a directory above the path is no directory, or an opaque one, in this layer.
  private static func hidesBelow(_ tree: String, _ path: String) -> Bool {
    var prefix = ""
    for component in path.split(separator: "/").dropLast() {
      prefix += "/\(component)"
      var status = stat()
      guard lstat(tree + prefix, &status) == 0 else { return false }
      if status.st_mode & S_IFMT != S_IFDIR || isOpaque(tree + prefix) { return true }
    }
    return false
  }

  private static func isOpaque(_ path: String) -> Bool {
    var value: UInt8 = 0
    return lgetxattr(path, "trusted.overlay.opaque", &value, 1) == 1 && value == UInt8(ascii: "y")
  }
}
