import Contracts
import Glibc

/// An IPv4 or IPv6 address in network byte order.
struct Address: Equatable {
  var bytes: [UInt8]

  /// - Returns: nil for text that inet_pton(3) does not take.
  init?(_ text: String) {
    var four = in_addr()
    if inet_pton(AF_INET, text, &four) == 1 {
      bytes = withUnsafeBytes(of: &four) { Array($0) }
      return
    }
    var sixteen = in6_addr()
    guard inet_pton(AF_INET6, text, &sixteen) == 1 else { return nil }
    bytes = withUnsafeBytes(of: &sixteen) { Array($0) }
  }

  var text: String {
    var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    let family = bytes.count == 4 ? AF_INET : AF_INET6
    return bytes.withUnsafeBytes { bytes in
      inet_ntop(family, bytes.baseAddress, &buffer, socklen_t(buffer.count)).map { String(cString: $0) } ?? ""
    }
  }

  /// The address with everything behind the prefix cleared.
  func masked(_ prefixLength: Int) -> Address {
    var result = self
    for index in bytes.indices {
      let kept = min(8, max(0, prefixLength - index * 8))
      result.bytes[index] &= UInt8(truncatingIfNeeded: 0xff00 >> kept)
    }
    return result
  }
}

/// A block of addresses in CIDR notation (RFC 4632).
struct Subnet: Equatable, CustomStringConvertible {
  var address: Address
  var prefixLength: Int

  /// - Returns: nil for text that is not `address/length`; bits behind the prefix are kept.
  init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = Address(String(parts[0])), parts[1].utf8.allSatisfy({ 48...57 ~= $0 }),
      let length = Int(parts[1]), length <= address.bytes.count * 8
    else { return nil }
    self.address = address
    prefixLength = length
  }

  var network: Address { address.masked(prefixLength) }
  var description: String { "\(address.text)/\(prefixLength)" }

  func contains(_ other: Address) -> Bool {
    other.bytes.count == address.bytes.count && other.masked(prefixLength) == network
  }

  func contains(_ other: Subnet) -> Bool { other.prefixLength >= prefixLength && contains(other.network) }
  func overlaps(_ other: Subnet) -> Bool { contains(other) || other.contains(self) }
}

/// Checks the pools that a user asked for against each other and against the pools that are taken.
///
/// - Throws: `invalidArgument` for a pool that makes no sense, `conflict` for one that overlaps.
func validate(_ pools: [AddressPool], taken: [AddressPool]) throws(EngineError) {
  var others = taken.compactMap { Subnet($0.subnet) }
  for pool in pools {
    guard let subnet = Subnet(pool.subnet) else {
      throw EngineError(.invalidArgument, "invalid subnet \(pool.subnet): invalid CIDR block notation")
    }
    guard subnet.network == subnet.address else {
      throw EngineError(
        .invalidArgument,
        "invalid network config: invalid subnet \(subnet): it should be \(subnet.network.text)/\(subnet.prefixLength)")
    }
    if let text = pool.gateway {
      guard let gateway = Address(text) else {
        throw EngineError(.invalidArgument, "invalid network config: invalid gateway \(text): not an IP address")
      }
      guard subnet.contains(gateway) else {
        throw EngineError(.invalidArgument, "no matching subnet for gateway \(text)")
      }
    }
    if let text = pool.range {
      guard let range = Subnet(text) else {
        throw EngineError(
          .invalidArgument, "invalid network config: invalid ip-range \(text): invalid CIDR block notation")
      }
      guard subnet.contains(range) else {
        throw EngineError(.invalidArgument, "no matching subnet for range \(text)")
      }
    }
    if others.contains(where: { $0.overlaps(subnet) }) {
      throw EngineError(.conflict, "Pool overlaps with other one on this address space")
    }
    others.append(subnet)
  }
}
