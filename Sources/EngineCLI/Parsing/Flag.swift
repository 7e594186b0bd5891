import Contracts

/// One flag of a command, as the table says it: the parser, the help and the completions all read this.
struct Flag: Sendable {
  enum Kind: Sendable, Equatable {
    /// Takes a value only with `=`, as in `--rm=false`.
    case boolean(Bool)
    /// Takes one value; the last one counts.
    case single
    /// Takes one value each time; all count.
    case list
  }

  let name: String
  let short: Character?
  let kind: Kind
  /// The word for the value in the help, for example `string`.
  let valueName: String
  let help: String
  /// Refuses a value that the flag cannot have.
  let check: (@Sendable (String) throws(EngineError) -> Void)?
  /// Older or shorter names that mean the same.
  let aliases: [String]
  /// Understood, but not shown in the help.
  let isHidden: Bool

  init(
    _ name: String, _ short: Character? = nil, kind: Kind, valueName: String, help: String,
    aliases: [String] = [], isHidden: Bool = false, check: (@Sendable (String) throws(EngineError) -> Void)? = nil
  ) {
    self.name = name
    self.short = short
    self.kind = kind
    self.valueName = valueName
    self.help = help
    self.check = check
    self.aliases = aliases
    self.isHidden = isHidden
  }

  static func boolean(
    _ name: String, _ short: Character? = nil, _ help: String, initially: Bool = false
  ) -> Flag {
    Flag(name, short, kind: .boolean(initially), valueName: "", help: help)
  }

  static func string(
    _ name: String, _ short: Character? = nil, _ help: String, type: String = "string", aliases: [String] = [],
    check: (@Sendable (String) throws(EngineError) -> Void)? = nil
  ) -> Flag {
    Flag(name, short, kind: .single, valueName: type, help: help, aliases: aliases, check: check)
  }

  static func list(
    _ name: String, _ short: Character? = nil, _ help: String, type: String = "list", aliases: [String] = [],
    check: (@Sendable (String) throws(EngineError) -> Void)? = nil
  ) -> Flag {
    Flag(name, short, kind: .list, valueName: type, help: help, aliases: aliases, check: check)
  }

  static func integer(_ name: String, _ short: Character? = nil, _ help: String, aliases: [String] = []) -> Flag {
    Flag(name, short, kind: .single, valueName: "int", help: help, aliases: aliases) { (text) throws(EngineError) in
      _ = try Integer.parse(text)
    }
  }

  /// One of Docker's flags that the engine knows and cannot do yet: refused in words instead of `unknown flag`.
  static func unavailable(_ name: String) -> Flag {
    Flag(name, nil, kind: .list, valueName: "string", help: "", isHidden: true) { (_) throws(EngineError) in
      throw EngineError(.unsupported, "this engine does not support it yet; leave the flag out")
    }
  }

  /// One of Docker's flags that asks for nothing here.
  static func ignored(_ name: String) -> Flag {
    Flag(name, nil, kind: .boolean(false), valueName: "", help: "", isHidden: true)
  }

  /// `-m, --memory`, as the messages about it say it.
  var display: String { short.map { "-\($0), --\(name)" } ?? "--\(name)" }

  var takesValue: Bool {
    switch kind {
    case .boolean: false
    case .single, .list: true
    }
  }
}

/// Whole numbers with the words of Go's strconv, which Docker prints.
enum Integer {
  static func parse(_ text: String) throws(EngineError) -> Int {
    if let value = Int(text) { return value }
    let digits = text.utf8.first == 0x2D || text.utf8.first == 0x2B ? Substring(text).dropFirst() : Substring(text)
    let why =
      !digits.isEmpty && digits.utf8.allSatisfy { (0x30...0x39).contains($0) } ? "value out of range" : "invalid syntax"
    throw EngineError(.invalidArgument, "strconv.ParseInt: parsing \"\(text)\": \(why)")
  }

  static func parse<Value: FixedWidthInteger & UnsignedInteger>(
    _ text: String, as type: Value.Type
  ) throws(EngineError) -> Value {
    if let value = Value(text), text.utf8.first != 0x2B { return value }
    let why =
      !text.isEmpty && text.utf8.allSatisfy { (0x30...0x39).contains($0) } ? "value out of range" : "invalid syntax"
    throw EngineError(.invalidArgument, "strconv.ParseUint: parsing \"\(text)\": \(why)")
  }
}

/// Truth values as Go's strconv.ParseBool reads them.
enum Truth {
  static func parse(_ text: String) throws(EngineError) -> Bool {
    switch text {
    case "1", "t", "T", "TRUE", "true", "True": return true
    case "0", "f", "F", "FALSE", "false", "False": return false
    default: throw EngineError(.invalidArgument, "strconv.ParseBool: parsing \"\(text)\": invalid syntax")
    }
  }
}
