import LinuxSystem

enum ProcessState {
  /// The state letter of /proc/PID/stat, which stands behind the name in brackets; nil for no such process.
  static func letter(of pid: Int32) -> Character? {
    guard let text = try? Files.readText("/proc/\(pid)/stat"), let bracket = text.lastIndex(of: ")") else {
      return nil
    }
    return text[text.index(after: bracket)...].first { $0 != " " }
  }
}
