import Contracts

/// The functions of Docker's templates and those of text/template that make sense over JSON.
enum TemplateFunctions {
  static let names: Set<String> = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "len", "print", "printf", "println", "slice",
    "json", "join", "lower", "upper", "title", "split", "pad", "truncate",
  ]

  /// Why a call failed; the caller knows where.
  struct Mistake: Error {
    let message: String
    init(_ message: String) { self.message = message }
  }

  static func call(_ name: String, _ arguments: [TemplateValue]) throws(Mistake) -> TemplateValue {
    func need(_ count: Int) throws(Mistake) {
      guard arguments.count == count else {
        throw Mistake("wrong number of args for \(name): want \(count) got \(arguments.count)")
      }
    }
    func string(_ index: Int) throws(Mistake) -> String {
      guard case .string(let text) = arguments[index].json else {
        throw Mistake("wrong type for value; expected string; got \(arguments[index].text)")
      }
      return text
    }
    func integer(_ index: Int) throws(Mistake) -> Int {
      guard case .integer(let number) = arguments[index].json else {
        throw Mistake("wrong type for value; expected int; got \(arguments[index].text)")
      }
      return Int(number)
    }
    switch name {
    case "not":
      try need(1)
      return TemplateValue(json: .boolean(!arguments[0].isTrue))
    case "eq", "ne", "lt", "le", "gt", "ge": return TemplateValue(json: .boolean(try compare(name, arguments)))
    case "index": return try index(arguments)
    case "slice":
      guard let first = arguments.first else { throw Mistake("wrong number of args for slice: want at least 1 got 0") }
      return try slice(first, Array(arguments.dropFirst()))
    case "len":
      try need(1)
      switch arguments[0].json {
      case .string(let text): return TemplateValue(json: .int(text.utf8.count))
      case .array(let values): return TemplateValue(json: .int(values.count))
      case .object(let members): return TemplateValue(json: .int(members.count))
      case nil, .null: return TemplateValue(json: .integer(0))
      case .boolean, .integer, .unsigned, .number: throw Mistake("len of type \(arguments[0].text)")
      }
    case "print": return TemplateValue(json: .string(printed(arguments)))
    case "println": return TemplateValue(json: .string(arguments.map(\.text).joined(separator: " ") + "\n"))
    case "printf":
      guard !arguments.isEmpty else { throw Mistake("wrong number of args for printf: want at least 1 got 0") }
      return TemplateValue(json: .string(TemplatePrintf.format(try string(0), Array(arguments.dropFirst()))))
    case "json":
      try need(1)
      return TemplateValue(json: .string(JSONText.write(arguments[0].json ?? .null)))
    case "join":
      try need(2)
      return TemplateValue(json: .string(try elements(arguments[0]).joined(separator: try string(1))))
    case "split":
      try need(2)
      return TemplateValue(json: .strings(split(try string(0), try string(1))))
    case "lower":
      try need(1)
      return TemplateValue(json: .string(try string(0).lowercased()))
    case "upper":
      try need(1)
      return TemplateValue(json: .string(try string(0).uppercased()))
    case "title":
      try need(1)
      return TemplateValue(json: .string(titled(try string(0))))
    case "pad":
      try need(3)
      let spaces = { (count: Int) in String(repeating: " ", count: max(0, count)) }
      return TemplateValue(json: .string(spaces(try integer(1)) + (try string(0)) + spaces(try integer(2))))
    case "truncate":
      try need(2)
      return TemplateValue(json: .string(String(try string(0).prefix(try integer(1)))))
    default: throw Mistake("no such function")
    }
  }

  private static func elements(_ value: TemplateValue) throws(Mistake) -> [String] {
    switch value.json {
    case nil, .null: return []
    case .array(let values): return values.map { TemplateValue(json: $0).text }
    default: throw Mistake("wrong type for value; expected []string; got \(value.text)")
    }
  }

  /// Go's Sprint: spaces only between operands of which neither is a string.
  private static func printed(_ arguments: [TemplateValue]) -> String {
    var text = ""
    var wasString = true
    for (index, argument) in arguments.enumerated() {
      var isString = false
      if case .string = argument.json { isString = true }
      if index > 0, !isString, !wasString { text += " " }
      text += argument.text
      wasString = isString
    }
    return text
  }

  private static func split(_ text: String, _ separator: String) -> [String] {
    if separator.isEmpty { return text.map { String($0) } }
    var parts: [String] = []
    var rest = text[...]
    while let found = rest.firstOccurrence(of: separator) {
      parts.append(String(rest[..<found.lowerBound]))
      rest = rest[found.upperBound...]
    }
    return parts + [String(rest)]
  }

  private static func titled(_ text: String) -> String {
    var result = ""
    var isStart = true
    for character in text {
      result += isStart ? character.uppercased() : String(character)
      isStart = !(character.isLetter || character.isNumber || character == "_" || character == "'")
    }
    return result
  }

  private static func index(_ arguments: [TemplateValue]) throws(Mistake) -> TemplateValue {
    guard var value = arguments.first else { throw Mistake("wrong number of args for index: want at least 1 got 0") }
    for key in arguments.dropFirst() {
      switch (value.json, key.json) {
      case (.array(let values), .integer(let number)):
        guard values.indices.contains(Int(number)) else { throw Mistake("index out of range: \(number)") }
        value = TemplateValue(json: values[Int(number)])
      case (.object, .string(let name)): value = TemplateValue(json: value.json?[name])
      case (.array, _): throw Mistake("cannot index slice/array with type \(key.text)")
      case (.object, _): throw Mistake("value has type \(key.text); should be string")
      case (nil, _), (.null, _): throw Mistake("index of untyped nil")
      case (.string, _), (.boolean, _), (.integer, _), (.unsigned, _), (.number, _):
        throw Mistake("can't index item of type \(value.text)")
      }
    }
    return value
  }

  private static func slice(_ value: TemplateValue, _ limits: [TemplateValue]) throws(Mistake) -> TemplateValue {
    var numbers: [Int] = []
    for limit in limits {
      guard case .integer(let number) = limit.json else { throw Mistake("cannot index slice/array with \(limit.text)") }
      numbers.append(Int(number))
    }
    func range(_ count: Int) throws(Mistake) -> Range<Int> {
      let (low, high) = (numbers.first ?? 0, numbers.count > 1 ? numbers[1] : count)
      guard low >= 0, low <= high, high <= count else { throw Mistake("index out of range: \(high)") }
      return low..<high
    }
    switch value.json {
    case .string(let text):
      let bytes = Array(text.utf8)
      return TemplateValue(json: .string(String(decoding: bytes[try range(bytes.count)], as: UTF8.self)))
    case .array(let values): return TemplateValue(json: .array(Array(values[try range(values.count)])))
    default: throw Mistake("can't slice item of type \(value.text)")
    }
  }

  private static func compare(_ name: String, _ arguments: [TemplateValue]) throws(Mistake) -> Bool {
    guard arguments.count >= 2 else { throw Mistake("missing argument for comparison") }
    let left = arguments[0].json
    if name == "eq" {
      for right in arguments.dropFirst() where try equal(left, right.json) { return true }
      return false
    }
    let right = arguments[1].json
    if name == "ne" { return try !equal(left, right) }
    let isLess: Bool
    let isEqual: Bool
    if case .string(let first) = left, case .string(let second) = right {
      (isLess, isEqual) = (first < second, first == second)
    } else if let first = number(left), let second = number(right) {
      (isLess, isEqual) = (first < second, first == second)
    } else {
      throw Mistake("incompatible types for comparison")
    }
    switch name {
    case "lt": return isLess
    case "le": return isLess || isEqual
    case "gt": return !isLess && !isEqual
    default: return !isLess
    }
  }

  private static func equal(_ left: JSONValue?, _ right: JSONValue?) throws(Mistake) -> Bool {
    if let first = number(left), let second = number(right) { return first == second }
    switch (left, right) {
    case (.string(let first), .string(let second)): return first == second
    case (.boolean(let first), .boolean(let second)): return first == second
    case (nil, nil), (.null, .null), (nil, .null), (.null, nil): return true
    case (nil, _), (_, nil), (.null, _), (_, .null): return false
    default: throw Mistake("incompatible types for comparison")
    }
  }

  private static func number(_ value: JSONValue?) -> Double? {
    switch value {
    case .integer(let number): Double(number)
    case .unsigned(let number): Double(number)
    case .number(let number): number
    default: nil
    }
  }
}
