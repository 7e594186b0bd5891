import CLinux
import Contracts
import Glibc
import LinuxSystem

/// A connection to an engine for a program with one thread: requests are sent, answers are received in the order in
/// which the engine gives them. What it leased is given back when the connection is closed.
public struct Client: ~Copyable {
  /// One message of the engine.
  public enum Incoming: Sendable {
    case element(id: UInt64, Body)
    case reply(id: UInt64, Body)
    case failure(id: UInt64, EngineError)
  }

  private struct StreamElement: Decodable {
    var id: UInt64
    var value: JSONValue
  }

  private let socket: OwnedDescriptor
  private var reader = FrameReader()
  private var nextID: UInt64 = 1

  /// Connects to the engine's socket. The greeting travels with the first request, so it costs no round trip.
  ///
  /// - Throws: `unavailable` when nobody listens at `path`.
  public init(path: String, agent: String = "engine") throws(EngineError) {
    try self.init(adopting: try Self.connect(path), agent: agent)
  }

  private static func connect(_ path: String) throws(EngineError) -> OwnedDescriptor {
    do {
      return try UnixSocket.connect(path)
    } catch {
      throw EngineError(.unavailable, "cannot connect to the engine at \(path): \(error.reason)")
    }
  }

  /// Speaks over a socket that is connected already.
  public init(adopting socket: consuming OwnedDescriptor, agent: String) throws(EngineError) {
    let number = socket.number
    self.socket = socket
    try OutgoingMessage.hello(Hello(agent: agent)).sendAll(to: number)
  }

  /// To poll for messages; call `receiveBuffered` first, since several may arrive at once.
  public var descriptor: Int32 { socket.number }

  /// Sends a request and returns its id, by which its answers are known.
  ///
  /// - Parameters:
  ///   - trace: names the operation, for `TraceRead` afterwards; empty when nothing is to be recorded.
  ///   - deadline: milliseconds after which the engine answers `deadlineExceeded`.
  public mutating func send<M: Message>(
    _ message: M, driver: String = "", trace: String = "", deadline: Int64? = nil
  ) throws(EngineError) -> UInt64 {
    let id = nextID
    nextID += 1
    try OutgoingMessage.request(id, M.name, message, driver: driver, trace: trace, deadline: deadline)
      .sendAll(to: socket.number)
    return id
  }

  /// Asks the engine to give up a request; it still answers, usually with `cancelled`.
  public mutating func cancel(_ id: UInt64) throws(EngineError) {
    try OutgoingMessage.cancel(id).sendAll(to: socket.number)
  }

  /// Waits for the next message.
  ///
  /// - Throws: `unavailable` when the engine went away.
  public mutating func receive() throws(EngineError) -> Incoming {
    while true {
      if let message = try receiveBuffered() { return message }
      if case .endOfStream = try reader.receive(from: socket.number) {
        throw EngineError(.unavailable, "the engine closed the connection; containers that run go on")
      }
    }
  }

  /// The next message of those that have arrived already, or nil.
  public mutating func receiveBuffered() throws(EngineError) -> Incoming? {
    while let frame = try reader.next() {
      switch try RemoteMessage(parsing: frame) {
      case .result(let id, let body): return .reply(id: id, body)
      case .failure(let id?, let error): return .failure(id: id, error)
      case .failure(nil, let error): throw error
      case .notification(WireProtocol.element, let body):
        let element = try body.decode(StreamElement.self)
        return .element(id: element.id, Body(value: element.value, descriptors: body.descriptors))
      case .notification(WireProtocol.hello, let body):
        try body.decode(Hello.self).check()
      case .notification, .request:
        continue
      }
    }
    return nil
  }

  /// Takes in what has arrived, without waiting, for `receiveBuffered` to give out: for programs that poll.
  ///
  /// - Throws: `unavailable` when the engine went away.
  public mutating func receiveAvailable() throws(EngineError) {
    if case .endOfStream = try reader.receive(from: socket.number, flags: Int32(MSG_DONTWAIT)) {
      throw EngineError(.unavailable, "the engine closed the connection; containers that run go on")
    }
  }

  /// Sends a request and waits for its reply.
  public mutating func request<R: Request>(
    _ request: R, driver: String = "", trace: String = "", deadline: Int64? = nil
  ) throws(EngineError) -> R.Reply {
    let id = try send(request, driver: driver, trace: trace, deadline: deadline)
    while true {
      switch try receive() {
      case .reply(id, let body): return try body.decode(R.Reply.self)
      case .failure(id, let error): throw error
      case .reply, .failure, .element: continue
      }
    }
  }
}
