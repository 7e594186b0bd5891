import Contracts

/// The counters of a container's groups as the kernel writes them.
enum CgroupUsage {
  /// The number behind `key` in a flat keyed file: one `key value` a line (cgroup-v2, "Format").
  static func value(_ text: String, _ key: String) -> UInt64? {
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: " ")
      if fields.count == 2, fields[0] == key[...] { return UInt64(fields[1]) }
    }
    return nil
  }

  /// A file with one number; `max` and what is absent are nil.
  static func number(_ text: String?) -> UInt64? { text.flatMap { UInt64($0.trimmed) } }

  /// - Parameters:
  ///   - hostMemory: bytes, shown as the limit of what has none.
  ///   - read: the content of a controller's file in the container's group, or nil.
  ///   - threads: counts the container's threads, where it has no group of the pids controller that does.
  static func gather(
    versions: [String: CgroupMount.Version], hostMemory: UInt64,
    read: (_ controller: String, _ file: String) -> String?,
    threads: () -> UInt64
  ) -> ResourceUsage {
    var usage = ResourceUsage(cpuNanoseconds: 0, memory: 0, memoryLimit: hostMemory, pids: 0, oomKills: 0)
    // The unified hierarchy tells the time that was used also where it has no cpu controller (cgroup-v2, "CPU").
    if let microseconds = read("unified", "cpu.stat").flatMap({ value($0, "usage_usec") }) {
      usage.cpuNanoseconds = microseconds * 1000
    } else {
      usage.cpuNanoseconds = number(read("cpuacct", "cpuacct.usage")) ?? 0
    }
    switch versions["memory"] {
    case .v1:
      let used = number(read("memory", "memory.usage_in_bytes")) ?? 0
      let cache = read("memory", "memory.stat").flatMap { value($0, "total_inactive_file") } ?? 0
      usage.memory = used - min(used, cache)
      usage.memoryLimit = min(hostMemory, number(read("memory", "memory.limit_in_bytes")) ?? hostMemory)
      usage.oomKills = read("memory", "memory.oom_control").flatMap { value($0, "oom_kill") } ?? 0
    case .v2:
      let used = number(read("memory", "memory.current")) ?? 0
      let cache = read("memory", "memory.stat").flatMap { value($0, "inactive_file") } ?? 0
      usage.memory = used - min(used, cache)
      usage.memoryLimit = min(hostMemory, number(read("memory", "memory.max")) ?? hostMemory)
      usage.oomKills = read("memory", "memory.events").flatMap { value($0, "oom_kill") } ?? 0
    case nil: break
    }
    usage.pids = number(read("pids", "pids.current")) ?? threads()
    return usage
  }
}
