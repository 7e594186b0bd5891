import CLinux
import Contracts
import Glibc
import LinuxSystem
import Synchronization
import Wire

/// One client: its bytes, its requests that are not answered yet, and what they lease.
final class Connection: Sendable {
  /// Bytes that may wait for a client that does not read; the handler of a stream waits beyond them.
  private static let highWater = 1 << 20
  /// Bytes beyond which even replies end the connection: the client has stopped reading.
  private static let limit = 256 << 20

  private struct Pending {
    let task: Task<Void, Never>
    let lease: Lease
  }

  private struct State: ~Copyable {
    var socket: OwnedDescriptor
    var reader = FrameReader()
    var isGreeted = false
    var isClosed = false
    /// The poller knows the socket.
    var isWatched = false
    /// A thread of the poller is here; the socket is armed again when it leaves.
    var isHandled = false
    /// Something came up meanwhile.
    var isHandledAgain = false
    var pending: [UInt64: Pending] = [:]
    /// Requests whose task has been made but that are not yet in `pending`.
    var starting: Set<UInt64> = []
    var output: [OutgoingFrame] = []
    var outputOffset = 0
    var outputBytes = 0
    var waitingForRoom: [Once<Void>] = []
  }

  let token: UInt64
  let descriptor: Int32
  private let bus: Bus
  // The server owns its connections and outlives them: it drops them before it ends.
  private unowned let server: WireServer
  private let peer: PeerCredentials
  private let agent: String
  private let state: Mutex<State>

  init(
    token: UInt64, socket: consuming OwnedDescriptor, bus: Bus, server: WireServer, peer: PeerCredentials,
    agent: String
  ) {
    self.token = token
    descriptor = socket.number
    self.bus = bus
    self.server = server
    self.peer = peer
    self.agent = agent
    state = Mutex(State(socket: socket))
  }

  // MARK: The poller's threads

  /// Takes what the socket has and gives what it takes, then has it watched again. One thread at a time.
  ///
  /// - Returns: false when the connection is at its end.
  func handle() -> Bool {
    let isFirst = state.withLock { state -> Bool in
      defer { state.isHandled = true }
      state.isHandledAgain = state.isHandled
      return !state.isHandled
    }
    guard isFirst else { return true }
    while true {
      guard flush(), read() else { return false }
      do {
        let isDone = try state.withLock { (state) throws(SystemCallError) -> Bool in
          if state.isHandledAgain {
            state.isHandledAgain = false
            return false
          }
          state.isHandled = false
          try arm(&state)
          return true
        }
        if isDone { return true }
      } catch {
        return false
      }
    }
  }

  /// - Returns: false when the connection is at its end.
  private func read() -> Bool {
    do throws(EngineError) {
      while true {
        let (received, frames) = try state.withLock {
          state throws(EngineError) -> (FrameReader.Received, [FrameReader.Frame]) in
          let received = try state.reader.receive(from: state.socket.number, flags: Int32(MSG_DONTWAIT))
          var frames: [FrameReader.Frame] = []
          while let frame = try state.reader.next() { frames.append(frame) }
          return (received, frames)
        }
        for frame in frames { try receive(frame) }
        switch received {
        case .bytes: continue
        case .wouldBlock: return true
        case .endOfStream: return false
        }
      }
    } catch {
      // What breaks the protocol is answered once, so that the author of a client sees why; then it is over.
      if error.code != .unavailable, let frame = try? OutgoingMessage.failure(nil, error) {
        _ = enqueue(frame)
        _ = flush()
      }
      return false
    }
  }

  private func receive(_ frame: FrameReader.Frame) throws(EngineError) {
    let message = try RemoteMessage(parsing: frame)
    let isGreeted = state.withLock { $0.isGreeted }
    guard isGreeted else {
      guard case .notification(WireProtocol.hello, let body) = message else {
        throw EngineError(.protocolViolation, "the first message must be \"hello\"")
      }
      try body.decode(Hello.self).check()
      FaultPoint.reach("kernel.connection.accepted")
      state.withLock { $0.isGreeted = true }
      _ = enqueue(try OutgoingMessage.hello(Hello(agent: agent)))
      return
    }
    switch message {
    case .request(let request): start(request)
    case .notification(WireProtocol.cancel, let body): cancel(try OutgoingMessage.identifier(in: body))
    case .notification, .result, .failure: break
    }
  }

  private func start(_ request: RemoteMessage.Request) {
    let isNew = state.withLock { state in
      state.pending[request.id] == nil && state.starting.insert(request.id).inserted
    }
    guard isNew else {
      answer(request.id, .failure(EngineError(.protocolViolation, "the id \(request.id) is in use")), unasked: true)
      return
    }
    let lease = Lease()
    let task = Task(executorPreference: bus.executor) { await self.run(request, lease) }
    let isClosed = state.withLock { state -> Bool in
      // The task may have answered already; then there is nothing left to remember.
      if state.starting.remove(request.id) != nil { state.pending[request.id] = Pending(task: task, lease: lease) }
      return state.isClosed
    }
    if isClosed {
      task.cancel()
      Task(executorPreference: bus.executor) { await lease.release() }
    }
  }

  private func cancel(_ id: UInt64) {
    let pending = state.withLock { $0.pending[id] }
    guard let pending else { return }
    pending.task.cancel()
    // The caller is answered at once, also when the handler ignores its cancellation.
    answer(id, .failure(EngineError(.cancelled, "the request was cancelled")))
    Task(executorPreference: bus.executor) { await pending.lease.release() }
  }

  /// Ends everything that is under way; what it leased is given back.
  func close() {
    let (pending, waiting) = state.withLock { state -> ([Pending], [Once<Void>]) in
      state.isClosed = true
      let result = (Array(state.pending.values), state.waitingForRoom)
      state.pending = [:]
      state.waitingForRoom = []
      state.output = []
      // Shut down rather than close: a handler may be about to write, and the number must not be reused before.
      shutdown(state.socket.number, Int32(SHUT_RDWR))
      return result
    }
    for room in waiting { room.resolve(()) }
    for request in pending {
      request.task.cancel()
      Task(executorPreference: bus.executor) { await request.lease.release() }
    }
  }

  // MARK: The request's task

  private struct WireParameters: RemoteParameters {
    let body: Body
    func decode<Value: Decodable>(_ type: Value.Type) throws(EngineError) -> Value { try body.decode(type) }
  }

  private func run(_ request: RemoteMessage.Request, _ lease: Lease) async {
    let call = Call(bus: bus, lease: lease, peer: peer, trace: request.trace)
    let result: Result<Answer, EngineError>
    do throws(EngineError) {
      let (handler, plugin) = try bus.remote(request.method, driver: request.driver)
      let parameters = WireParameters(body: request.parameters)
      let emit: RemoteHandler.Emit = { (element) async throws(EngineError) in
        try await self.emit(request.id, element)
      }
      let answer = { (call: Call) async throws(EngineError) -> Answer in
        guard let deadline = request.deadline else { return try await handler.run(parameters, call, emit) }
        return try await self.bus.supervise(request.method, call: call, deadline: .milliseconds(deadline)) {
          () async throws(EngineError) -> Answer in
          try await handler.run(parameters, call, emit)
        }
      }
      if let root = call.tracePoint {
        result = .success(
          try await root.record(request.method, plugin: plugin, driver: request.driver) {
            (point) async throws(EngineError) in try await answer(call.traced(at: point))
          })
      } else {
        result = .success(try await answer(call))
      }
    } catch {
      result = .failure(error)
      await lease.release()
    }
    answer(request.id, result)
  }

  private func emit(_ id: UInt64, _ element: Answer) async throws(EngineError) {
    let room = state.withLock { state -> Once<Void>? in
      guard !state.isClosed, state.outputBytes > Self.highWater else { return nil }
      let room = Once<Void>()
      state.waitingForRoom.append(room)
      return room
    }
    if let room { await room.value }
    let isWanted = state.withLock { !$0.isClosed && ($0.pending[id] != nil || $0.starting.contains(id)) }
    guard isWanted, enqueue(try OutgoingMessage.element(id, element)) else {
      throw EngineError(.cancelled, "the client went away")
    }
  }

  /// Answers a request once; a late answer to one that was cancelled is dropped.
  private func answer(_ id: UInt64, _ result: Result<Answer, EngineError>, unasked: Bool = false) {
    let isOpen = state.withLock { state -> Bool in
      let wasPending = state.pending.removeValue(forKey: id) != nil
      return state.starting.remove(id) != nil || wasPending
    }
    guard isOpen || unasked else { return }
    let frame: OutgoingFrame?
    do throws(EngineError) {
      switch result {
      case .success(let value): frame = try OutgoingMessage.result(id, value)
      case .failure(let error): frame = try OutgoingMessage.failure(id, error)
      }
    } catch {
      frame = try? OutgoingMessage.failure(id, error)
    }
    if let frame { _ = enqueue(frame) }
  }

  // MARK: Output

  /// - Returns: false when the connection is closed.
  private func enqueue(_ frame: OutgoingFrame) -> Bool {
    let isOpen = state.withLock { state -> Bool in
      guard !state.isClosed else { return false }
      state.output.append(frame)
      state.outputBytes += frame.bytes.count
      guard state.outputBytes <= Self.limit else { return false }
      do {
        if try !Self.write(&state) { try arm(&state) }
        return true
      } catch {
        return false
      }
    }
    if !isOpen { shutdown(descriptor, Int32(SHUT_RDWR)) }
    return isOpen
  }

  /// Writes what the socket takes; wakes the handlers that wait for room.
  private func flush() -> Bool {
    do {
      let waiting = try state.withLock { state throws(EngineError) -> [Once<Void>] in
        _ = try Self.write(&state)
        guard state.outputBytes <= Self.highWater else { return [] }
        defer { state.waitingForRoom = [] }
        return state.waitingForRoom
      }
      for room in waiting { room.resolve(()) }
      return true
    } catch {
      return false
    }
  }

  /// Has the poller watch for what this side waits for; a thread that is here does so when it leaves.
  private func arm(_ state: inout State) throws(SystemCallError) {
    if state.isHandled { return }
    let events = EPOLLIN.rawValue | EPOLLRDHUP.rawValue | (state.output.isEmpty ? 0 : EPOLLOUT.rawValue)
    let isNew = !state.isWatched
    state.isWatched = true
    try server.arm(self, events, isNew: isNew)
  }

  /// - Returns: true when everything was written.
  private static func write(_ state: inout State) throws(EngineError) -> Bool {
    while let frame = state.output.first {
      guard
        let sent = try frame.send(
          to: state.socket.number, from: state.outputOffset, flags: Int32(MSG_DONTWAIT))
      else { return false }
      state.outputOffset += sent
      state.outputBytes -= sent
      if state.outputOffset == frame.bytes.count {
        state.output.removeFirst()
        state.outputOffset = 0
      }
    }
    return true
  }
}
