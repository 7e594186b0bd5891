/// A value in the configuration file.
public enum ConfigurationValue: Sendable, Equatable {
  case text(String)
  case integer(Int)
  case flag(Bool)
  case list([String])

  /// What a value of this kind is called in messages for people.
  public var kind: String {
    switch self {
    case .text: "a string"
    case .integer: "a whole number"
    case .flag: "true or false"
    case .list: "a list of strings"
    }
  }

  /// As plugins are given it: the elements of a list one a line.
  public var string: String {
    switch self {
    case .text(let text): text
    case .integer(let number): String(number)
    case .flag(let flag): flag ? "true" : "false"
    case .list(let elements): elements.joined(separator: "\n")
    }
  }

  /// As TOML writes it (https://toml.io/en/v1.0.0).
  public var toml: String {
    switch self {
    case .text(let text): Self.quoted(text)
    case .integer, .flag: string
    case .list(let elements): "[" + elements.map(Self.quoted).joined(separator: ", ") + "]"
    }
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\t": result += "\\t"
      case _ where scalar.value < 32 || scalar.value == 127:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}

/// What a text has to look like that is not empty.
public struct TextForm: Sendable, Equatable {
  /// In messages for people, after "must be".
  public var name: String
  private let accepts: @Sendable (String) -> Bool

  public init(_ name: String, _ accepts: @escaping @Sendable (String) -> Bool) {
    self.name = name
    self.accepts = accepts
  }

  public static let absolutePath = TextForm("an absolute path") { $0.hasPrefix("/") }

  public func takes(_ text: String) -> Bool { text.isEmpty || accepts(text) }

  public static func == (first: TextForm, second: TextForm) -> Bool { first.name == second.name }
}

/// One key that a plugin takes: its type is that of its default.
public struct ConfigurationKey: Sendable, Equatable {
  public var name: String
  public var standard: ConfigurationValue
  /// One sentence or two, for `config default`.
  public var explanation: String
  /// The only texts that are allowed, or empty for any.
  public var choices: [String]
  /// The numbers that are allowed.
  public var range: ClosedRange<Int>?
  /// What the texts look like that are allowed.
  public var form: TextForm?

  public init(
    _ name: String, _ standard: ConfigurationValue, choices: [String] = [], range: ClosedRange<Int>? = nil,
    form: TextForm? = nil, _ explanation: String
  ) {
    self.name = name
    self.standard = standard
    self.explanation = explanation
    self.choices = choices
    self.range = range
    self.form = form
  }

  /// - Returns: why the key cannot have this value, or nil.
  public func complaint(about value: ConfigurationValue) -> String? {
    switch (standard, value) {
    case (.text, .text(let text)):
      if let form, !form.takes(text) { return "must be \(form.name), not \(value.toml)" }
      if choices.isEmpty || choices.contains(text) { return nil }
      return "must be one of \(choices.joined(separator: ", ")), not \(value.toml)"
    case (.integer, .integer(let number)):
      guard let range, !range.contains(number) else { return nil }
      return "must be a number from \(range.lowerBound) to \(range.upperBound), not \(number)"
    case (.flag, .flag), (.list, .list): return nil
    default: return "must be \(standard.kind), not \(value.kind) (\(value.toml))"
    }
  }
}
