import Contracts

/// Writes JSON text in one pass. Containers are opened as they are asked for and closed when something is written
/// further out, which fits every encoder that finishes one container before it goes on with the one around it.
final class JSONWriter {
  // Unchecked: one encoder on one thread writes here, and no method calls out while it changes one of them. With the
  // checks a fifth of the time goes to them.
  @exclusivity(unchecked) private(set) var bytes: [UInt8] = []
  @exclusivity(unchecked) private var open: [(close: UInt8, isEmpty: Bool)] = []
  private let pretty: Bool

  init(pretty: Bool) {
    self.pretty = pretty
    bytes.reserveCapacity(512)
  }

  /// How many containers are open.
  var depth: Int { open.count }

  func finish() -> [UInt8] {
    close(to: 0)
    if bytes.isEmpty { bytes = [UInt8(ascii: "{"), UInt8(ascii: "}")] }
    return bytes
  }

  func close(to depth: Int) {
    while open.count > depth {
      let container = open.removeLast()
      if pretty && !container.isEmpty { newLine() }
      bytes.append(container.close)
    }
  }

  func beginObject() {
    bytes.append(UInt8(ascii: "{"))
    open.append((UInt8(ascii: "}"), true))
  }

  func beginArray() {
    bytes.append(UInt8(ascii: "["))
    open.append((UInt8(ascii: "]"), true))
  }

  /// Goes on in the container at `depth` (1 is the outermost) with its next element.
  func nextElement(at depth: Int) {
    close(to: depth)
    if !open[depth - 1].isEmpty { bytes.append(UInt8(ascii: ",")) }
    open[depth - 1].isEmpty = false
    if pretty { newLine() }
  }

  func key(_ text: String, at depth: Int) {
    nextElement(at: depth)
    string(text)
    bytes.append(UInt8(ascii: ":"))
    if pretty { bytes.append(UInt8(ascii: " ")) }
  }

  /// A whole value, below what is open.
  func value(_ value: JSONValue) throws(EngineError) {
    switch value {
    case .null: raw("null")
    case .boolean(let flag): raw(flag ? "true" : "false")
    case .integer(let number): raw(String(number))
    case .unsigned(let number): raw(String(number))
    case .number(let number): try finite(number)
    case .string(let text): string(text)
    case .array(let values):
      beginArray()
      let inside = depth
      for value in values {
        nextElement(at: inside)
        try self.value(value)
      }
      close(to: inside - 1)
    case .object(let members):
      beginObject()
      let inside = depth
      for member in members {
        key(member.key, at: inside)
        try self.value(member.value)
      }
      close(to: inside - 1)
    }
  }

  func finite(_ value: some BinaryFloatingPoint & CustomStringConvertible) throws(EngineError) {
    guard value.isFinite else { throw EngineError(.internalFailure, "JSON has no number for \(value)") }
    let text = value.description
    raw(text.hasSuffix(".0") ? text.dropLast(2) : text[...])
  }

  func raw(_ text: some StringProtocol) { bytes.append(contentsOf: text.utf8) }

  func string(_ text: String) {
    bytes.append(UInt8(ascii: "\""))
    var text = text
    text.withUTF8 { utf8 in
      if utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x22 && $0 != 0x5C }) {
        bytes.append(contentsOf: utf8)
      } else {
        for byte in utf8 { escape(byte) }
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }

  private func escape(_ byte: UInt8) {
    switch byte {
    case 0x22: raw("\\\"")
    case 0x5C: raw("\\\\")
    case 0x0A: raw("\\n")
    case 0x0D: raw("\\r")
    case 0x09: raw("\\t")
    case 0..<0x20:
      raw("\\u00")
      for digit in [byte >> 4, byte & 15] { bytes.append(digit < 10 ? 48 + digit : 87 + digit) }
    default: bytes.append(byte)
    }
  }

  private func newLine() {
    bytes.append(0x0A)
    bytes.append(contentsOf: repeatElement(0x20, count: open.count * 4))
  }
}
