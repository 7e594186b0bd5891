import BenchmarkWorkloads
import Testing

/// The workloads that the micro benchmarks time do what they say; how long they take is no matter here.
struct WorkloadTests {
  @Test func everyWorkloadRuns() throws {
    let workloads = try Workloads()
    for workload in workloads.all {
      #expect(throws: Never.self, "\(workload.group): \(workload.name)") { try workload.run() }
      #expect(workload.count > 0)
    }
    #expect(
      Set(workloads.all.map(\.group)) == ["bus", "wire", "encoding", "addresses", "netlink", "nftables", "content"])
    #expect(Set(workloads.all.map { "\($0.group) \($0.name)" }).count == workloads.all.count)
  }
}
