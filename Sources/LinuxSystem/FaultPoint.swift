import Glibc

/// Places where the crash test kills the process: each step that changes the host names itself, and the process whose
/// environment says `ENGINE_FAULT=<name>` dies there with SIGKILL, as if the power of that one process went off.
public enum FaultPoint {
  private static let chosen: String? = getenv("ENGINE_FAULT").map { String(cString: $0) }

  /// - Parameter name: `<plugin>.<operation>.<step>`, for example `bridge.attach.linked`.
  @inline(__always)
  public static func reach(_ name: StaticString) {
    guard let chosen else { return }
    if name.withUTF8Buffer({ $0.elementsEqual(chosen.utf8) }) { kill(getpid(), SIGKILL) }
  }
}
