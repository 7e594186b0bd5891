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

  /// Connects for the attempt of that number, from 0 on; it may start an engine, and throws when it has had enough.
  public typealias Connector = (_ attempt: Int) throws(EngineError) -> OwnedDescriptor

  private var socket: OwnedDescriptor
  private var reader = FrameReader()
  private var nextID: UInt64 = 1
  private let agent: String
  /// Nil where a broken connection is final.
  private let connector: Connector?
  private var attempts = 1
  private var isGreeted = false
  /// The connection ended after the engine had greeted.
  private var isBroken = false
  /// What was sent and not yet read by anybody for certain: an engine greets before it looks at the first request.
  private var unread: [OutgoingFrame] = []

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
    self.agent = agent
    connector = nil
    try OutgoingMessage.hello(Hello(agent: agent)).sendAll(to: number)
  }

  /// Connects with `connector`, and again when the engine dies before it greeted: then nothing that was sent has been
  /// done, so all of it is sent again. A request that changes nothing is repeated even later, once.
  public init(agent: String = "engine", connecting connector: @escaping Connector) throws(EngineError) {
    let hello = try OutgoingMessage.hello(Hello(agent: agent))
    let socket = try connector(0)
    // An engine that is gone already is noticed with the first request.
    try? hello.sendAll(to: socket.number)
    self.socket = socket
    self.agent = agent
    self.connector = connector
    unread = [hello]
  }

  private mutating func transmit(_ frame: OutgoingFrame) throws(EngineError) {
    if connector != nil, !isGreeted { unread.append(frame) }
    do throws(EngineError) {
      try frame.sendAll(to: socket.number)
    } catch {
      try recover(from: error)
    }
  }

  /// Connects again and sends again what no engine has read; rethrows what cannot be mended so.
  private mutating func recover(from failure: EngineError) throws(EngineError) {
    guard let connector, failure.code == .unavailable else { throw failure }
    // A greeting may have come before the end: then some of the requests may have been done.
    while !isGreeted, let frame = try? reader.next() { try take(greeting: frame) }
    while !isGreeted, case .bytes? = try? reader.receive(from: socket.number) {
      while !isGreeted, let frame = try reader.next() { try take(greeting: frame) }
    }
    guard !isGreeted else {
      isBroken = true
      throw failure
    }
    try reconnect(connector)
  }

  private mutating func reconnect(_ connector: Connector) throws(EngineError) {
    let attempt = attempts
    attempts += 1
    socket = try connector(attempt)
    reader = FrameReader()
    do throws(EngineError) {
      for frame in unread { try frame.sendAll(to: socket.number) }
    } catch {
      try recover(from: error)
    }
  }

  private mutating func take(greeting frame: FrameReader.Frame) throws(EngineError) {
    switch try RemoteMessage(parsing: frame) {
    case .notification(WireProtocol.hello, let body): try greet(body)
    case .failure(nil, let error): throw error
    default: throw EngineError(.protocolViolation, "the engine's first message is no greeting")
    }
  }

  private mutating func greet(_ body: Body) throws(EngineError) {
    try body.decode(Hello.self).check()
    isGreeted = true
    unread = []
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
    try transmit(
      try OutgoingMessage.request(id, message, driver: driver, trace: trace, deadline: deadline))
    return id
  }

  /// Asks the engine to give up a request; it still answers, usually with `cancelled`.
  public mutating func cancel(_ id: UInt64) throws(EngineError) {
    try transmit(try OutgoingMessage.cancel(id))
  }

  /// Waits for the next message.
  ///
  /// - Throws: `unavailable` when the engine went away.
  public mutating func receive() throws(EngineError) -> Incoming {
    while true {
      if let message = try receiveBuffered() { return message }
      try fill(flags: 0)
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
        guard let id = body.value["id"]?.whole(UInt64.self), let value = body.value["value"] else {
          throw EngineError(.protocolViolation, "the element of a stream does not say of which, or what it is")
        }
        return .element(id: id, Body(value: value, descriptors: body.descriptors))
      case .notification(WireProtocol.hello, let body): try greet(body)
      case .notification, .request:
        continue
      }
    }
    return nil
  }

  /// Takes in what has arrived, without waiting, for `receiveBuffered` to give out: for programs that poll.
  ///
  /// - Throws: `unavailable` when the engine went away.
  public mutating func receiveAvailable() throws(EngineError) { try fill(flags: Int32(MSG_DONTWAIT)) }

  private mutating func fill(flags: Int32) throws(EngineError) {
    do throws(EngineError) {
      guard case .endOfStream = try reader.receive(from: socket.number, flags: flags) else { return }
      throw EngineError(.unavailable, "the engine closed the connection; containers that run go on")
    } catch {
      try recover(from: error)
    }
  }

  /// Waits until the engine has answered the greeting.
  ///
  /// - Returns: false when it did not within so many milliseconds, or went away.
  public mutating func awaitGreeting(milliseconds: Int32) -> Bool {
    while !isGreeted {
      var waiting = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
      guard poll(&waiting, 1, milliseconds) == 1 else { return false }
      do throws(EngineError) {
        try receiveAvailable()
        while !isGreeted, let frame = try reader.next() { try take(greeting: frame) }
      } catch {
        return false
      }
    }
    return true
  }

  /// Sends a request and waits for its reply.
  public mutating func request<R: Request>(
    _ request: R, driver: String = "", trace: String = "", deadline: Int64? = nil
  ) throws(EngineError) -> R.Reply {
    let read = { (body: Body) throws(EngineError) in try body.decode(R.Reply.self) }
    return try answer(to: request, driver, trace, deadline, read)
  }

  /// Sends a request and waits for its reply, a list that is read directly.
  public mutating func request<R: Request, Element: DirectlyDecodable>(
    _ request: R, driver: String = "", trace: String = "", deadline: Int64? = nil
  ) throws(EngineError) -> R.Reply where R.Reply == [Element] {
    let read = { (body: Body) throws(EngineError) in try body.decode([Element].self) }
    return try answer(to: request, driver, trace, deadline, read)
  }

  private mutating func answer<R: Request>(
    to request: R, _ driver: String, _ trace: String, _ deadline: Int64?,
    _ read: (Body) throws(EngineError) -> R.Reply
  ) throws(EngineError) -> R.Reply {
    do throws(EngineError) {
      return try exchange(request, driver, trace, deadline, read)
    } catch {
      // An answer of the engine's own is final, whatever its code.
      guard R.isRepeatable, let connector, isBroken else { throw error }
      isBroken = false
      isGreeted = false
      unread = [try OutgoingMessage.hello(Hello(agent: agent))]
      try reconnect(connector)
      return try exchange(request, driver, trace, deadline, read)
    }
  }

  private mutating func exchange<R: Request>(
    _ request: R, _ driver: String, _ trace: String, _ deadline: Int64?,
    _ read: (Body) throws(EngineError) -> R.Reply
  ) throws(EngineError) -> R.Reply {
    let id = try send(request, driver: driver, trace: trace, deadline: deadline)
    while true {
      switch try receive() {
      case .reply(id, let body): return try read(body)
      case .failure(id, let error): throw error
      case .reply, .failure, .element: continue
      }
    }
  }
}
