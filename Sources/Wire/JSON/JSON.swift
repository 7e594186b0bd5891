import Contracts

/// JSON (RFC 8259) for the wire, the records and the CLI.
///
/// It is the engine's own because Foundation's costs the CLI more time to load (0.5 ms) than all its other work.
public enum JSON {
  /// Containers may be nested this deep; deeper text is refused, so that hostile input cannot exhaust the stack.
  public static let maximumDepth = 128

  /// A value as JSON text.
  ///
  /// - Parameters:
  ///   - descriptors: collects the descriptors in the value; without it a value that has one cannot be encoded.
  /// - Throws: `internalFailure` for a value that JSON cannot express (a number that is not finite).
  public static func encode<Value: Encodable>(
    _ value: Value, pretty: Bool = false, descriptors: DescriptorTable? = nil
  ) throws(EngineError) -> [UInt8] {
    let writer = JSONWriter(pretty: pretty)
    let encoder = JSONValueEncoder(writer: writer, depth: 0, descriptors: descriptors)
    do {
      try value.encode(to: encoder)
    } catch {
      throw EngineError(wrapping: error)
    }
    return writer.finish()
  }

  /// A value from JSON text. Members that the type does not know are passed over.
  ///
  /// - Throws: `protocolViolation` that names the place in the text or the path in the value.
  public static func decode<Value: Decodable>(
    _ type: Value.Type, _ bytes: some Collection<UInt8>
  ) throws(EngineError) -> Value {
    try decode(type, from: try parse(bytes))
  }

  /// A value from parsed JSON.
  public static func decode<Value: Decodable>(
    _ type: Value.Type, from value: JSONValue, descriptors: DescriptorTable? = nil
  ) throws(EngineError) -> Value {
    do {
      return try Value(from: JSONValueDecoder(value: value, codingPath: [], descriptors: descriptors))
    } catch let error as DecodingError {
      // With the types around it, as in `VolumeDriverCreate.Reply`, but not its module.
      let name = String(reflecting: Value.self).drop { $0 != "." }.dropFirst()
      throw EngineError(.protocolViolation, "the message does not fit \(name): \(Self.text(of: error))")
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  /// Any JSON text as a value.
  public static func parse(_ bytes: some Collection<UInt8>) throws(EngineError) -> JSONValue {
    var parser = JSONParser(bytes: ContiguousArray(bytes))
    return try parser.parseWhole()
  }

  /// A parsed value as text; with `pretty`, indented by four spaces as `docker inspect` prints.
  public static func write(_ value: JSONValue, pretty: Bool = false) throws(EngineError) -> String {
    String(decoding: try encode(value, pretty: pretty), as: UTF8.self)
  }

  private static func text(of error: DecodingError) -> String {
    func at(_ context: DecodingError.Context) -> String {
      let path = context.codingPath.map(\.stringValue).joined(separator: ".")
      return path.isEmpty ? context.debugDescription : "\(path): \(context.debugDescription)"
    }
    switch error {
    case .keyNotFound(let key, let context):
      let path = (context.codingPath.map(\.stringValue) + [key.stringValue]).joined(separator: ".")
      return "\(path) is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
      return at(context)
    @unknown default:
      return "\(error)"
    }
  }
}
