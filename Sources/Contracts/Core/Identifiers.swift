/// A 64-digit hexadecimal identifier of a container, network or exec; the first 12 digits are its short form.
public struct ObjectID: Codable, Sendable, Hashable, Comparable, CustomStringConvertible {
  public let text: String

  /// - Returns: nil unless `text` is 64 lower-case hexadecimal digits.
  public init?(_ text: String) {
    guard text.utf8.count == 64, text.utf8.allSatisfy(\.isLowerHexadecimal) else { return nil }
    self.text = text
  }

  /// A new identifier of 32 random bytes.
  public static func random() -> ObjectID {
    var generator = SystemRandomNumberGenerator()
    var bytes: [UInt8] = []
    bytes.reserveCapacity(64)
    for _ in 0..<4 {
      var word = generator.next()
      for _ in 0..<16 {
        let digit = UInt8(truncatingIfNeeded: word & 15)
        bytes.append(digit < 10 ? 48 + digit : 87 + digit)
        word >>= 4
      }
    }
    return ObjectID(unchecked: String(decoding: bytes, as: UTF8.self))
  }

  private init(unchecked text: String) { self.text = text }

  /// The first 12 digits, as `ps` shows them.
  public var short: String { String(text.prefix(12)) }
  public var description: String { text }

  public static func < (left: ObjectID, right: ObjectID) -> Bool { left.text < right.text }

  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    guard let value = ObjectID(text) else { throw EngineError(.protocolViolation, "not an identifier: \(text)") }
    self = value
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(text)
  }
}

extension ObjectID: CodingKeyRepresentable {
  /// Dictionaries by identifier are objects on the wire.
  public var codingKey: any CodingKey { AnyCodingKey(text) }
  public init?(codingKey: some CodingKey) { self.init(codingKey.stringValue) }
}

/// A SHA-256 digest in its OCI form, `sha256:` and 64 hexadecimal digits (OCI image specification, descriptor.md).
public struct Digest: Codable, Sendable, Hashable, Comparable, CustomStringConvertible {
  /// The 64 hexadecimal digits.
  public let hex: String

  /// - Returns: nil unless `text` is `sha256:` and 64 lower-case hexadecimal digits.
  public init?(_ text: String) {
    guard text.hasPrefix("sha256:") else { return nil }
    self.init(hex: String(text.dropFirst(7)))
  }

  public init?(hex: String) {
    guard hex.utf8.count == 64, hex.utf8.allSatisfy(\.isLowerHexadecimal) else { return nil }
    self.hex = hex
  }

  /// The digest of 32 raw bytes.
  public init?(bytes: some Collection<UInt8>) {
    guard bytes.count == 32 else { return nil }
    let digits = Array("0123456789abcdef".utf8)
    self.init(hex: String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self))
  }

  /// The first 12 digits, as `images` shows them.
  public var short: String { String(hex.prefix(12)) }
  public var description: String { "sha256:\(hex)" }

  public static func < (left: Digest, right: Digest) -> Bool { left.hex < right.hex }

  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    guard let value = Digest(text) else { throw EngineError(.protocolViolation, "not a SHA-256 digest: \(text)") }
    self = value
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

extension UInt8 {
  var isLowerHexadecimal: Bool { (48...57).contains(self) || (97...102).contains(self) }
}
