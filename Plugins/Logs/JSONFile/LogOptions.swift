import Contracts

/// What `--log-opt` says. By default a log is rotated at 10 MB and three files are kept.
struct LogOptions: Equatable {
  /// Bytes of one file; `Int64.max` for no limit.
  var maximumSize: Int64 = 10 << 20
  var maximumFiles = 3

  init(_ options: [String: String]) throws(EngineError) {
    for (name, value) in options.sorted(by: { $0.key < $1.key }) {
      switch name {
      case "max-size":
        guard let size = Self.size(value) else {
          throw EngineError(.invalidArgument, "invalid log opt max-size: invalid size: '\(value)'")
        }
        maximumSize = size
      case "max-file":
        guard let count = Int(value) else {
          throw EngineError(.invalidArgument, "invalid log opt max-file: invalid number: '\(value)'")
        }
        guard count >= 1 else { throw EngineError(.invalidArgument, "max-file cannot be less than 1") }
        maximumFiles = count
      default:
        throw EngineError(.invalidArgument, "unknown log opt '\(name)' for json-file log driver")
      }
    }
  }

  /// Docker's sizes: a number and `b`, `k`, `m`, `g` or `t` in powers of 1024, with or without a further `b`; `-1` is
  /// no limit.
  static func size(_ text: String) -> Int64? {
    if text == "-1" { return .max }
    var number = Substring(text.lowercased())
    var factor: Int64 = 1
    if number.hasSuffix("b") { number.removeLast() }
    let units: [Character: Int64] = ["k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40]
    if let last = number.last, let unit = units[last] {
      factor = unit
      number.removeLast()
    }
    guard let first = number.utf8.first, (48...57).contains(first) else { return nil }
    if let value = Int64(number) {
      let (size, overflows) = value.multipliedReportingOverflow(by: factor)
      return overflows || size <= 0 ? nil : size
    }
    guard let value = Double(number), value.isFinite, value * Double(factor) < 9e18, value * Double(factor) >= 1 else {
      return nil
    }
    return Int64(value * Double(factor))
  }
}
