/// Base64 with the standard alphabet and padding (RFC 4648, section 4).
public enum Base64 {
  private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  public static func encode(_ bytes: some Collection<UInt8>) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    var word: UInt32 = 0
    var count = 0
    func append(_ digitCount: Int) {
      for index in 0..<4 {
        text.append(index < digitCount ? digits[Int(word >> (18 - 6 * UInt32(index))) & 63] : UInt8(ascii: "="))
      }
    }
    for byte in bytes {
      word |= UInt32(byte) << (16 - 8 * UInt32(count))
      count += 1
      if count == 3 {
        append(4)
        (word, count) = (0, 0)
      }
    }
    if count > 0 { append(count + 1) }
    return String(decoding: text, as: UTF8.self)
  }

  /// - Returns: nil for text that is not padded base64.
  public static func decode(_ text: String) -> [UInt8]? {
    let source = Array(text.utf8)
    guard source.count % 4 == 0 else { return nil }
    var padding = 0
    while padding < 2, padding < source.count, source[source.count - 1 - padding] == UInt8(ascii: "=") { padding += 1 }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(source.count / 4 * 3)
    var word: UInt32 = 0
    var bits: UInt32 = 0
    for byte in source.dropLast(padding) {
      let value: UInt8
      switch byte {
      case 65...90: value = byte - 65
      case 97...122: value = byte - 71
      case 48...57: value = byte + 4
      case UInt8(ascii: "+"): value = 62
      case UInt8(ascii: "/"): value = 63
      default: return nil
      }
      word = word << 6 | UInt32(value)
      bits += 6
      if bits >= 8 {
        bits -= 8
        bytes.append(UInt8(truncatingIfNeeded: word >> bits))
      }
    }
    return bytes
  }
}
