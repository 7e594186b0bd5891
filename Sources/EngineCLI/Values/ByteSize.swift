import Contracts

/// A number of bytes as Docker's flags write it: `32m`, `1.5g`, `64KiB`, all in powers of 1024 (go-units, RAMInBytes).
struct ByteSize: Equatable, Sendable {
  let bytes: Int64

  init(parsing text: String) throws(EngineError) {
    guard let end = text.lastIndex(where: { ("0"..."9").contains($0) || $0 == "." }) else {
      throw EngineError(.invalidArgument, "invalid size: '\(text)'")
    }
    let digits = text[...end]
    let rest = text[text.index(after: end)...]
    var suffix = rest.first == " " ? rest.dropFirst().lowercased() : rest.lowercased()
    guard let number = Decimal.parse(digits), number >= 0 else {
      throw EngineError(.invalidArgument, "invalid size: '\(text)'")
    }
    let units: [Character] = ["k", "m", "g", "t", "p"]
    var factor = 1.0
    if suffix == "b" {
      suffix = ""
    } else if let first = suffix.first {
      guard let power = units.firstIndex(of: first), ["", "b", "ib"].contains(suffix.dropFirst()) else {
        throw EngineError(.invalidArgument, "invalid suffix: '\(rest.first == " " ? rest.dropFirst() : rest)'")
      }
      factor = (0...power).reduce(1.0) { value, _ in value * 1024 }
    }
    let bytes = number * factor
    guard bytes < 0x1p63 else { throw EngineError(.invalidArgument, "invalid size: '\(text)'") }
    self.bytes = Int64(bytes)
  }

  /// As above, with `-1` for no limit (`--memory-swap`).
  static func parseAllowingUnlimited(_ text: String) throws(EngineError) -> Int64 {
    text == "-1" ? -1 : try ByteSize(parsing: text).bytes
  }
}

/// Decimal fractions without an exponent, as people write them.
enum Decimal {
  static func parse(_ text: some StringProtocol) -> Double? {
    var parts = 0
    var digits = 0
    for (index, byte) in text.utf8.enumerated() {
      switch byte {
      case 0x30...0x39: digits += 1
      case 0x2E: parts += 1
      case 0x2D where index == 0, 0x2B where index == 0: continue
      default: return nil
      }
    }
    guard parts <= 1, digits > 0 else { return nil }
    return Double(text)
  }
}

/// A number of CPUs in billionths (`--cpus 1.5`).
struct CPUCount: Equatable, Sendable {
  let billionths: Int64

  init(parsing text: String) throws(EngineError) {
    let unsigned = text.hasPrefix("-") ? text.dropFirst() : text[...]
    let parts = unsigned.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    let fraction = parts.count == 2 ? parts[1] : ""
    let digits = parts[0] + fraction
    guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
      throw EngineError(.invalidArgument, "failed to parse \(text) as a rational number")
    }
    let significant = fraction.reversed().drop { $0 == "0" }.count
    guard significant <= 9 else { throw EngineError(.invalidArgument, "value is too precise") }
    let padded = parts[0] + fraction.prefix(9) + String(repeating: "0", count: 9 - min(9, fraction.count))
    guard let value = Int64(padded) else {
      throw EngineError(.invalidArgument, "failed to parse \(text) as a rational number")
    }
    billionths = text.hasPrefix("-") ? -value : value
  }

  /// - Parameter available: the CPUs of this machine.
  /// - Throws: Docker's words for a value that this machine cannot give.
  func check(available: Int) throws(EngineError) {
    if billionths == 0 { return }
    guard billionths >= 10_000_000, billionths <= Int64(available) * 1_000_000_000 else {
      throw EngineError(
        .invalidArgument,
        "range of CPUs is from 0.01 to \(available).00, as there are only \(available) CPUs available")
    }
  }
}
