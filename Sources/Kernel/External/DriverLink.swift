import CLinux
import Contracts
import Glibc
import LinuxSystem
import Synchronization
import Wire

/// The conversation with one process of a driver: requests that wait for their answers, and bytes that wait for the
/// socket. One thread reads (`DriverProcess`); any may ask.
final class DriverLink: Sendable {
  enum Item: Sendable {
    case element(Body)
    case end(Result<Body, EngineError>)
  }

  private enum Waiter {
    case request(Once<Result<Body, EngineError>>)
    case stream(AsyncStream<Item>.Continuation)
  }

  private struct State: ~Copyable {
    var pending: [UInt64: (message: String, waiter: Waiter)] = [:]
    var nextID: UInt64 = 1
    var output: [OutgoingFrame] = []
    var offset = 0
    var bytes = 0
    /// Why nothing can be asked any more.
    var ended: EngineError?
  }

  /// Bytes of one answer; bulk goes through descriptors, so more is a fault.
  static let maximumAnswer = 4 << 20
  /// Bytes that may wait for a driver that does not read.
  private static let maximumOutput = 16 << 20

  private let socket: OwnedDescriptor
  /// Written to wake the thread that polls, when there is something to send.
  private let wake: OwnedDescriptor
  private let state = Mutex(State())

  init(socket: consuming OwnedDescriptor) throws(SystemCallError) {
    wake = OwnedDescriptor(
      adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
    self.socket = socket
  }

  var descriptor: Int32 { socket.number }
  var wakeDescriptor: Int32 { wake.number }
  var hasOutput: Bool { state.withLock { !$0.output.isEmpty } }

  // MARK: Asking

  /// - Parameter frame: makes the request's frame from its id.
  func ask(
    _ message: String, _ frame: (UInt64) throws(EngineError) -> OutgoingFrame
  ) throws(EngineError) -> (id: UInt64, answer: Once<Result<Body, EngineError>>) {
    let answer = Once<Result<Body, EngineError>>()
    let id = try enter(message, .request(answer))
    try send(id, frame)
    return (id, answer)
  }

  func askStream(
    _ message: String, _ frame: (UInt64) throws(EngineError) -> OutgoingFrame
  ) throws(EngineError) -> (id: UInt64, items: AsyncStream<Item>) {
    let (items, continuation) = AsyncStream.makeStream(of: Item.self, bufferingPolicy: .bufferingOldest(4096))
    let id = try enter(message, .stream(continuation))
    try send(id, frame)
    return (id, items)
  }

  private func enter(_ message: String, _ waiter: Waiter) throws(EngineError) -> UInt64 {
    try state.withLock { (state) throws(EngineError) in
      if let ended = state.ended { throw ended }
      let id = state.nextID
      state.nextID += 1
      state.pending[id] = (message, waiter)
      return id
    }
  }

  private func send(_ id: UInt64, _ frame: (UInt64) throws(EngineError) -> OutgoingFrame) throws(EngineError) {
    do throws(EngineError) {
      try enqueue(try frame(id))
    } catch {
      state.withLock { _ = $0.pending.removeValue(forKey: id) }
      throw error
    }
  }

  /// Forgets a request; a late answer to it is dropped.
  func giveUp(_ id: UInt64) {
    let wasPending = state.withLock { $0.pending.removeValue(forKey: id) != nil }
    if wasPending, let frame = try? OutgoingMessage.cancel(id) { try? enqueue(frame) }
  }

  /// Sends at once what the socket takes; the rest follows when it has room.
  func enqueue(_ frame: OutgoingFrame) throws(EngineError) {
    let waits = try state.withLock { (state) throws(EngineError) -> Bool in
      if let ended = state.ended { throw ended }
      guard state.bytes + frame.bytes.count <= Self.maximumOutput else {
        throw EngineError(.unavailable, "the driver does not read its messages: \(state.bytes) bytes wait for it")
      }
      state.output.append(frame)
      state.bytes += frame.bytes.count
      return try !Self.transmit(&state, to: socket.number)
    }
    if waits { poke() }
  }

  func poke() {
    var one: UInt64 = 1
    _ = write(wake.number, &one, 8)
  }

  /// Sends what waits.
  func flush() throws(EngineError) {
    _ = try state.withLock { (state) throws(EngineError) in try Self.transmit(&state, to: socket.number) }
  }

  private static func transmit(_ state: inout State, to socket: Int32) throws(EngineError) -> Bool {
    while let frame = state.output.first {
      guard let sent = try frame.send(to: socket, from: state.offset, flags: Int32(MSG_DONTWAIT))
      else { return false }
      state.offset += sent
      state.bytes -= sent
      if state.offset == frame.bytes.count {
        state.output.removeFirst()
        state.offset = 0
      }
    }
    return true
  }

  // MARK: Answers

  /// - Returns: false for an answer that nobody waits for.
  func resolve(_ id: UInt64, _ result: Result<Body, EngineError>) -> Bool {
    let (waiter, wasAsked) = state.withLock { state in
      (state.pending.removeValue(forKey: id)?.waiter, id < state.nextID)
    }
    switch waiter {
    case .request(let answer): answer.resolve(result)
    case .stream(let continuation):
      continuation.yield(.end(result))
      continuation.finish()
    // Late, perhaps: the request was given up.
    case nil: return wasAsked
    }
    return true
  }

  /// - Throws: `protocolViolation` when elements come faster than they are taken.
  func element(_ id: UInt64, _ body: Body) throws(EngineError) -> Bool {
    let (waiter, wasAsked) = state.withLock { ($0.pending[id]?.waiter, id < $0.nextID) }
    guard case .stream(let continuation) = waiter else { return wasAsked }
    if case .dropped = continuation.yield(.element(body)) {
      throw EngineError(.protocolViolation, "it sends elements of a stream faster than they are taken")
    }
    return true
  }

  /// Fails everything that waits, each with the message that it was.
  func end(_ reason: (String) -> EngineError) {
    let pending = state.withLock { state -> [(message: String, waiter: Waiter)] in
      if state.ended == nil { state.ended = reason("") }
      defer {
        state.pending = [:]
        state.output = []
      }
      return Array(state.pending.values)
    }
    for (message, waiter) in pending {
      switch waiter {
      case .request(let answer): answer.resolve(.failure(reason(message)))
      case .stream(let continuation):
        continuation.yield(.end(.failure(reason(message))))
        continuation.finish()
      }
    }
  }
}
