import Contracts
import Glibc

/// A time that a person writes: RFC 3339, a part of it in local time, seconds since the epoch, or how long ago it was.
enum Moment {
  /// - Throws: `invalidArgument` that quotes the text and gives examples.
  static func parse(_ text: String, now: Timestamp = .now) throws(EngineError) -> Timestamp {
    if let exact = Timestamp(text) { return exact }
    if let span = GoDuration.parse(text) { return Timestamp(nanoseconds: now.nanoseconds - span) }
    if let seconds = seconds(text) { return seconds }
    if let local = local(text) { return local }
    throw EngineError(
      .invalidArgument, "\"\(text)\" is not a time: write 2013-01-02T13:23:37Z, 1136073600, or 42m for 42 minutes ago")
  }

  private static func seconds(_ text: String) -> Timestamp? {
    let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }),
      let whole = Int64(parts[0]), whole < 9_000_000_000
    else { return nil }
    guard parts.count == 2 else { return Timestamp(nanoseconds: whole * 1_000_000_000) }
    let digits = parts[1].prefix(9)
    let fraction = Int64(digits + String(repeating: "0", count: 9 - digits.utf8.count)) ?? 0
    return Timestamp(nanoseconds: whole * 1_000_000_000 + fraction)
  }

  /// `2013-01-02`, `2013-01-02T13:23` and so on, without a zone: local time.
  private static func local(_ text: String) -> Timestamp? {
    let templates = ["", "T00:00:00Z", ":00:00Z", ":00Z", "Z"]
    guard let whole = templates.lazy.compactMap({ Timestamp(text + $0) }).first else { return nil }
    var seconds = time_t(whole.nanoseconds / 1_000_000_000)
    var broken = tm()
    gmtime_r(&seconds, &broken)
    broken.tm_isdst = -1
    let local = mktime(&broken)
    return Timestamp(nanoseconds: Int64(local) * 1_000_000_000 + whole.nanoseconds % 1_000_000_000)
  }
}

/// Durations as Go writes them: `1h30m`, `42m`, `1.5s`, `300ms`.
enum GoDuration {
  /// - Returns: nanoseconds, or nil for anything else.
  static func parse(_ text: String) -> Int64? {
    var rest = text[...]
    let isNegative = rest.first == "-"
    if isNegative || rest.first == "+" { rest.removeFirst() }
    guard !rest.isEmpty else { return nil }
    if rest == "0" { return 0 }
    var total = 0.0
    while !rest.isEmpty {
      let number = rest.prefix { $0 == "." || ("0"..."9").contains($0) }
      rest = rest[number.endIndex...]
      let unit = rest.prefix { $0 != "." && !("0"..."9").contains($0) }
      rest = rest[unit.endIndex...]
      guard let value = Decimal.parse(number) else { return nil }
      switch unit {
      case "ns": total += value
      case "us", "µs", "μs": total += value * 1e3
      case "ms": total += value * 1e6
      case "s": total += value * 1e9
      case "m": total += value * 60e9
      case "h": total += value * 3600e9
      default: return nil
      }
    }
    guard total < 0x1p63 else { return nil }
    return Int64(isNegative ? -total : total)
  }
}
