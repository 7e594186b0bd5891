import Testing

@testable import CgroupsPlugin

@Suite struct LayoutTests {
  struct Sample: Sendable, CustomTestStringConvertible {
    var name: String
    var mountinfo: String
    var subsystems = ""
    var unified = ""
    var version: String
    var controllers: [String: String]
    var testDescription: String { name }
  }

  static let samples: [Sample] = [
    Sample(
      name: "unified only (Debian 12)",
      mountinfo: """
        23 29 0:22 / /proc rw,relatime shared:12 - proc proc rw
        31 24 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
        """,
      unified: "cpuset cpu io memory hugetlb pids\n", version: "2",
      controllers: ["cpuset": "v2", "cpu": "v2", "io": "v2", "memory": "v2", "hugetlb": "v2", "pids": "v2"]),
    Sample(
      name: "hybrid with co-mounted controllers (systemd)",
      mountinfo: """
        31 24 0:27 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
        32 31 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
        33 31 0:29 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
        37 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct
        38 31 0:34 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory
        """,
      version: "hybrid", controllers: ["cpu": "v1", "cpuacct": "v1", "memory": "v1"]),
    Sample(
      name: "controllers in both",
      mountinfo: """
        32 31 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
        38 31 0:34 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
        """,
      unified: "hugetlb pids", version: "hybrid",
      controllers: ["memory": "v1", "hugetlb": "v2", "pids": "v2"]),
    Sample(
      name: "v1 only, one disabled on the kernel's command line",
      mountinfo: """
        37 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
        38 31 0:34 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
        """,
      subsystems: "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t0\t1\t0\n", version: "1",
      controllers: ["cpu": "v1"]),
    Sample(name: "none", mountinfo: "23 29 0:22 / /proc rw - proc proc rw\nnonsense\n", version: "", controllers: [:]),
  ]

  @Test(arguments: samples) func detects(_ sample: Sample) {
    let layout = CgroupLayout(
      mountinfo: sample.mountinfo, subsystems: sample.subsystems, unifiedControllers: { _ in sample.unified })
    #expect(layout.version == sample.version)
    #expect(layout.controllers == sample.controllers)
  }

  @Test func aHierarchyThatIsMountedTwiceIsTakenWhereItIsWhole() {
    let layout = CgroupLayout(
      mountinfo: """
        50 31 0:34 /docker/abc /mnt/part rw - cgroup cgroup rw,memory
        38 31 0:34 / /sys/fs/cgroup/a\\040b rw - cgroup cgroup rw,memory
        51 31 0:34 / /mnt/again rw - cgroup cgroup rw,memory
        """, subsystems: "", unifiedControllers: { _ in "" })
    #expect(layout.mounts == [CgroupMount(version: .v1, path: "/sys/fs/cgroup/a b", controllers: ["memory"])])
  }
}
