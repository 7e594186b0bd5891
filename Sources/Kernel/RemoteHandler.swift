import Contracts

/// The parameters of a message that arrived from another process, decoded once its handler's type is known.
protocol RemoteParameters: Sendable {
  func decode<Value: Decodable>(_ type: Value.Type) throws(EngineError) -> Value
}

typealias Answer = any Encodable & Sendable

/// A handler behind a message's name: decodes the parameters, answers, and hands elements and reply on undecided how
/// they will be encoded.
struct RemoteHandler: Sendable {
  typealias Emit = @Sendable (Answer) async throws(EngineError) -> Void
  let run: @Sendable (any RemoteParameters, Call, @escaping Emit) async throws(EngineError) -> Answer

  static func request<R: Request>(_ type: R.Type, _ body: @escaping RequestHandler<R>) -> RemoteHandler {
    RemoteHandler { (parameters, call, _) async throws(EngineError) -> Answer in
      try await body(try parameters.decode(type), call)
    }
  }

  static func stream<R: StreamRequest>(_ type: R.Type, _ body: @escaping StreamHandler<R>) -> RemoteHandler {
    RemoteHandler { (parameters, call, emit) async throws(EngineError) -> Answer in
      let sink = Sink<R.Element> { (element) async throws(EngineError) in try await emit(element) }
      return try await body(try parameters.decode(type), call, sink)
    }
  }
}
