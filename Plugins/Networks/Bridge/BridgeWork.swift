import Contracts
import LinuxSystem

/// The driver's work before the kernel is called, for the micro benchmarks: choosing addresses, and building messages.
package enum BridgeWork {
  /// Gives an address out and takes it back, as often as is asked.
  ///
  /// - Parameter taken: how many addresses of the subnet, a /16, others have.
  /// - Throws: `resourceExhausted` when there are more of them than addresses.
  package static func addresses(taken: Int) throws(EngineError) -> (_ count: Int) throws(EngineError) -> Void {
    let subnet = IPv4Subnet(IPv4Address(172 << 24 | 17 << 16), prefixLength: 16)
    var allocator = AddressAllocator(subnet: subnet, gateway: IPv4Address(subnet.base.number + 1))
    for _ in 0..<taken { _ = try allocator.next() }
    return { (count) throws(EngineError) in
      for _ in 0..<count { allocator.release(try allocator.next()) }
    }
  }

  /// Builds every rtnetlink(7) message that attaches one container: the link, and inside its namespace the address, the
  /// link up and the route.
  ///
  /// - Returns: how many messages that are.
  package static func attachMessages() throws(SystemCallError) -> Int {
    let subnet = IPv4Subnet(IPv4Address(172 << 24 | 17 << 16), prefixLength: 16)
    let address = IPv4Address(subnet.base.number + 2)
    var outside = NetlinkBatch()
    try outside.addVeth(
      "veth0123456", bridge: 7, peer: "eth0", peerAddress: HardwareAddress(derivedFrom: address), namespace: 9, mtu: nil
    )
    outside.number()
    var inside = NetlinkBatch()
    try inside.disableLinkLocal(subject: "eth0")
    try inside.addAddress(address, subnet, link: 2, subject: "eth0")
    try inside.setLinkUp(2, subject: "eth0")
    try inside.addDefaultRoute(gateway: IPv4Address(subnet.base.number + 1), link: 2)
    inside.number()
    return outside.count + inside.count
  }

  /// Builds the nf_tables transaction that publishes this many ports.
  ///
  /// - Returns: whether there is anything to send.
  package static func publishMessages(_ count: UInt16) -> Bool {
    var batch = NftBatch()
    batch.publish(
      (0..<count).map {
        PublishedPort(
          transport: .tcp, hostAddress: nil, hostPort: 20_000 + $0, address: IPv4Address(10 << 24 | 99 << 16 | 2),
          port: 80)
      }, table: "engine-benchmark")
    return !batch.isEmpty
  }
}
