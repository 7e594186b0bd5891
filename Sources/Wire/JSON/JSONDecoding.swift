import Contracts

/// Decodes a value from parsed JSON.
///
/// Paths are for errors only: where decoding succeeds nobody makes one, and where it fails each value on the way out
/// puts its key in front.
struct JSONValueDecoder: Decoder {
  let value: JSONValue
  let codingPath: [any CodingKey]
  let descriptors: DescriptorTable?
  var userInfo: [CodingUserInfoKey: Any] { descriptors.map { [.descriptorTable: $0] } ?? [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
    guard case .object(let members) = value else { throw mismatch("an object") }
    return KeyedDecodingContainer(JSONObjectDecoder<Key>(members: members, decoder: self))
  }

  func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
    guard case .array(let values) = value else { throw mismatch("an array") }
    return JSONArrayDecoder(values: values, decoder: self)
  }

  func singleValueContainer() throws -> any SingleValueDecodingContainer { self }

  /// For decoders that are handed out, whose errors do not pass by here.
  func nested(_ value: JSONValue, _ key: any CodingKey) -> JSONValueDecoder {
    JSONValueDecoder(value: value, codingPath: codingPath + [key], descriptors: descriptors)
  }

  /// Decodes a member or an element.
  func within<Value>(
    _ value: JSONValue, _ key: @autoclosure () -> any CodingKey, _ body: (JSONValueDecoder) throws -> Value
  ) throws -> Value {
    do {
      return try body(JSONValueDecoder(value: value, codingPath: [], descriptors: descriptors))
    } catch let error as DecodingError {
      throw error.moved(below: codingPath + [key()])
    }
  }

  func mismatch(_ expected: String) -> DecodingError {
    let found =
      switch value {
      case .null: "null"
      case .boolean: "a boolean"
      case .integer, .unsigned, .number: "a number"
      case .string: "a string"
      case .array: "an array"
      case .object: "an object"
      }
    return .typeMismatch(
      JSONValue.self,
      DecodingError.Context(codingPath: codingPath, debugDescription: "\(expected) was expected, not \(found)"))
  }

  private func outOfRange(_ type: Any.Type) -> DecodingError {
    .dataCorrupted(DecodingError.Context(codingPath: codingPath, debugDescription: "the number does not fit \(type)"))
  }

  func whole<Number: FixedWidthInteger>(_ type: Number.Type) throws -> Number {
    let number: Number?
    switch value {
    case .integer(let value): number = Number(exactly: value)
    case .unsigned(let value): number = Number(exactly: value)
    case .number(let value): number = Number(exactly: value)
    default: throw mismatch("a whole number")
    }
    guard let number else { throw outOfRange(type) }
    return number
  }

  func floating() throws -> Double {
    switch value {
    case .integer(let value): return Double(value)
    case .unsigned(let value): return Double(value)
    case .number(let value): return value
    default: throw mismatch("a number")
    }
  }
}

extension JSONValueDecoder: SingleValueDecodingContainer {
  func decodeNil() -> Bool { value == .null }

  func decode(_ type: Bool.Type) throws -> Bool {
    guard case .boolean(let flag) = value else { throw mismatch("a boolean") }
    return flag
  }

  func decode(_ type: String.Type) throws -> String {
    guard case .string(let text) = value else { throw mismatch("a string") }
    return text
  }

  func decode(_ type: Double.Type) throws -> Double { try floating() }
  func decode(_ type: Float.Type) throws -> Float { Float(try floating()) }
  func decode(_ type: Int.Type) throws -> Int { try whole(type) }
  func decode(_ type: Int8.Type) throws -> Int8 { try whole(type) }
  func decode(_ type: Int16.Type) throws -> Int16 { try whole(type) }
  func decode(_ type: Int32.Type) throws -> Int32 { try whole(type) }
  func decode(_ type: Int64.Type) throws -> Int64 { try whole(type) }
  func decode(_ type: UInt.Type) throws -> UInt { try whole(type) }
  func decode(_ type: UInt8.Type) throws -> UInt8 { try whole(type) }
  func decode(_ type: UInt16.Type) throws -> UInt16 { try whole(type) }
  func decode(_ type: UInt32.Type) throws -> UInt32 { try whole(type) }
  func decode(_ type: UInt64.Type) throws -> UInt64 { try whole(type) }
  func decode<Value: Decodable>(_ type: Value.Type) throws -> Value { try Value(from: self) }
}

private struct JSONObjectDecoder<Key: CodingKey>: KeyedDecodingContainerProtocol {
  private let members: [JSONValue.Member]
  private let decoder: JSONValueDecoder
  private let order = Order()

  /// Types read their members in the order in which they write them, and dictionaries in the object's own, so the next
  /// one is nearly always the one after the last.
  private final class Order {
    // Unchecked: used by one decoder on one thread, and never while it is being changed.
    @exclusivity(unchecked) var next = 0
    /// Made for what comes in another order, when the object is large.
    @exclusivity(unchecked) var index: [String: Int]?
  }

  init(members: [JSONValue.Member], decoder: JSONValueDecoder) {
    self.members = members
    self.decoder = decoder
  }

  var codingPath: [any CodingKey] { decoder.codingPath }
  var allKeys: [Key] { members.compactMap { Key(stringValue: $0.key) } }

  /// The member of that name; which one of several is not said, as in RFC 8259.
  private func find(_ name: String) -> JSONValue? {
    let next = order.next
    if next < members.count, members[next].key == name {
      order.next = next + 1
      return members[next].value
    }
    return scan(name)
  }

  private func scan(_ name: String) -> JSONValue? {
    if members.count > 24 {
      let index =
        order.index
        ?? Dictionary(members.enumerated().map { ($1.key, $0) }, uniquingKeysWith: { _, last in last })
      order.index = index
      guard let found = index[name] else { return nil }
      order.next = found + 1
      return members[found].value
    }
    guard let found = members.lastIndex(where: { $0.key == name }) else { return nil }
    order.next = found + 1
    return members[found].value
  }

  private func value(_ key: Key) throws -> JSONValue {
    guard let value = find(key.stringValue) else {
      throw DecodingError.keyNotFound(
        key, DecodingError.Context(codingPath: codingPath, debugDescription: "missing"))
    }
    return value
  }

  private func member(_ key: Key) throws -> JSONValueDecoder { decoder.nested(try value(key), key) }

  private func whole<Number: FixedWidthInteger>(_ type: Number.Type, _ key: Key) throws -> Number {
    try decoder.within(try value(key), key) { try $0.whole(type) }
  }

  func contains(_ key: Key) -> Bool {
    // `decodeIfPresent` asks this, then whether it is null, then for the value: the place must not move on.
    let next = order.next
    defer { order.next = next }
    return find(key.stringValue) != nil
  }

  func decodeNil(forKey key: Key) throws -> Bool {
    let next = order.next
    let isNull = try value(key) == .null
    if !isNull { order.next = next }
    return isNull
  }

  func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool {
    try decoder.within(try value(key), key) { try $0.decode(type) }
  }
  func decode(_ type: String.Type, forKey key: Key) throws -> String {
    try decoder.within(try value(key), key) { try $0.decode(type) }
  }
  func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try whole(type, key) }
  func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { try whole(type, key) }
  func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try whole(type, key) }
  func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try whole(type, key) }
  func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try whole(type, key) }
  func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try whole(type, key) }

  func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
    try decoder.within(try value(key), key) { try Value(from: $0) }
  }

  func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) throws -> KeyedDecodingContainer<Nested> {
    try member(key).container(keyedBy: type)
  }

  func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
    try member(key).unkeyedContainer()
  }

  func superDecoder() throws -> any Decoder {
    decoder.nested(find("super") ?? .null, IndexKey(intValue: 0))
  }

  func superDecoder(forKey key: Key) throws -> any Decoder { try member(key) }
}

private struct IndexKey: CodingKey {
  let index: Int
  var stringValue: String { String(index) }
  var intValue: Int? { index }

  init(intValue: Int) { index = intValue }
  init?(stringValue: String) { nil }
}

private struct JSONArrayDecoder: UnkeyedDecodingContainer {
  let values: [JSONValue]
  let decoder: JSONValueDecoder
  private(set) var currentIndex = 0

  init(values: [JSONValue], decoder: JSONValueDecoder) {
    self.values = values
    self.decoder = decoder
  }

  var codingPath: [any CodingKey] { decoder.codingPath }
  var count: Int? { values.count }
  var isAtEnd: Bool { currentIndex >= values.count }

  private mutating func nextValue() throws -> JSONValue {
    guard !isAtEnd else {
      throw DecodingError.valueNotFound(
        JSONValue.self, DecodingError.Context(codingPath: codingPath, debugDescription: "the array ends early"))
    }
    defer { currentIndex += 1 }
    return values[currentIndex]
  }

  private mutating func next() throws -> JSONValueDecoder {
    let index = currentIndex
    return decoder.nested(try nextValue(), IndexKey(intValue: index))
  }

  mutating func decodeNil() throws -> Bool {
    guard !isAtEnd, values[currentIndex] == .null else { return false }
    currentIndex += 1
    return true
  }

  mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
    let index = currentIndex
    return try decoder.within(try nextValue(), IndexKey(intValue: index)) { try Value(from: $0) }
  }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type
  ) throws -> KeyedDecodingContainer<Nested> {
    try next().container(keyedBy: type)
  }

  mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer { try next().unkeyedContainer() }
  mutating func superDecoder() throws -> any Decoder { try next() }
}

extension DecodingError {
  /// The same error, further down.
  func moved(below path: [any CodingKey]) -> DecodingError {
    func moved(_ context: Context) -> Context {
      Context(
        codingPath: path + context.codingPath, debugDescription: context.debugDescription,
        underlyingError: context.underlyingError)
    }
    switch self {
    case .keyNotFound(let key, let context): return .keyNotFound(key, moved(context))
    case .typeMismatch(let type, let context): return .typeMismatch(type, moved(context))
    case .valueNotFound(let type, let context): return .valueNotFound(type, moved(context))
    case .dataCorrupted(let context): return .dataCorrupted(moved(context))
    @unknown default: return self
    }
  }
}
