import BridgeNetworkPlugin

/// What the bridge driver does before it calls the kernel.
enum NetworkWorkloads {
  static func all() throws -> [Workload] {
    let few = try BridgeWork.addresses(taken: 0)
    let many = try BridgeWork.addresses(taken: 10_000)
    return [
      Workload("addresses", "give out and take back, none taken", per: "address", count: 1000) { try few(1000) },
      Workload("addresses", "give out and take back, 10 000 taken", per: "address", count: 1000) { try many(1000) },
      Workload("netlink", "the messages that attach a container", per: "container", count: 10) {
        for _ in 0..<10 { _ = try BridgeWork.attachMessages() }
      },
    ]
      + [1, 10, 200].map { (count: UInt16) in
        Workload("nftables", "the transaction that publishes \(count)", per: "port", count: Int(count)) {
          _ = BridgeWork.publishMessages(count)
        }
      }
  }
}
