/// A mistake in a template or in its execution, in the words of Go's text/template.
struct TemplateError: Error, Equatable, CustomStringConvertible {
  let description: String

  /// A mistake that is found while the template is read: `template: :1: unclosed action`.
  init(line: Int, _ why: String) { description = "template: :\(line): \(why)" }

  /// A mistake that is found while it is executed, at an operand.
  init(at position: TemplatePosition, _ subject: String, _ why: String) {
    description = "template: :\(position.line):\(position.column): executing \"\" at <\(subject)>: \(why)"
  }
}

/// Line from 1 and column in bytes from 0, as Go counts them.
struct TemplatePosition: Equatable, Sendable {
  var line: Int
  var column: Int
}

/// A piece of a template's text: what stands between actions, or an action's words.
enum TemplatePiece: Equatable {
  case text(String)
  case action([TemplateToken])
}

struct TemplateToken: Equatable, Sendable {
  enum Kind: Equatable, Sendable {
    /// `if`, `printf`, `true`.
    case identifier(String)
    /// `.Name`.
    case field(String)
    case dot
    /// `$` is empty.
    case variable(String)
    case string(String)
    case integer(Int64)
    case number(Double)
    case pipe, comma, declare, assign, open, close
  }
  var kind: Kind
  var position: TemplatePosition
  /// Whether a space stands before it, which ends an operand.
  var isSpaced: Bool
}

/// Cuts a template into pieces.
struct TemplateLexer {
  private var rest: Substring
  private var position = TemplatePosition(line: 1, column: 0)

  static func pieces(_ text: String) throws(TemplateError) -> [TemplatePiece] {
    var lexer = TemplateLexer(rest: text[...])
    return try lexer.pieces()
  }

  private init(rest: Substring) { self.rest = rest }

  private mutating func advance() -> Character? {
    guard let character = rest.popFirst() else { return nil }
    if character == "\n" {
      position = TemplatePosition(line: position.line + 1, column: 0)
    } else {
      position.column += String(character).utf8.count
    }
    return character
  }

  private mutating func skip(_ count: Int) { for _ in 0..<count { _ = advance() } }

  private static func isSpace(_ character: Character) -> Bool {
    character == " " || character == "\t" || character == "\n" || character == "\r" || character == "\r\n"
  }

  private mutating func pieces() throws(TemplateError) -> [TemplatePiece] {
    var pieces: [TemplatePiece] = []
    var trimsStart = false
    while !rest.isEmpty {
      var text = ""
      while !rest.isEmpty, !rest.hasPrefix("{{") { if let character = advance() { text.append(character) } }
      if trimsStart { text = String(text.drop(while: Self.isSpace)) }
      let trimsEnd = rest.hasPrefix("{{-") && rest.dropFirst(3).first.map(Self.isSpace) == true
      if trimsEnd { while let last = text.last, Self.isSpace(last) { text.removeLast() } }
      if !text.isEmpty { pieces.append(.text(text)) }
      if rest.isEmpty { break }
      skip(trimsEnd ? 3 : 2)
      let tokens = try action()
      if !tokens.isEmpty { pieces.append(.action(tokens)) }
      trimsStart = rest.hasPrefix("-}}")
      skip(trimsStart ? 3 : 2)
    }
    return pieces
  }

  /// The words up to the end of the action, which is left in `rest`.
  private mutating func action() throws(TemplateError) -> [TemplateToken] {
    let line = position.line
    var tokens: [TemplateToken] = []
    while true {
      var isSpaced = false
      while let next = rest.first, Self.isSpace(next) {
        isSpaced = true
        _ = advance()
      }
      if rest.hasPrefix("}}") || (isSpaced && rest.hasPrefix("-}}")) { return tokens }
      guard !rest.isEmpty else { throw TemplateError(line: line, "unclosed action") }
      if tokens.isEmpty, rest.hasPrefix("/*") {
        try comment(line)
        continue
      }
      let start = position
      tokens.append(TemplateToken(kind: try token(line), position: start, isSpaced: isSpaced))
    }
  }

  private mutating func comment(_ line: Int) throws(TemplateError) {
    while !rest.hasPrefix("*/") {
      guard advance() != nil else { throw TemplateError(line: line, "unclosed comment") }
    }
    skip(2)
  }

  private mutating func token(_ line: Int) throws(TemplateError) -> TemplateToken.Kind {
    guard let first = rest.first else { throw TemplateError(line: line, "unclosed action") }
    switch first {
    case "|", ",", "(", ")", "=":
      skip(1)
      return first == "|" ? .pipe : first == "," ? .comma : first == "(" ? .open : first == ")" ? .close : .assign
    case ":" where rest.hasPrefix(":="):
      skip(2)
      return .declare
    case "\"": return .string(try quoted(line))
    case "`":
      skip(1)
      var text = ""
      while let character = advance() {
        if character == "`" { return .string(text) }
        text.append(character)
      }
      throw TemplateError(line: line, "unterminated raw quoted string")
    case "$":
      skip(1)
      return .variable(word())
    case "." where rest.dropFirst().first?.isNumber != true:
      skip(1)
      let name = word()
      return name.isEmpty ? .dot : .field(name)
    case _ where first.isNumber || first == "-" || first == "+" || first == ".": return try number(line)
    default:
      let name = word()
      guard !name.isEmpty else {
        throw TemplateError(line: line, "unexpected \"\(first)\" in command")
      }
      return .identifier(name)
    }
  }

  private mutating func word() -> String {
    var text = ""
    while let next = rest.first, next.isLetter || next.isNumber || next == "_" {
      text.append(next)
      _ = advance()
    }
    return text
  }

  private mutating func number(_ line: Int) throws(TemplateError) -> TemplateToken.Kind {
    var text = ""
    while let next = rest.first, next.isNumber || next.isLetter || "+-._".contains(next) {
      text.append(next)
      _ = advance()
    }
    if let whole = Int64(text) { return .integer(whole) }
    if let value = Double(text) { return .number(value) }
    throw TemplateError(line: line, "bad number syntax: \"\(text)\"")
  }

  private mutating func quoted(_ line: Int) throws(TemplateError) -> String {
    skip(1)
    var text = ""
    while let character = advance() {
      if character == "\"" { return text }
      guard character == "\\" else {
        text.append(character)
        continue
      }
      switch advance() {
      case "n": text.append("\n")
      case "t": text.append("\t")
      case "r": text.append("\r")
      case "\\": text.append("\\")
      case "\"": text.append("\"")
      case "'": text.append("'")
      default: throw TemplateError(line: line, "invalid syntax in a quoted string")
      }
    }
    throw TemplateError(line: line, "unterminated quoted string")
  }
}
