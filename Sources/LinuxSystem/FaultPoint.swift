import Glibc

/// Places where the crash test kills the process: each step that changes the host names itself, and the process whose
/// environment says `ENGINE_FAULT=<name>` dies there with SIGKILL, as if the power of that one process went off. Before,
/// it adds the name to the file that `ENGINE_FAULT_LOG` names, so that a test knows what it has tested.
public enum FaultPoint {
  private static let chosen: String? = getenv("ENGINE_FAULT").map { String(cString: $0) }

  /// - Parameter name: `<plugin>.<operation>.<step>`, for example `bridge.attach.linked`.
  @inline(__always)
  public static func reach(_ name: StaticString) {
    guard let chosen else { return }
    if name.withUTF8Buffer({ $0.elementsEqual(chosen.utf8) }) { end(chosen) }
  }

  @inline(never)
  private static func end(_ name: String) {
    if let path = getenv("ENGINE_FAULT_LOG") {
      let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
      let line = Array("\(name)\n".utf8)
      _ = write(file, line, line.count)
      close(file)
    }
    kill(getpid(), SIGKILL)
  }
}
