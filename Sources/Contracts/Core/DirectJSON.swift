// `Codable` makes a container for each type of keys, and the first use of each costs a program more than a hundred
// members that it writes then. A client that lives for a millisecond only knows first uses, so what it sends and
// receives while a container is run, executed in or listed has a way to JSON and back that makes none. It means the
// same as that of `Codable`, byte for byte, to which a test holds it.

/// A value that reads itself from JSON directly.
public protocol DirectlyDecodable: Decodable {
  /// - Returns: nil for what does not fit; decoding it the usual way then says why.
  init?(json: JSONValue)
}

extension JSONValue {
  /// The members that have a value, in their order: absent is what is nil, as in `Codable`.
  public static func members(_ members: KeyValuePairs<String, JSONValue?>) -> JSONValue {
    var present: [Member] = []
    present.reserveCapacity(members.count)
    for (key, value) in members {
      if let value { present.append(Member(key, value)) }
    }
    return .object(present)
  }

  @inlinable
  public static func whole(_ number: some FixedWidthInteger) -> JSONValue {
    Int64(exactly: number).map(JSONValue.integer) ?? .unsigned(UInt64(truncatingIfNeeded: number))
  }

  public static func strings(_ texts: [String]) -> JSONValue { list(texts) { .string($0) } }

  static func list<Element>(_ values: [Element], _ json: (Element) -> JSONValue) -> JSONValue {
    .array(values.map(json))
  }

  static func dictionary(_ texts: [String: String]) -> JSONValue {
    .object(texts.map { Member($0.key, .string($0.value)) })
  }

  /// A case of an enumeration, as `Codable` writes it.
  static func choice(_ name: String, _ values: KeyValuePairs<String, JSONValue?> = [:]) -> JSONValue {
    .object([Member(name, .members(values))])
  }

  /// The case of an enumeration and its values.
  var choice: Member? {
    guard case .object(let members) = self, members.count == 1 else { return nil }
    return members[0]
  }

  public var string: String? {
    guard case .string(let text) = self else { return nil }
    return text
  }

  public var strings: [String]? { list { $0.string } }

  /// An array whose elements can all be read.
  @inlinable
  public func list<Element>(_ read: (JSONValue) -> Element?) -> [Element]? {
    guard case .array(let values) = self else { return nil }
    var elements: [Element] = []
    elements.reserveCapacity(values.count)
    for value in values {
      guard let element = read(value) else { return nil }
      elements.append(element)
    }
    return elements
  }

  var dictionary: [String: String]? {
    guard case .object(let members) = self else { return nil }
    var texts: [String: String] = [:]
    for member in members {
      guard case .string(let text) = member.value else { return nil }
      texts[member.key] = text
    }
    return texts
  }

  public var boolean: Bool? {
    guard case .boolean(let flag) = self else { return nil }
    return flag
  }

  @inlinable
  public func whole<Number: FixedWidthInteger>(_ type: Number.Type) -> Number? {
    switch self {
    case .integer(let number): Number(exactly: number)
    case .unsigned(let number): Number(exactly: number)
    default: nil
    }
  }
}
