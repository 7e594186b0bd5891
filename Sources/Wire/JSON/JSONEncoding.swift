import Contracts

/// Encodes one value into the writer at a depth of open containers.
struct JSONValueEncoder: Encoder {
  let writer: JSONWriter
  /// Containers that were open when this value began.
  let depth: Int
  let descriptors: DescriptorTable?
  var codingPath: [any CodingKey] { [] }
  var userInfo: [CodingUserInfoKey: Any] { descriptors.map { [.descriptorTable: $0] } ?? [:] }

  func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    writer.close(to: depth)
    writer.beginObject()
    return KeyedEncodingContainer(JSONObjectEncoder<Key>(encoder: self, depth: depth + 1))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    writer.close(to: depth)
    writer.beginArray()
    return JSONArrayEncoder(encoder: self, depth: depth + 1)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer { self }

  /// Encodes a nested value and closes what it left open. A value that writes nothing is an empty object.
  func nested<Value: Encodable>(_ value: Value, depth: Int) throws {
    // A comparison of types is much cheaper than a cast, and nearly everything is none of these.
    if Value.self == String.self, let text = value as? String {
      writer.string(text)
    } else if Value.self == JSONValue.self, let value = value as? JSONValue {
      try writer.value(value)
    } else {
      let before = writer.bytes.count
      try value.encode(to: JSONValueEncoder(writer: writer, depth: depth, descriptors: descriptors))
      writer.close(to: depth)
      if writer.bytes.count == before { writer.raw("{}") }
    }
  }
}

extension JSONValueEncoder: SingleValueEncodingContainer {
  mutating func encodeNil() throws { writer.raw("null") }
  mutating func encode(_ value: Bool) throws { writer.raw(value ? "true" : "false") }
  mutating func encode(_ value: String) throws { writer.string(value) }
  mutating func encode(_ value: Double) throws { try writer.finite(value) }
  mutating func encode(_ value: Float) throws { try writer.finite(value) }
  mutating func encode(_ value: Int) throws { writer.raw(String(value)) }
  mutating func encode(_ value: Int8) throws { writer.raw(String(value)) }
  mutating func encode(_ value: Int16) throws { writer.raw(String(value)) }
  mutating func encode(_ value: Int32) throws { writer.raw(String(value)) }
  mutating func encode(_ value: Int64) throws { writer.raw(String(value)) }
  mutating func encode(_ value: UInt) throws { writer.raw(String(value)) }
  mutating func encode(_ value: UInt8) throws { writer.raw(String(value)) }
  mutating func encode(_ value: UInt16) throws { writer.raw(String(value)) }
  mutating func encode(_ value: UInt32) throws { writer.raw(String(value)) }
  mutating func encode(_ value: UInt64) throws { writer.raw(String(value)) }
  mutating func encode<Value: Encodable>(_ value: Value) throws { try nested(value, depth: depth) }
}

private struct JSONObjectEncoder<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let encoder: JSONValueEncoder
  /// The number of open containers with this one.
  let depth: Int
  var codingPath: [any CodingKey] { [] }

  mutating func encodeNil(forKey key: Key) throws {
    encoder.writer.key(key.stringValue, at: depth)
    encoder.writer.raw("null")
  }

  private func number(_ value: some FixedWidthInteger, _ key: Key) {
    encoder.writer.key(key.stringValue, at: depth)
    encoder.writer.raw(String(value))
  }

  mutating func encode(_ value: String, forKey key: Key) throws {
    encoder.writer.key(key.stringValue, at: depth)
    encoder.writer.string(value)
  }

  mutating func encode(_ value: Bool, forKey key: Key) throws {
    encoder.writer.key(key.stringValue, at: depth)
    encoder.writer.raw(value ? "true" : "false")
  }

  mutating func encode(_ value: Int, forKey key: Key) throws { number(value, key) }
  mutating func encode(_ value: Int32, forKey key: Key) throws { number(value, key) }
  mutating func encode(_ value: Int64, forKey key: Key) throws { number(value, key) }
  mutating func encode(_ value: UInt16, forKey key: Key) throws { number(value, key) }
  mutating func encode(_ value: UInt32, forKey key: Key) throws { number(value, key) }
  mutating func encode(_ value: UInt64, forKey key: Key) throws { number(value, key) }

  mutating func encode<Value: Encodable>(_ value: Value, forKey key: Key) throws {
    encoder.writer.key(key.stringValue, at: depth)
    try encoder.nested(value, depth: depth)
  }

  mutating func nestedContainer<Nested: CodingKey>(
    keyedBy type: Nested.Type, forKey key: Key
  ) -> KeyedEncodingContainer<Nested> {
    encoder.writer.key(key.stringValue, at: depth)
    encoder.writer.beginObject()
    return KeyedEncodingContainer(JSONObjectEncoder<Nested>(encoder: encoder, depth: depth + 1))
  }

  mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    encoder.writer.key(key.stringValue, at: depth)
    encoder.writer.beginArray()
    return JSONArrayEncoder(encoder: encoder, depth: depth + 1)
  }

  mutating func superEncoder() -> any Encoder { superEncoder(named: "super") }
  mutating func superEncoder(forKey key: Key) -> any Encoder { superEncoder(named: key.stringValue) }

  private func superEncoder(named name: String) -> any Encoder {
    encoder.writer.key(name, at: depth)
    return JSONValueEncoder(writer: encoder.writer, depth: depth, descriptors: encoder.descriptors)
  }
}

private struct JSONArrayEncoder: UnkeyedEncodingContainer {
  let encoder: JSONValueEncoder
  let depth: Int
  var codingPath: [any CodingKey] { [] }
  private(set) var count = 0

  init(encoder: JSONValueEncoder, depth: Int) {
    self.encoder = encoder
    self.depth = depth
  }

  private mutating func next() {
    count += 1
    encoder.writer.nextElement(at: depth)
  }

  mutating func encodeNil() throws {
    next()
    encoder.writer.raw("null")
  }

  mutating func encode<Value: Encodable>(_ value: Value) throws {
    next()
    try encoder.nested(value, depth: depth)
  }

  mutating func nestedContainer<Nested: CodingKey>(keyedBy type: Nested.Type) -> KeyedEncodingContainer<Nested> {
    next()
    encoder.writer.beginObject()
    return KeyedEncodingContainer(JSONObjectEncoder<Nested>(encoder: encoder, depth: depth + 1))
  }

  mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
    next()
    encoder.writer.beginArray()
    return JSONArrayEncoder(encoder: encoder, depth: depth + 1)
  }

  mutating func superEncoder() -> any Encoder {
    next()
    return JSONValueEncoder(writer: encoder.writer, depth: depth, descriptors: encoder.descriptors)
  }
}
