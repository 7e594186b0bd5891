import Contracts

/// `nofile=1024:2048`, in the words of getrlimit(2); -1 is unlimited.
enum Ulimit {
  static let names: Set<String> = [
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
  ]

  static func parse(_ text: String) throws(EngineError) -> RuntimeSpecification.Process.ResourceLimit {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2 else { throw EngineError(.invalidArgument, "invalid ulimit argument: \(text)") }
    guard names.contains(parts[0]) else { throw EngineError(.invalidArgument, "invalid ulimit type: \(parts[0])") }
    let values = parts[1].split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard values.count <= 2 else {
      throw EngineError(
        .invalidArgument,
        "too many limit value arguments - \(parts[1]), can only have up to two, "
          + "`soft[:hard]`")
    }
    let soft = try limit(values[0])
    let hard = values.count == 2 ? try limit(values[1]) : soft
    guard soft <= hard else {
      throw EngineError(
        .invalidArgument, "ulimit soft limit must be less than or equal to hard limit: \(values[0]) > \(values[1])")
    }
    return .init(name: parts[0], soft: soft, hard: hard)
  }

  private static func limit(_ text: String) throws(EngineError) -> UInt64 {
    let value = try Integer.parse(text)
    guard value >= -1 else { throw EngineError(.invalidArgument, "invalid ulimit value: \(text)") }
    return value == -1 ? .max : UInt64(value)
  }
}
