import Contracts

/// JSON text as Go's encoding/json writes it, which is what scripts that read Docker's output are used to.
enum JSONText {
  /// - Parameters:
  ///   - indent: the text of one level, or nil for one line.
  ///   - escapesHTML: whether `<`, `>` and `&` are written as `\u003c`, `\u003e` and `\u0026`.
  static func write(_ value: JSONValue, indent: String? = nil, escapesHTML: Bool = false) -> String {
    var text = ""
    append(value, to: &text, indent: indent, level: 0, escapesHTML: escapesHTML)
    return text
  }

  private static func append(
    _ value: JSONValue, to text: inout String, indent: String?, level: Int, escapesHTML: Bool
  ) {
    func newLine(_ level: Int) {
      guard let indent else { return }
      text += "\n" + String(repeating: indent, count: level)
    }
    switch value {
    case .null: text += "null"
    case .boolean(let truth): text += truth ? "true" : "false"
    case .integer(let number): text += String(number)
    case .unsigned(let number): text += String(number)
    case .number(let number): text += Self.number(number)
    case .string(let string): appendString(string, to: &text, escapesHTML: escapesHTML)
    case .array(let values):
      if values.isEmpty {
        text += "[]"
        return
      }
      text += "["
      for (index, value) in values.enumerated() {
        if index > 0 { text += "," }
        newLine(level + 1)
        append(value, to: &text, indent: indent, level: level + 1, escapesHTML: escapesHTML)
      }
      newLine(level)
      text += "]"
    case .object(let members):
      if members.isEmpty {
        text += "{}"
        return
      }
      text += "{"
      for (index, member) in members.enumerated() {
        if index > 0 { text += "," }
        newLine(level + 1)
        appendString(member.key, to: &text, escapesHTML: escapesHTML)
        text += indent == nil ? ":" : ": "
        append(member.value, to: &text, indent: indent, level: level + 1, escapesHTML: escapesHTML)
      }
      newLine(level)
      text += "}"
    }
  }

  static func number(_ number: Double) -> String {
    if let whole = Int64(exactly: number) { return String(whole) }
    return "\(number)"
  }

  private static func appendString(_ string: String, to text: inout String, escapesHTML: Bool) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\u{8}": text += "\\b"
      case "\u{C}": text += "\\f"
      case "<" where escapesHTML, ">" where escapesHTML, "&" where escapesHTML, "\u{2028}", "\u{2029}",
        _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}

/// Short ways to build values.
extension JSONValue {
  static func sorted(_ dictionary: [String: String]) -> JSONValue {
    .object(dictionary.sorted { $0.key < $1.key }.map { Member($0.key, .string($0.value)) })
  }

  static func strings(_ texts: [String]) -> JSONValue { .array(texts.map { .string($0) }) }

  /// `null` for none, as Go writes a slice that nobody made.
  static func stringsOrNull(_ texts: [String]) -> JSONValue { texts.isEmpty ? .null : strings(texts) }

  /// The keys of an OCI set with `{}` for each.
  static func set(_ keys: some Sequence<String>) -> JSONValue { .object(keys.sorted().map { Member($0, .object([])) }) }

  static func int(_ value: some BinaryInteger) -> JSONValue {
    Int64(exactly: value).map { .integer($0) } ?? .unsigned(UInt64(clamping: value))
  }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(booleanLiteral value: Bool) { self = .boolean(value) }
  public init(integerLiteral value: Int64) { self = .integer(value) }
  public init(dictionaryLiteral elements: (String, JSONValue)...) {
    self = .object(elements.map { Member($0.0, $0.1) })
  }
  public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
}
