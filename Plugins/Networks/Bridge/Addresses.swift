import Glibc

/// An IPv4 address as a number in host byte order.
struct IPv4Address: Hashable, Comparable, Sendable, CustomStringConvertible {
  var number: UInt32

  init(_ number: UInt32) { self.number = number }

  /// 0.0.0.0, which stands for no address.
  static let unspecified = IPv4Address(0)

  /// Reads four decimal numbers without leading zeros; nil for anything else.
  init?(_ text: some StringProtocol) {
    var number: UInt32 = 0
    var count = 0
    for part in text.split(separator: ".", omittingEmptySubsequences: false) {
      guard let byte = UInt8(part), part.utf8.count == String(byte).utf8.count else { return nil }
      number = number << 8 | UInt32(byte)
      count += 1
    }
    guard count == 4 else { return nil }
    self.number = number
  }

  /// As it stands in packets and netlink messages.
  var networkOrder: UInt32 { number.bigEndian }
  var bytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) } }
  var description: String { "\(number >> 24).\(number >> 16 & 255).\(number >> 8 & 255).\(number & 255)" }
  var isLoopback: Bool { number >> 24 == 127 }

  static func < (left: IPv4Address, right: IPv4Address) -> Bool { left.number < right.number }
}

/// An IPv4 network in CIDR form.
struct IPv4Subnet: Hashable, Sendable, CustomStringConvertible {
  /// The first address; host bits are zero.
  let base: IPv4Address
  let prefixLength: Int

  init(_ address: IPv4Address, prefixLength: Int) {
    base = IPv4Address(address.number & Self.mask(prefixLength))
    self.prefixLength = prefixLength
  }

  /// Reads `a.b.c.d/n`; host bits are cleared, as Docker does. Nil for anything else.
  init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = IPv4Address(parts[0]), let length = UInt8(parts[1]), length <= 32 else {
      return nil
    }
    self.init(address, prefixLength: Int(length))
  }

  static func mask(_ prefixLength: Int) -> UInt32 { prefixLength == 0 ? 0 : ~0 << (32 - UInt32(prefixLength)) }

  var mask: UInt32 { Self.mask(prefixLength) }
  var last: IPv4Address { IPv4Address(base.number | ~mask) }
  var description: String { "\(base)/\(prefixLength)" }

  func contains(_ address: IPv4Address) -> Bool { address.number & mask == base.number }
  func contains(_ other: IPv4Subnet) -> Bool { prefixLength <= other.prefixLength && contains(other.base) }
  func overlaps(_ other: IPv4Subnet) -> Bool { contains(other.base) || other.contains(base) }
}

/// An Ethernet address.
struct HardwareAddress: Hashable, Sendable, CustomStringConvertible {
  let bytes: [UInt8]

  /// Docker's derivation, `02:42:` and the address, so that neighbours' tables survive a restart.
  init(derivedFrom address: IPv4Address) { bytes = [0x02, 0x42] + address.bytes }

  /// Reads six pairs of hexadecimal digits with colons or hyphens between; nil for anything else and for group addresses.
  init?(_ text: String) {
    let parts = text.split(omittingEmptySubsequences: false) { $0 == ":" || $0 == "-" }
    let bytes = parts.compactMap { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
    guard parts.count == 6, bytes.count == 6, bytes[0] & 1 == 0 else { return nil }
    self.bytes = bytes
  }

  var description: String {
    let digits = Array("0123456789abcdef".utf8)
    return bytes.map { String(decoding: [digits[Int($0 >> 4)], digits[Int($0 & 15)]], as: UTF8.self) }
      .joined(separator: ":")
  }
}
