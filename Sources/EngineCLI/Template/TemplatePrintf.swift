import Contracts

/// Go's Printf for the verbs that templates use: `%s %v %d %q %t %x %f %g %%`, with `-`, `0`, `+`, width and precision.
enum TemplatePrintf {
  static func format(_ format: String, _ arguments: [TemplateValue]) -> String {
    var result = ""
    var values = arguments[...]
    var rest = format[...]
    while let character = rest.popFirst() {
      guard character == "%" else {
        result.append(character)
        continue
      }
      var directive = Directive()
      while let flag = rest.first, "-0+ #".contains(flag) {
        directive.flags.insert(flag)
        rest.removeFirst()
      }
      directive.width = number(&rest)
      if rest.first == "." {
        rest.removeFirst()
        directive.precision = number(&rest) ?? 0
      }
      guard let verb = rest.popFirst() else { return result + "%!(NOVERB)" }
      if verb == "%" {
        result.append("%")
      } else if let value = values.popFirst() {
        result += directive.pad(directive.text(verb, value))
      } else {
        result += "%!\(verb)(MISSING)"
      }
    }
    if !values.isEmpty {
      result += "%!(EXTRA \(values.map(\.text).joined(separator: ", ")))"
    }
    return result
  }

  private static func number(_ rest: inout Substring) -> Int? {
    let digits = rest.prefix { ("0"..."9").contains($0) }
    rest = rest[digits.endIndex...]
    return Int(digits)
  }

  private struct Directive {
    var flags: Set<Character> = []
    var width: Int?
    var precision: Int?

    func text(_ verb: Character, _ value: TemplateValue) -> String {
      switch (verb, value.json) {
      case ("v", _): return value.text
      case ("s", .string(let text)): return precision.map { String(text.prefix($0)) } ?? text
      case ("q", .string(let text)): return HumanText.quoted(text)
      case ("x", .string(let text)): return text.utf8.map { Self.hexadecimal($0) }.joined()
      case ("t", .boolean(let truth)): return truth ? "true" : "false"
      case ("d", .integer(let number)): return signed(String(number), number >= 0)
      case ("d", .unsigned(let number)): return signed(String(number), true)
      case ("x", .integer(let number)): return String(number, radix: 16)
      case ("X", .integer(let number)): return String(number, radix: 16, uppercase: true)
      case ("o", .integer(let number)): return String(number, radix: 8)
      case ("f", .number(let number)): return Self.fixed(number, precision ?? 6)
      case ("g", .number(let number)): return HumanText.general(number, digits: Int32(precision ?? 15))
      case ("s", _) where value.json != nil: return value.text
      default: return "%!\(verb)(\(value.text))"
      }
    }

    func pad(_ text: String) -> String {
      guard let width, text.count < width else { return text }
      let missing = width - text.count
      if flags.contains("-") { return text + String(repeating: " ", count: missing) }
      return String(repeating: flags.contains("0") ? "0" : " ", count: missing) + text
    }

    private func signed(_ text: String, _ isPositive: Bool) -> String {
      flags.contains("+") && isPositive ? "+\(text)" : text
    }

    private static func hexadecimal(_ byte: UInt8) -> String {
      (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }

    private static func fixed(_ number: Double, _ precision: Int) -> String {
      var scale = 1.0
      for _ in 0..<precision { scale *= 10 }
      let scaled = (number.magnitude * scale).rounded()
      guard scaled < 0x1p63 else { return "\(number)" }
      let digits = String(Int64(scaled))
      let padded = String(repeating: "0", count: max(0, precision + 1 - digits.count)) + digits
      let sign = number < 0 ? "-" : ""
      return sign + padded.dropLast(precision) + (precision > 0 ? "." + padded.suffix(precision) : "")
    }
  }
}
