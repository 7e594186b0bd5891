import Contracts

/// What this machine has of what limits speak of.
struct MachineResources: Sendable, Equatable {
  var cpus: Int
  /// Lists such as `0-1`.
  var onlineCPUs: String
  var onlineMemoryNodes: String
  /// Bytes.
  var memory: UInt64
}

/// Refuses limits that make no sense, in Docker's words (moby, daemon/daemon_unix.go, verifyPlatformContainerResources).
enum LimitValidation {
  /// Bytes: the least with which a process starts.
  static let minimumMemory: Int64 = 6 << 20

  static func check(_ limits: ResourceLimits, _ machine: MachineResources, isUpdate: Bool = false)
    throws(EngineError)
  {
    try checkMemory(limits, isUpdate)
    try checkCPU(limits, machine)
    try checkList(limits.cpusetCPUs, "cpuset cpus", "CPUs", available: machine.onlineCPUs)
    try checkList(limits.cpusetMemoryNodes, "cpuset mems", "memory nodes", available: machine.onlineMemoryNodes)
    if limits.blkioWeight != 0 && !(10...1000).contains(limits.blkioWeight) {
      throw invalid("Range of blkio weight is from 10 to 1000")
    }
  }

  private static func invalid(_ message: String) -> EngineError { EngineError(.invalidArgument, message) }

  private static func checkMemory(_ limits: ResourceLimits, _ isUpdate: Bool) throws(EngineError) {
    if limits.memory > 0 && limits.memory < minimumMemory { throw invalid("Minimum memory limit allowed is 6MB") }
    if limits.memory > 0 && limits.memorySwap > 0 && limits.memorySwap < limits.memory {
      throw invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    }
    if limits.memory == 0 && limits.memorySwap > 0 && !isUpdate {
      throw invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    }
    if limits.memoryReservation > 0 && limits.memoryReservation < minimumMemory {
      throw invalid("Minimum memory reservation allowed is 6MB")
    }
    if limits.memory > 0 && limits.memoryReservation > limits.memory {
      throw invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
    }
  }

  private static func checkCPU(_ limits: ResourceLimits, _ machine: MachineResources) throws(EngineError) {
    if limits.nanoCPUs != 0 {
      if limits.cpuPeriod != 0 {
        throw invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
      }
      if limits.cpuQuota != 0 { throw invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set") }
      if limits.nanoCPUs < 10_000_000 || limits.nanoCPUs > Int64(machine.cpus) * 1_000_000_000 {
        throw invalid(
          "range of CPUs is from 0.01 to \(machine.cpus).00, as there are only \(machine.cpus) CPUs available")
      }
    }
    if limits.cpuPeriod != 0 && !(1000...1_000_000).contains(limits.cpuPeriod) {
      throw invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    }
    if limits.cpuQuota > 0 && limits.cpuQuota < 1000 {
      throw invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    }
  }

  private static func checkList(
    _ list: String, _ what: String, _ things: String, available: String
  ) throws(EngineError) {
    if list.isEmpty { return }
    guard let requested = parse(list) else { throw invalid("Invalid value \(list) for \(what)") }
    guard let present = parse(available) else { return }
    let isPresent = requested.allSatisfy { range in range.allSatisfy { number in present.contains { $0 ~= number } } }
    if !isPresent {
      throw invalid("Requested \(things) are not available - requested \(list), available: \(available)")
    }
  }

  /// A list such as `0-1,3` (cpuset(7), "List format"); nil when it is none. Numbers above 8191 are none: no kernel is
  /// built for more CPUs, and a huge range would cost time.
  static func parse(_ list: String) -> [ClosedRange<Int>]? {
    var ranges: [ClosedRange<Int>] = []
    for part in list.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
      guard let first = ends.first, let low = number(first), let high = number(ends.count == 2 ? ends[1] : first),
        low <= high
      else { return nil }
      ranges.append(low...high)
    }
    return ranges.isEmpty ? nil : ranges
  }

  private static func number(_ text: Substring) -> Int? {
    guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }), let value = Int(text), value < 8192 else {
      return nil
    }
    return value
  }
}
