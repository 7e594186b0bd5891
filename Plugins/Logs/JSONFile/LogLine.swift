/// One line of a json-file log, as places in the bytes of the line:
/// `{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}`.
struct LogLine: Equatable {
  /// The text, still escaped.
  var text: Range<Int> = 0..<0
  var isError = false
  var time: Range<Int> = 0..<0

  /// - Returns: nil for bytes that are not such an object: a line that a crash cut short.
  init?(_ bytes: UnsafeRawBufferPointer) {
    var index = 0
    func skipSpaces() { while index < bytes.count, bytes[index] == 32 || bytes[index] == 9 { index += 1 } }
    func take(_ byte: UInt8) -> Bool {
      skipSpaces()
      guard index < bytes.count, bytes[index] == byte else { return false }
      index += 1
      return true
    }
    func string() -> Range<Int>? {
      guard take(34) else { return nil }
      let start = index
      while index < bytes.count {
        switch bytes[index] {
        case 34:
          index += 1
          return start..<(index - 1)
        case 92: index += 2
        default: index += 1
        }
      }
      return nil
    }
    func isEqual(_ range: Range<Int>, _ word: StaticString) -> Bool {
      word.withUTF8Buffer { bytes[range].elementsEqual($0) }
    }
    guard take(123) else { return nil }
    repeat {
      guard let key = string(), take(58), let value = string() else { return nil }
      if isEqual(key, "log") {
        text = value
      } else if isEqual(key, "stream") {
        isError = isEqual(value, "stderr")
      } else if isEqual(key, "time") {
        time = value
      }
    } while take(44)
    guard take(125) else { return nil }
  }

  /// Appends a JSON string's content without its escapes (RFC 8259, section 7).
  static func unescape(_ bytes: Slice<UnsafeRawBufferPointer>, into output: inout [UInt8]) {
    guard bytes.contains(92) else {
      output.append(contentsOf: bytes)
      return
    }
    var index = bytes.startIndex
    func hexadecimal() -> UInt32? {
      guard index + 4 <= bytes.endIndex else { return nil }
      var value: UInt32 = 0
      for digit in bytes[index..<index + 4] {
        switch digit {
        case 48...57: value = value << 4 | UInt32(digit - 48)
        case 65...70: value = value << 4 | UInt32(digit - 55)
        case 97...102: value = value << 4 | UInt32(digit - 87)
        default: return nil
        }
      }
      index += 4
      return value
    }
    while index < bytes.endIndex {
      let byte = bytes[index]
      index += 1
      guard byte == 92, index < bytes.endIndex else {
        output.append(byte)
        continue
      }
      let escape = bytes[index]
      index += 1
      switch escape {
      case 98: output.append(8)
      case 102: output.append(12)
      case 110: output.append(10)
      case 114: output.append(13)
      case 116: output.append(9)
      case 117:
        var value = hexadecimal() ?? 0xfffd
        if 0xd800...0xdbff ~= value, index + 1 < bytes.endIndex, bytes[index] == 92, bytes[index + 1] == 117 {
          let second = index
          index += 2
          if let low = hexadecimal(), 0xdc00...0xdfff ~= low {
            value = 0x10000 + (value - 0xd800) << 10 + (low - 0xdc00)
          } else {
            index = second
          }
        }
        output.append(contentsOf: UTF8.encode(Unicode.Scalar(value) ?? "\u{fffd}") ?? UTF8.encodedReplacementCharacter)
      default: output.append(escape)
      }
    }
  }

  /// RFC 3339 text in UTC with nine digits of fraction, as `--timestamps` prints it; in this form times compare as text.
  static func padded(_ time: some Collection<UInt8>) -> [UInt8] {
    var text = Array(time)
    guard text.last == 90 else { return text }
    text.removeLast()
    if text.count == 19 { text.append(46) }
    while text.count < 29 { text.append(48) }
    text.append(90)
    return text
  }
}
