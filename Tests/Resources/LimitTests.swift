import Contracts
import Testing

@testable import CgroupsPlugin

@Suite struct LimitTests {
  struct Sample: Sendable, CustomTestStringConvertible {
    var name: String
    var limits: ResourceLimits
    var isUpdate = false
    var v1: [String]
    var v2: [String]
    var testDescription: String { name }

    init(
      _ name: String, isUpdate: Bool = false, v1: [String], v2: [String], _ set: (inout ResourceLimits) -> Void
    ) {
      self.name = name
      self.isUpdate = isUpdate
      self.v1 = v1
      self.v2 = v2
      limits = ResourceLimits()
      set(&limits)
    }
  }

  static let samples: [Sample] = [
    Sample("nothing", v1: [], v2: []) { _ in },
    Sample(
      "half a CPU", v1: ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"], v2: ["cpu.max=50000 100000"]
    ) { $0.nanoCPUs = 500_000_000 },
    Sample(
      "period and quota", v1: ["cpu.cfs_period_us=20000", "cpu.cfs_quota_us=5000"], v2: ["cpu.max=5000 20000"]
    ) {
      $0.cpuPeriod = 20_000
      $0.cpuQuota = 5000
    },
    Sample("no quota", v1: ["cpu.cfs_quota_us=-1"], v2: ["cpu.max=max 100000"]) { $0.cpuQuota = -1 },
    Sample("shares", v1: ["cpu.shares=1024"], v2: ["cpu.weight=39"]) { $0.cpuShares = 1024 },
    Sample("least shares", v1: ["cpu.shares=2"], v2: ["cpu.weight=1"]) { $0.cpuShares = 2 },
    Sample("most shares", v1: ["cpu.shares=262144"], v2: ["cpu.weight=10000"]) { $0.cpuShares = 262_144 },
    Sample("cpuset", v1: ["cpuset.cpus=0-1", "cpuset.mems=0"], v2: ["cpuset.cpus=0-1", "cpuset.mems=0"]) {
      $0.cpusetCPUs = "0-1"
      $0.cpusetMemoryNodes = "0"
    },
    Sample(
      "memory, with twice as much with swap",
      v1: ["memory.limit_in_bytes=33554432", "memory.memsw.limit_in_bytes=67108864"],
      v2: ["memory.max=33554432", "memory.swap.max=33554432"]
    ) { $0.memory = 32 << 20 },
    Sample(
      "memory without swap", v1: ["memory.limit_in_bytes=33554432", "memory.memsw.limit_in_bytes=33554432"],
      v2: ["memory.max=33554432", "memory.swap.max=0"]
    ) {
      $0.memory = 32 << 20
      $0.memorySwap = 32 << 20
    },
    Sample(
      "memory with any swap", v1: ["memory.limit_in_bytes=33554432", "memory.memsw.limit_in_bytes=-1"],
      v2: ["memory.max=33554432", "memory.swap.max=max"]
    ) {
      $0.memory = 32 << 20
      $0.memorySwap = -1
    },
    Sample(
      "an update of memory leaves swap", isUpdate: true, v1: ["memory.limit_in_bytes=33554432"],
      v2: ["memory.max=33554432"]
    ) {
      $0.memory = 32 << 20
    },
    Sample("reservation", v1: ["memory.soft_limit_in_bytes=8388608"], v2: ["memory.low=8388608"]) {
      $0.memoryReservation = 8 << 20
    },
    Sample("no kill", v1: ["memory.oom_control=1"], v2: []) { $0.disablesOOMKill = true },
    Sample("pids", v1: ["pids.max=7"], v2: ["pids.max=7"]) { $0.pids = 7 },
    Sample("any pids", v1: ["pids.max=max"], v2: ["pids.max=max"]) { $0.pids = -1 },
    Sample(
      "weight", v1: ["blkio.weight=500", "blkio.bfq.weight=500"],
      v2: ["io.bfq.weight=500", "io.weight=default 4950"]
    ) { $0.blkioWeight = 500 },
  ]

  @Test(arguments: samples) func isWritten(_ sample: Sample) {
    func text(_ version: CgroupMount.Version) -> [String] {
      ControlWrite.all(sample.limits, version: version, isUpdate: sample.isUpdate)
        .flatMap { $0.targets.map { "\($0.file)=\($0.value)" } }
    }
    #expect(text(.v1) == sample.v1)
    #expect(text(.v2) == sample.v2)
  }

  static let refused: [(String, @Sendable (inout ResourceLimits) -> Void)] = [
    ("Minimum memory limit allowed is 6MB", { $0.memory = (6 << 20) - 1 }),
    (
      "Minimum memoryswap limit should be larger than memory limit, see usage",
      {
        $0.memory = 32 << 20
        $0.memorySwap = 31 << 20
      }
    ),
    (
      "You should always set the Memory limit when using Memoryswap limit, see usage",
      { $0.memorySwap = 31 << 20 }
    ),
    (
      "Minimum memory limit can not be less than memory reservation limit, see usage",
      {
        $0.memory = 32 << 20
        $0.memoryReservation = 33 << 20
      }
    ),
    ("range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", { $0.nanoCPUs = 2_100_000_000 }),
    ("range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", { $0.nanoCPUs = 9_999_999 }),
    (
      "Conflicting options: Nano CPUs and CPU Period cannot both be set",
      {
        $0.nanoCPUs = 1_000_000_000
        $0.cpuPeriod = 10_000
      }
    ),
    ("CPU cfs quota can not be less than 1ms (i.e. 1000)", { $0.cpuQuota = 999 }),
    (
      "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
      { $0.cpuPeriod = 1_000_001 }
    ),
    ("Requested CPUs are not available - requested 7, available: 0-1", { $0.cpusetCPUs = "7" }),
    ("Requested CPUs are not available - requested 0-2, available: 0-1", { $0.cpusetCPUs = "0-2" }),
    ("Requested memory nodes are not available - requested 1, available: 0", { $0.cpusetMemoryNodes = "1" }),
    ("Invalid value 0-a for cpuset cpus", { $0.cpusetCPUs = "0-a" }),
    ("Invalid value 1-0 for cpuset cpus", { $0.cpusetCPUs = "1-0" }),
    ("Invalid value 0,, for cpuset cpus", { $0.cpusetCPUs = "0,," }),
    ("Invalid value 0-99999999999 for cpuset cpus", { $0.cpusetCPUs = "0-99999999999" }),
    ("Range of blkio weight is from 10 to 1000", { $0.blkioWeight = 9 }),
  ]

  @Test(arguments: refused.indices) func isRefused(_ index: Int) {
    let (message, set) = Self.refused[index]
    var limits = ResourceLimits()
    set(&limits)
    let machine = MachineResources(cpus: 2, onlineCPUs: "0-1", onlineMemoryNodes: "0", memory: 1 << 30)
    #expect(throws: EngineError(.invalidArgument, message)) { try LimitValidation.check(limits, machine) }
  }

  @Test(arguments: ["0", "1", "0,1", "0-1", "1,0-0"]) func listsOfPresentCPUsPass(_ list: String) throws {
    var limits = ResourceLimits()
    limits.cpusetCPUs = list
    let machine = MachineResources(cpus: 2, onlineCPUs: "0-1", onlineMemoryNodes: "0", memory: 1 << 30)
    try LimitValidation.check(limits, machine)
  }
}
