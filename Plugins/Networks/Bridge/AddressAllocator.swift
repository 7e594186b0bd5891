import Contracts

/// Gives out the addresses of one subnet: the lowest free one first, in constant time on average however many are taken.
struct AddressAllocator: Sendable {
  let subnet: IPv4Subnet
  let range: IPv4Subnet
  let gateway: IPv4Address
  private var taken: Set<UInt32> = []
  /// No free address of the range is below this one.
  private var lowest: UInt32

  init(subnet: IPv4Subnet, range: IPv4Subnet? = nil, gateway: IPv4Address) {
    self.subnet = subnet
    self.range = range ?? subnet
    self.gateway = gateway
    lowest = self.range.base.number
  }

  private func isUsable(_ number: UInt32) -> Bool {
    if number == gateway.number { return false }
    return subnet.prefixLength >= 31 || (number != subnet.base.number && number != subnet.last.number)
  }

  /// - Throws: `resourceExhausted` when every address is taken.
  mutating func next() throws(EngineError) -> IPv4Address {
    var number = lowest
    while number <= range.last.number {
      if isUsable(number), taken.insert(number).inserted {
        lowest = number == .max ? number : number + 1
        return IPv4Address(number)
      }
      if number == .max { break }
      number += 1
    }
    throw EngineError(.resourceExhausted, "no available IPv4 addresses on this network's address pools: \(range)")
  }

  /// Takes the address that somebody asked for.
  ///
  /// - Throws: `invalidArgument` for one outside the subnet, `conflict` for one that is taken.
  mutating func take(_ address: IPv4Address) throws(EngineError) {
    guard subnet.contains(address) else {
      throw EngineError(
        .invalidArgument, "invalid endpoint settings: no configured subnet contains the IP address \(address)")
    }
    guard isUsable(address.number), taken.insert(address.number).inserted else {
      throw EngineError(.conflict, "Address already in use: \(address)")
    }
  }

  /// Marks an address that a former engine gave out.
  mutating func restore(_ address: IPv4Address) {
    if subnet.contains(address) { taken.insert(address.number) }
  }

  mutating func release(_ address: IPv4Address) {
    guard taken.remove(address.number) != nil, range.contains(address) else { return }
    lowest = min(lowest, address.number)
  }

  var count: Int { taken.count }
}

/// Chooses the subnet of a network for which none was given.
enum AddressPools {
  /// Docker's default pools: 172.17 to 172.31 as /16, then 192.168 as /20.
  static let defaults: [IPv4Subnet] =
    (17...31).map { IPv4Subnet(IPv4Address(172 << 24 | UInt32($0) << 16), prefixLength: 16) }
    + (0..<16).map { IPv4Subnet(IPv4Address(192 << 24 | 168 << 16 | UInt32($0) << 12), prefixLength: 20) }

  /// - Throws: `resourceExhausted` in Docker's words when all of them overlap something.
  static func choose(avoiding used: [IPv4Subnet], from pools: some Sequence<IPv4Subnet> = defaults) throws(EngineError)
    -> IPv4Subnet
  {
    for pool in pools where !used.contains(where: { $0.overlaps(pool) }) { return pool }
    throw EngineError(
      .resourceExhausted,
      "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network; "
        + "name one with --subnet")
  }
}
