import CLinux
import Contracts
import Glibc

/// Amounts and times in the words of Docker (the Go package go-units).
enum HumanText {
  /// How long, roughly: `About a minute`, `3 hours`. Negative spans count as none.
  static func duration(nanoseconds: Int64) -> String {
    let seconds = nanoseconds / 1_000_000_000
    let minutes = seconds / 60
    let hours = (nanoseconds / 1_000_000_000 + 1800) / 3600
    switch seconds {
    case ..<1: return "Less than a second"
    case 1: return "1 second"
    case ..<60: return "\(seconds) seconds"
    default: break
    }
    if minutes == 1 { return "About a minute" }
    if minutes < 60 { return "\(minutes) minutes" }
    if hours == 1 { return "About an hour" }
    switch hours {
    case ..<48: return "\(hours) hours"
    case ..<(24 * 7 * 2): return "\(hours / 24) days"
    case ..<(24 * 30 * 2): return "\(hours / 24 / 7) weeks"
    case ..<(24 * 365 * 2): return "\(hours / 24 / 30) months"
    default: return "\(seconds / 3600 / 24 / 365) years"
    }
  }

  static func ago(_ time: Timestamp, now: Timestamp) -> String {
    time == .never ? "N/A" : duration(nanoseconds: now.nanoseconds - time.nanoseconds) + " ago"
  }

  /// Decimal units with three significant digits: `4.26MB`.
  static func size(_ bytes: Int64) -> String {
    scaled(Double(bytes), by: 1000, ["B", "kB", "MB", "GB", "TB", "PB"], 3)
  }

  /// Binary units with four significant digits: `15.58GiB`.
  static func binarySize(_ bytes: Int64) -> String {
    scaled(Double(bytes), by: 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
  }

  private static func scaled(_ value: Double, by base: Double, _ units: [String], _ digits: Int32) -> String {
    var value = value
    var index = 0
    while value >= base, index < units.count - 1 {
      value /= base
      index += 1
    }
    return general(value, digits: digits) + units[index]
  }

  /// C's `%.*g`.
  static func general(_ value: Double, digits: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 40)
    let count = withVaList([digits, value]) { vsnprintf(&buffer, buffer.count, "%.*g", $0) }
    return String(decoding: buffer.prefix(Int(count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// `2024-01-02 15:04:05 +0100 CET`, in local time, as Go prints a time.
  static func localTime(_ time: Timestamp) -> String { local(time, "%Y-%m-%d %H:%M:%S %z %Z") }

  /// As above with the fraction: `2024-01-02 15:04:05.123456789 +0000 UTC`.
  static func exactLocalTime(_ time: Timestamp) -> String {
    let fraction = time.nanoseconds % 1_000_000_000
    guard fraction > 0 else { return localTime(time) }
    var digits = String(fraction + 1_000_000_000).dropFirst()
    while digits.last == "0" { digits.removeLast() }
    return local(time, "%Y-%m-%d %H:%M:%S.\(digits) %z %Z")
  }

  /// `2024-01-02T15:04:05.123456789+01:00`, in local time, with all nine digits.
  static func logTime(_ time: Timestamp) -> String {
    let digits = String(time.nanoseconds % 1_000_000_000 + 1_000_000_000).dropFirst()
    let zone = local(time, "%z")
    return local(time, "%Y-%m-%dT%H:%M:%S.\(digits)") + zone.prefix(3) + ":" + zone.dropFirst(3)
  }

  private static func local(_ time: Timestamp, _ format: String) -> String {
    var seconds = time_t(time.nanoseconds / 1_000_000_000)
    var broken = tm()
    localtime_r(&seconds, &broken)
    var buffer = [CChar](repeating: 0, count: 80)
    let count = strftime(&buffer, buffer.count, format, &broken)
    return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// At most `width` characters, the last of them `…` where something was cut.
  static func ellipsis(_ text: String, _ width: Int) -> String {
    text.unicodeScalars.count <= width
      ? text : String(String.UnicodeScalarView(text.unicodeScalars.prefix(width - 1))) + "…"
  }

  /// In quotes, with Go's escapes.
  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case _ where scalar.value < 0x20 || scalar.value == 0x7F:
        let digits = String(scalar.value, radix: 16)
        result += "\\x" + (digits.utf8.count == 1 ? "0" : "") + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
