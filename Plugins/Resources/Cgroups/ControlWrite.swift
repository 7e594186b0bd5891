import Contracts

/// One limit as the kernel takes it: a value for a control file, or for the first that exists of several.
struct ControlWrite: Sendable, Equatable {
  struct Target: Sendable, Equatable {
    var file: String
    var value: String
  }

  var controller: String
  /// Tried in order until one exists.
  var targets: [Target]
  /// What the user wrote, for errors.
  var flag: String
  /// What is said when this machine cannot apply it.
  var warning: String

  init(_ controller: String, _ file: String, _ value: String, flag: String, warning: String) {
    self.init(controller, [Target(file: file, value: value)], flag: flag, warning: warning)
  }

  init(_ controller: String, _ targets: [Target], flag: String, warning: String) {
    self.controller = controller
    self.targets = targets
    self.flag = flag
    self.warning = warning
  }

  /// Everything that `limits` ask of controllers in hierarchies of `version`, in an order that works for a new group.
  ///
  /// - Parameter isUpdate: nothing is set that the user did not name, so the swap limit does not follow the memory.
  static func all(_ limits: ResourceLimits, version: CgroupMount.Version, isUpdate: Bool = false) -> [ControlWrite] {
    switch version {
    case .v1: cpuV1(limits) + cpuset(limits) + memoryV1(limits, isUpdate) + pids(limits) + blkioV1(limits)
    case .v2: cpuV2(limits) + cpuset(limits) + memoryV2(limits, isUpdate) + pids(limits) + ioV2(limits)
    }
  }

  /// Microseconds: Docker's period for `--cpus`, the kernel's own default.
  private static let defaultPeriod: UInt64 = 100_000

  /// The CFS period and quota, each nil when it is not asked for.
  private static func bandwidth(_ limits: ResourceLimits) -> (period: UInt64?, quota: Int64?) {
    if limits.nanoCPUs > 0 {
      return (defaultPeriod, limits.nanoCPUs / (1_000_000_000 / Int64(defaultPeriod)))
    }
    return (limits.cpuPeriod == 0 ? nil : limits.cpuPeriod, limits.cpuQuota == 0 ? nil : limits.cpuQuota)
  }

  private static let cfsWarning =
    "Your kernel does not support CPU CFS scheduler or the cgroup is not mounted. Period and quota discarded."

  private static let sharesWarning =
    "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded."

  private static func flag(_ limits: ResourceLimits, _ other: String) -> String {
    limits.nanoCPUs > 0 ? "--cpus" : other
  }

  private static func cpuV1(_ limits: ResourceLimits) -> [ControlWrite] {
    var writes: [ControlWrite] = []
    let (period, quota) = bandwidth(limits)
    if let period {
      writes.append(
        ControlWrite(
          "cpu", "cpu.cfs_period_us", String(period), flag: flag(limits, "--cpu-period"), warning: cfsWarning))
    }
    if let quota {
      writes.append(
        ControlWrite("cpu", "cpu.cfs_quota_us", String(quota), flag: flag(limits, "--cpu-quota"), warning: cfsWarning))
    }
    if limits.cpuShares > 0 {
      writes.append(
        ControlWrite("cpu", "cpu.shares", String(limits.cpuShares), flag: "--cpu-shares", warning: sharesWarning))
    }
    return writes
  }

  private static func cpuV2(_ limits: ResourceLimits) -> [ControlWrite] {
    var writes: [ControlWrite] = []
    let (period, quota) = bandwidth(limits)
    if period != nil || quota != nil {
      let value = quota.map { $0 > 0 ? String($0) : "max" } ?? "max"
      writes.append(
        ControlWrite(
          "cpu", "cpu.max", "\(value) \(period ?? defaultPeriod)", flag: flag(limits, "--cpu-quota"),
          warning: cfsWarning))
    }
    if limits.cpuShares > 0 {
      writes.append(
        ControlWrite(
          "cpu", "cpu.weight", String(weight(shares: limits.cpuShares)), flag: "--cpu-shares", warning: sharesWarning))
    }
    return writes
  }

  /// The v2 weight (1 to 10 000) of v1 shares (2 to 262 144): the mapping that runc and crun use.
  static func weight(shares: UInt64) -> UInt64 {
    1 + (min(max(shares, 2), 262_144) - 2) * 9999 / 262_142
  }

  private static func cpuset(_ limits: ResourceLimits) -> [ControlWrite] {
    let warning = "Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded."
    var writes: [ControlWrite] = []
    if !limits.cpusetCPUs.isEmpty {
      writes.append(ControlWrite("cpuset", "cpuset.cpus", limits.cpusetCPUs, flag: "--cpuset-cpus", warning: warning))
    }
    if !limits.cpusetMemoryNodes.isEmpty {
      writes.append(
        ControlWrite("cpuset", "cpuset.mems", limits.cpusetMemoryNodes, flag: "--cpuset-mems", warning: warning))
    }
    return writes
  }

  private static let memoryWarning =
    "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded."
  private static let swapWarning =
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
  private static let reservationWarning =
    "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded."

  /// Memory with swap: what was asked, or twice the memory on creation; -1 is unlimited, nil leaves it alone.
  private static func swap(_ limits: ResourceLimits, _ isUpdate: Bool) -> Int64? {
    if limits.memorySwap != 0 { return limits.memorySwap }
    guard limits.memory > 0, !isUpdate else { return nil }
    return limits.memory.multipliedReportingOverflow(by: 2).overflow ? -1 : limits.memory * 2
  }

  private static func memoryV1(_ limits: ResourceLimits, _ isUpdate: Bool) -> [ControlWrite] {
    var writes: [ControlWrite] = []
    if limits.memory != 0 {
      writes.append(
        ControlWrite(
          "memory", "memory.limit_in_bytes", String(limits.memory), flag: "--memory", warning: memoryWarning))
    }
    if let swap = swap(limits, isUpdate) {
      writes.append(
        ControlWrite(
          "memory", "memory.memsw.limit_in_bytes", String(swap), flag: "--memory-swap", warning: swapWarning))
    }
    if limits.memoryReservation > 0 {
      writes.append(
        ControlWrite(
          "memory", "memory.soft_limit_in_bytes", String(limits.memoryReservation), flag: "--memory-reservation",
          warning: reservationWarning))
    }
    if limits.disablesOOMKill {
      writes.append(
        ControlWrite(
          "memory", "memory.oom_control", "1", flag: "--oom-kill-disable",
          warning: "Your kernel does not support OomKillDisable. OomKillDisable discarded."))
    }
    return writes
  }

  private static func memoryV2(_ limits: ResourceLimits, _ isUpdate: Bool) -> [ControlWrite] {
    var writes: [ControlWrite] = []
    if limits.memory != 0 {
      let value = limits.memory < 0 ? "max" : String(limits.memory)
      writes.append(ControlWrite("memory", "memory.max", value, flag: "--memory", warning: memoryWarning))
    }
    if let swap = swap(limits, isUpdate) {
      let value = swap < 0 || limits.memory <= 0 ? "max" : String(max(0, swap - limits.memory))
      writes.append(ControlWrite("memory", "memory.swap.max", value, flag: "--memory-swap", warning: swapWarning))
    }
    if limits.memoryReservation > 0 {
      writes.append(
        ControlWrite(
          "memory", "memory.low", String(limits.memoryReservation), flag: "--memory-reservation",
          warning: reservationWarning))
    }
    if limits.disablesOOMKill {
      writes.append(
        ControlWrite(
          "memory", [], flag: "--oom-kill-disable",
          warning: "OomKillDisable is not supported by cgroup v2. OomKillDisable discarded."))
    }
    return writes
  }

  private static func pids(_ limits: ResourceLimits) -> [ControlWrite] {
    if limits.pids == 0 { return [] }
    return [
      ControlWrite(
        "pids", "pids.max", limits.pids < 0 ? "max" : String(limits.pids), flag: "--pids-limit",
        warning:
          "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.")
    ]
  }

  private static let weightWarning =
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."

  private static func blkioV1(_ limits: ResourceLimits) -> [ControlWrite] {
    if limits.blkioWeight == 0 { return [] }
    let value = String(limits.blkioWeight)
    return [
      ControlWrite(
        "blkio", [.init(file: "blkio.weight", value: value), .init(file: "blkio.bfq.weight", value: value)],
        flag: "--blkio-weight", warning: weightWarning)
    ]
  }

  private static func ioV2(_ limits: ResourceLimits) -> [ControlWrite] {
    if limits.blkioWeight == 0 { return [] }
    // BFQ counts from 1 to 1000 as v1 does; io.weight from 1 to 10 000 (the mapping of runc and crun).
    let weight = 1 + (UInt64(limits.blkioWeight) - 10) * 9999 / 990
    return [
      ControlWrite(
        "io",
        [
          .init(file: "io.bfq.weight", value: String(limits.blkioWeight)),
          .init(file: "io.weight", value: "default \(weight)"),
        ], flag: "--blkio-weight", warning: weightWarning)
    ]
  }
}
