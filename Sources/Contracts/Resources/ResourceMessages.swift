/// A container's limits; 0 or empty means no limit. Units are those of the kernel.
public struct ResourceLimits: Codable, Sendable, Equatable {
  /// Billionths of a CPU (`--cpus`); excludes period and quota.
  public var nanoCPUs: Int64 = 0
  /// Microseconds (`--cpu-period`, `--cpu-quota`).
  public var cpuPeriod: UInt64 = 0
  public var cpuQuota: Int64 = 0
  /// 2 to 262 144 (`--cpu-shares`); becomes a weight on v2.
  public var cpuShares: UInt64 = 0
  /// Lists such as `0-1,3`.
  public var cpusetCPUs = ""
  public var cpusetMemoryNodes = ""
  /// Bytes. Swap includes memory; -1 is unlimited, 0 is twice the memory.
  public var memory: Int64 = 0
  public var memoryReservation: Int64 = 0
  public var memorySwap: Int64 = 0
  /// -1 or 0: unlimited.
  public var pids: Int64 = 0
  /// 10 to 1000, or 0.
  public var blkioWeight: UInt16 = 0
  public var disablesOOMKill = false
  /// For a privileged container: it may open every device node, not only Docker's default ones.
  public var allowsAllDevices = false

  public init() {}
}

/// Makes a container's cgroups in every hierarchy and sets its limits.
///
/// Throws `invalidArgument` with the limit's flag for a value the kernel or this machine refuses.
public struct ResourceCreate: Request {
  public static let name = "resource.create"
  public struct Reply: Codable, Sendable {
    /// Opened `tasks` or `cgroup.procs` files of v1 hierarchies: the container's first process writes `0` to each.
    public var entries: [Descriptor]
    /// The directory in the unified hierarchy for CLONE_INTO_CGROUP, or nil where there is none.
    public var unified: Descriptor?
    /// Paths of what was made, controller by controller (`unified` for v2), for `inspect` and for people.
    public var paths: [String: String]
    /// What could not be applied and was left out, in words.
    public var warnings: [String]

    public init(entries: [Descriptor], unified: Descriptor?, paths: [String: String], warnings: [String]) {
      self.entries = entries
      self.unified = unified
      self.paths = paths
      self.warnings = warnings
    }
  }
  public var container: ObjectID
  public var limits: ResourceLimits

  public init(container: ObjectID, limits: ResourceLimits) {
    self.container = container
    self.limits = limits
  }
}

/// Kills what is left in a container's cgroups and removes them. What is not there is done already.
public struct ResourceRemove: Request {
  public static let name = "resource.remove"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

/// Changes the limits of a running container.
public struct ResourceUpdate: Request {
  public static let name = "resource.update"
  public typealias Reply = Done
  public var container: ObjectID
  public var limits: ResourceLimits

  public init(container: ObjectID, limits: ResourceLimits) {
    self.container = container
    self.limits = limits
  }
}

/// Stops all processes of a container where they are, or lets them go on; returns when it is done.
public struct ResourceFreeze: Request {
  public static let name = "resource.freeze"
  public typealias Reply = Done
  public var container: ObjectID
  public var isFrozen: Bool

  public init(container: ObjectID, isFrozen: Bool) {
    self.container = container
    self.isFrozen = isFrozen
  }
}

public struct ResourceUsage: Codable, Sendable, Equatable {
  public var cpuNanoseconds: UInt64
  /// Bytes without the inactive file cache.
  public var memory: UInt64
  public var memoryLimit: UInt64
  public var pids: UInt64
  /// How many times a process was killed for want of memory.
  public var oomKills: UInt64

  public init(cpuNanoseconds: UInt64, memory: UInt64, memoryLimit: UInt64, pids: UInt64, oomKills: UInt64) {
    self.cpuNanoseconds = cpuNanoseconds
    self.memory = memory
    self.memoryLimit = memoryLimit
    self.pids = pids
    self.oomKills = oomKills
  }
}

public struct ResourceRead: Request {
  public static let name = "resource.read"
  public typealias Reply = ResourceUsage
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

/// The processes of a container, as host PIDs.
public struct ResourceProcesses: Request {
  public static let name = "resource.processes"
  public typealias Reply = [Int32]
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

/// Which limits this machine can apply, for `info` and for warnings at start-up.
public struct ResourceCapabilities: Request {
  public static let name = "resource.capabilities"
  public struct Reply: Codable, Sendable, Equatable {
    /// `1`, `2` or `hybrid`.
    public var version: String
    /// Controller name to `v1` or `v2`.
    public var controllers: [String: String]

    public init(version: String, controllers: [String: String]) {
      self.version = version
      self.controllers = controllers
    }
  }

  public init() {}
}
