/// What a registry asks for in `WWW-Authenticate` (RFC 9110, 11.6.1).
struct Challenge: Equatable, Sendable {
  enum Scheme: Equatable, Sendable {
    case basic
    case bearer
  }

  var scheme: Scheme
  /// By name in lower case; the first of a name counts.
  var parameters: [String: String]

  /// Picks the challenge that can be met: a bearer token before basic; others are passed over.
  static func pick(from headers: [String]) -> Challenge? {
    let all = headers.prefix(8).flatMap { parse($0) }
    return all.first { $0.scheme == .bearer && $0.parameters["realm"] != nil } ?? all.first { $0.scheme == .basic }
  }

  /// Every challenge of one header line that is understood. Several stand with commas between them, as do their
  /// parameters; a word that no `=` follows begins a new one.
  static func parse(_ header: String) -> [Challenge] {
    guard header.utf8.count <= 16 << 10 else { return [] }
    var scanner = Scanner(bytes: Array(header.utf8))
    var found: [(name: String, parameters: [String: String])] = []
    while true {
      scanner.skipSeparators()
      guard let word = scanner.token() else { break }
      if let value = scanner.value() {
        guard !found.isEmpty else { return [] }
        let name = word.lowercased()
        if found[found.count - 1].parameters[name] == nil { found[found.count - 1].parameters[name] = value }
      } else {
        found.append((word.lowercased(), [:]))
      }
    }
    return found.compactMap { name, parameters in
      switch name {
      case "basic": Challenge(scheme: .basic, parameters: parameters)
      case "bearer": Challenge(scheme: .bearer, parameters: parameters)
      default: nil
      }
    }
  }

  private struct Scanner {
    let bytes: [UInt8]
    var position = 0

    mutating func skipSpaces() {
      while position < bytes.count, bytes[position] == 0x20 || bytes[position] == 0x09 { position += 1 }
    }

    mutating func skipSeparators() {
      while position < bytes.count, bytes[position] == 0x20 || bytes[position] == 0x09 || bytes[position] == 0x2C {
        position += 1
      }
    }

    /// token of RFC 9110, 5.6.2 (and what Basic's token68 adds, which nobody reads here).
    mutating func token() -> String? {
      let start = position
      while position < bytes.count, Self.isTokenByte(bytes[position]) { position += 1 }
      return position == start ? nil : String(decoding: bytes[start..<position], as: UTF8.self)
    }

    /// `=` and a token or a quoted text; nil and nothing taken when no `=` follows.
    mutating func value() -> String? {
      let back = position
      skipSpaces()
      guard position < bytes.count, bytes[position] == UInt8(ascii: "=") else {
        position = back
        return nil
      }
      position += 1
      skipSpaces()
      guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else {
        let start = position
        while position < bytes.count, bytes[position] != 0x2C, bytes[position] != 0x20 { position += 1 }
        return String(decoding: bytes[start..<position], as: UTF8.self)
      }
      position += 1
      var text: [UInt8] = []
      while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
        if bytes[position] == UInt8(ascii: "\\"), position + 1 < bytes.count { position += 1 }
        text.append(bytes[position])
        position += 1
      }
      position += 1
      return String(decoding: text, as: UTF8.self)
    }

    static func isTokenByte(_ byte: UInt8) -> Bool {
      switch byte {
      case 48...57, 65...90, 97...122: true
      default: "!#$%&'*+-.^_`|~/".utf8.contains(byte)
      }
    }
  }
}
