import Contracts

/// The protocol's own version: both sides of a connection must speak the same one.
public enum WireProtocol {
  public static let version = 1
  /// Notifications that are no plugin's messages.
  public static let hello = "hello"
  public static let cancel = "cancel"
  public static let element = "stream.element"
  public static let keepAlive = "stream.keep-alive"
}

/// The first message on every connection, in both directions.
public struct Hello: Codable, Sendable, Equatable {
  public var protocolVersion: Int
  /// Who speaks: `engine 0.1.0`, a driver's name.
  public var agent: String
  /// What the side can do beyond the base protocol.
  public var capabilities: [String]

  public init(protocolVersion: Int = WireProtocol.version, agent: String, capabilities: [String] = []) {
    self.protocolVersion = protocolVersion
    self.agent = agent
    self.capabilities = capabilities
  }

  /// - Throws: `versionMismatch` that names both sides.
  public func check() throws(EngineError) {
    guard protocolVersion == WireProtocol.version else {
      throw EngineError(
        .versionMismatch,
        "\(agent) speaks protocol version \(protocolVersion), this side version \(WireProtocol.version)")
    }
  }
}

extension Hello: DirectlyDecodable {
  public init?(json: JSONValue) {
    guard let version = json["protocolVersion"]?.whole(Int.self), let agent = json["agent"]?.string,
      let capabilities = json["capabilities"]?.strings
    else { return nil }
    self.init(protocolVersion: version, agent: agent, capabilities: capabilities)
  }

  var json: JSONValue {
    .members([
      "protocolVersion": .whole(protocolVersion), "agent": .string(agent), "capabilities": .strings(capabilities),
    ])
  }
}

/// Parameters or a result that is decoded when its type is known.
public struct Body: Sendable {
  public let value: JSONValue
  public let descriptors: DescriptorTable?

  public init(value: JSONValue, descriptors: DescriptorTable? = nil) {
    self.value = value
    self.descriptors = descriptors
  }

  public func decode<Value: Decodable>(_ type: Value.Type) throws(EngineError) -> Value {
    try JSON.decode(type, from: value, descriptors: descriptors)
  }

  public func decode<Value: DirectlyDecodable>(_ type: Value.Type) throws(EngineError) -> Value {
    if let value = Value(json: value) { return value }
    return try JSON.decode(type, from: value, descriptors: descriptors)
  }

  public func decode<Value: DirectlyDecodable>(_ type: Value?.Type) throws(EngineError) -> Value? {
    value == .null ? nil : try decode(Value.self)
  }

  public func decode<Element: DirectlyDecodable>(_ type: [Element].Type) throws(EngineError) -> [Element] {
    if let elements = value.list(Element.init(json:)) { return elements }
    return try JSON.decode(type, from: value, descriptors: descriptors)
  }
}

/// One JSON-RPC 2.0 message as it arrived (https://www.jsonrpc.org/specification), with the engine's additions beside
/// `params`: `driver`, `trace`, and `deadline` in milliseconds.
public enum RemoteMessage: Sendable {
  public struct Request: Sendable {
    public var id: UInt64
    public var method: String
    public var driver: String
    public var trace: String
    /// Milliseconds, or nil for none.
    public var deadline: Int64?
    public var parameters: Body
  }

  case request(Request)
  case notification(method: String, Body)
  case result(id: UInt64, Body)
  case failure(id: UInt64?, EngineError)

  /// - Throws: `protocolViolation` that says what is wrong with the message.
  public init(parsing frame: FrameReader.Frame) throws(EngineError) {
    let value = try JSON.parse(frame.payload)
    guard value["jsonrpc"] == .string("2.0") else {
      throw EngineError(.protocolViolation, "the message is not JSON-RPC 2.0")
    }
    let id: UInt64?
    switch value["id"] {
    case .integer(let number) where number >= 0: id = UInt64(number)
    case .unsigned(let number): id = number
    case nil, .null: id = nil
    default: throw EngineError(.protocolViolation, "the message's id is not a whole number")
    }
    if case .string(let method) = value["method"] {
      let body = Body(value: value["params"] ?? .object([]), descriptors: frame.descriptors)
      guard let id else {
        self = .notification(method: method, body)
        return
      }
      var deadline: Int64?
      if case .integer(let milliseconds) = value["deadline"] { deadline = max(0, milliseconds) }
      self = .request(
        Request(
          id: id, method: method, driver: Self.text(value["driver"]), trace: Self.text(value["trace"]),
          deadline: deadline, parameters: body))
    } else if let error = value["error"] {
      let data = error["data"] ?? .null
      let failure =
        (try? JSON.decode(EngineError.self, from: data))
        ?? EngineError(.internalFailure, Self.text(error["message"]))
      self = .failure(id: id, failure)
    } else if let result = value["result"], let id {
      self = .result(id: id, Body(value: result, descriptors: frame.descriptors))
    } else {
      throw EngineError(.protocolViolation, "the message is neither a request nor an answer")
    }
  }

  private static func text(_ value: JSONValue?) -> String {
    guard case .string(let text) = value else { return "" }
    return text
  }
}

/// Builds the frames of messages to be sent.
public enum OutgoingMessage {
  private struct Failure: Encodable {
    var code: Int
    var message: String
    var data: EngineError
  }

  private struct Element<Value: Encodable>: Encodable {
    var id: UInt64
    var value: Value
  }

  private struct Identifier: Codable {
    var id: UInt64
  }

  public static func request<Parameters: Encodable>(
    _ id: UInt64, _ method: String, _ parameters: Parameters, driver: String = "", trace: String = "",
    deadline: Int64? = nil
  ) throws(EngineError) -> OutgoingFrame {
    try frame(head(id, method, driver, trace, deadline), "params", parameters, DescriptorTable())
  }

  /// A message under its own name.
  public static func request<M: Message>(
    _ id: UInt64, _ message: M, driver: String = "", trace: String = "", deadline: Int64? = nil
  ) throws(EngineError) -> OutgoingFrame {
    let descriptors = DescriptorTable()
    let head = head(id, M.name, driver, trace, deadline)
    guard let json = message.json(descriptors) else { return try frame(head, "params", message, descriptors) }
    return try frame(head, "params", json, descriptors)
  }

  public static func notification<Parameters: Encodable>(
    _ method: String, _ parameters: Parameters
  ) throws(EngineError) -> OutgoingFrame {
    try frame(head(nil, method, "", "", nil), "params", parameters, DescriptorTable())
  }

  public static func hello(_ hello: Hello) throws(EngineError) -> OutgoingFrame {
    try notification(WireProtocol.hello, hello.json)
  }

  public static func cancel(_ id: UInt64) throws(EngineError) -> OutgoingFrame {
    try notification(WireProtocol.cancel, Identifier(id: id))
  }

  public static func element<Value: Encodable>(_ id: UInt64, _ value: Value) throws(EngineError) -> OutgoingFrame {
    try notification(WireProtocol.element, Element(id: id, value: value))
  }

  public static func keepAlive(_ id: UInt64) throws(EngineError) -> OutgoingFrame {
    try notification(WireProtocol.keepAlive, Identifier(id: id))
  }

  public static func result<Value: Encodable>(_ id: UInt64, _ value: Value) throws(EngineError) -> OutgoingFrame {
    try frame(["jsonrpc": .string("2.0"), "id": .whole(id)], "result", value, DescriptorTable())
  }

  /// The code of a JSON-RPC error is -32601 for an unknown method, -32600 for what breaks the protocol, and -32000 for
  /// the engine's own errors, which stand whole in `data`.
  public static func failure(_ id: UInt64?, _ error: EngineError) throws(EngineError) -> OutgoingFrame {
    let code =
      switch error.code {
      case .unknownMessage: -32601
      case .protocolViolation, .versionMismatch: -32600
      default: -32000
      }
    return try frame(
      ["jsonrpc": .string("2.0"), "id": id.map { .whole($0) }], "error",
      Failure(code: code, message: error.description, data: error), DescriptorTable())
  }

  private static func head(
    _ id: UInt64?, _ method: String, _ driver: String, _ trace: String, _ deadline: Int64?
  ) -> Head {
    [
      "jsonrpc": .string("2.0"), "id": id.map { .whole($0) }, "method": .string(method),
      "driver": driver.isEmpty ? nil : .string(driver), "trace": trace.isEmpty ? nil : .string(trace),
      "deadline": deadline.map(JSONValue.integer),
    ]
  }

  /// The members of a message before the last one; what is nil is absent.
  private typealias Head = KeyValuePairs<String, JSONValue?>

  /// - Parameters:
  ///   - key: the name of the last member.
  ///   - descriptors: collects those in `value`.
  private static func frame<Value: Encodable>(
    _ head: Head, _ key: String, _ value: Value, _ descriptors: DescriptorTable
  ) throws(EngineError) -> OutgoingFrame {
    let writer = JSONWriter(pretty: false)
    writer.beginObject()
    for (key, value) in head {
      guard let value else { continue }
      writer.key(key, at: 1)
      try writer.value(value)
    }
    writer.key(key, at: 1)
    do {
      try JSONValueEncoder(writer: writer, depth: 1, descriptors: descriptors).nested(value, depth: 1)
    } catch {
      throw EngineError(wrapping: error)
    }
    return try OutgoingFrame(payload: writer.finish(), descriptors: descriptors.outgoing)
  }

  /// The id that a `cancel`, `stream.element` or `stream.keep-alive` notification is about.
  public static func identifier(in body: Body) throws(EngineError) -> UInt64 {
    try body.decode(Identifier.self).id
  }
}
