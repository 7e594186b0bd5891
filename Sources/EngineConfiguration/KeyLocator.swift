/// Finds the line of each key in a TOML text that is known to be correct: the parser tells values, not places.
struct KeyLocator {
  private var lines: [String: Int] = [:]

  init(_ text: String) {
    var table: [String] = []
    // Inside a value that goes on over lines: how deep in brackets, and whether in a string of three quotes.
    var depth = 0
    var quotes: Character?
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      var scanner = LineScanner(line, depth: depth, quotes: quotes)
      defer { (depth, quotes) = (scanner.depth, scanner.quotes) }
      if scanner.isInsideValue {
        scanner.skipValue()
        continue
      }
      scanner.skipBlanks()
      guard let first = scanner.peek, first != "#" else { continue }
      if first == "[" {
        scanner.skip("[")
        table = scanner.path()
        note(table, index + 1)
      } else {
        note(table + scanner.path(), index + 1)
        scanner.skipValue()
      }
    }
  }

  private mutating func note(_ path: [String], _ line: Int) {
    let key = Self.key(path)
    if lines[key] == nil { lines[key] = line }
  }

  /// The line of a key, or of the nearest table around it, from 1 on.
  func line(of path: [String]) -> Int {
    var path = path
    while !path.isEmpty {
      if let line = lines[Self.key(path)] { return line }
      // A table that only its parts name: the first of them.
      let prefix = Self.key(path) + "\0"
      if let line = lines.filter({ $0.key.hasPrefix(prefix) }).values.min() { return line }
      path.removeLast()
    }
    return 1
  }

  private static func key(_ path: [String]) -> String { path.joined(separator: "\0") }
}

/// One line, character by character.
private struct LineScanner {
  private var rest: Substring
  var depth: Int
  var quotes: Character?

  init(_ line: Substring, depth: Int, quotes: Character?) {
    rest = line
    self.depth = depth
    self.quotes = quotes
  }

  var isInsideValue: Bool { depth > 0 || quotes != nil }
  var peek: Character? { rest.first }

  mutating func skipBlanks() { rest = rest.drop { $0 == " " || $0 == "\t" || $0 == "\r" } }

  mutating func skip(_ character: Character) { rest = rest.drop { $0 == character } }

  /// A dotted key up to `=` or `]`, which is taken too.
  mutating func path() -> [String] {
    var parts: [String] = []
    while true {
      skipBlanks()
      guard let first = rest.first else { return parts }
      if first == "=" || first == "]" {
        rest = rest.dropFirst()
        return parts
      }
      if first == "." {
        rest = rest.dropFirst()
      } else if first == "\"" || first == "'" {
        rest = rest.dropFirst()
        parts.append(String(rest.prefix { $0 != first }))
        rest = rest.drop { $0 != first }.dropFirst()
      } else {
        let part = rest.prefix { $0 != "." && $0 != "=" && $0 != "]" && $0 != " " && $0 != "\t" }
        parts.append(String(part))
        rest = rest.dropFirst(part.count)
      }
    }
  }

  /// Goes over the rest of the line and remembers whether the value ends on it.
  mutating func skipValue() {
    while let first = rest.first {
      if let open = quotes {
        let end = String(repeating: open, count: 3)
        if rest.hasPrefix(end) {
          quotes = nil
          rest = rest.dropFirst(3)
        } else {
          rest = rest.dropFirst(first == "\\" && open == "\"" ? 2 : 1)
        }
        continue
      }
      switch first {
      case "#": return
      case "[", "{": depth += 1
      case "]", "}": depth -= 1
      case "\"", "'":
        if rest.hasPrefix(String(repeating: first, count: 3)) {
          quotes = first
          rest = rest.dropFirst(3)
        } else {
          skipString(first)
        }
        continue
      default: break
      }
      rest = rest.dropFirst()
    }
  }

  private mutating func skipString(_ quote: Character) {
    rest = rest.dropFirst()
    while let next = rest.first, next != quote { rest = rest.dropFirst(next == "\\" && quote == "\"" ? 2 : 1) }
    rest = rest.dropFirst()
  }
}
