import Contracts
import LinuxSystem
import Synchronization

/// What a handler knows of the call it answers, and how it asks others on the call's behalf.
public struct Call: Sendable {
  public let bus: Bus
  /// What this operation acquires before it commits; shared by every nested request.
  public private(set) var lease: Lease
  /// The process at the other end of the connection, or nil for a request from inside the engine.
  public let peer: PeerCredentials?
  /// Where every message within the operation is recorded; nil when nobody asked for that.
  public private(set) var tracePoint: TracePoint?
  /// Names the operation in traces; empty when it is not traced.
  public var trace: String { tracePoint?.trace.identifier ?? "" }

  /// - Parameter trace: the name under which the messages of the operation are recorded; empty to record none.
  public init(bus: Bus, lease: Lease = Lease(), peer: PeerCredentials? = nil, trace: String = "") {
    self.bus = bus
    self.lease = lease
    self.peer = peer
    if !trace.isEmpty { tracePoint = bus.traces.open(trace).map { TracePoint($0) } }
  }

  /// The same call with a lease of its own.
  public func leasing(to lease: Lease) -> Call {
    var call = self
    call.lease = lease
    return call
  }

  /// The same call as a part of another one's trace: for what is done because of that but not within it.
  public func traced(at point: TracePoint?) -> Call {
    var call = self
    call.tracePoint = point
    return call
  }

  /// Asks another plugin within this call.
  @inlinable
  public func request<R: Request>(_ request: R, driver: String = "") async throws(EngineError) -> R.Reply {
    try await bus.route(request, driver: driver, self)
  }

  /// Asks another plugin for a stream within this call.
  public func stream<R: StreamRequest>(
    _ request: R, driver: String = "", _ receive: @escaping @Sendable (R.Element) async throws(EngineError) -> Void
  ) async throws(EngineError) -> R.Reply {
    try await bus.route(request, driver: driver, self, Sink(receive))
  }
}

/// Who is at the other end of a Unix socket (SO_PEERCRED, unix(7)).
public struct PeerCredentials: Sendable, Equatable {
  public var pid: Int32
  public var uid: UInt32
  public var gid: UInt32

  public init(pid: Int32, uid: UInt32, gid: UInt32) {
    self.pid = pid
    self.uid = uid
    self.gid = gid
  }
}

/// Where the handler of a streaming request puts its elements; `yield` returns when the receiver has taken one.
public struct Sink<Element: Sendable>: Sendable {
  private let receive: @Sendable (Element) async throws(EngineError) -> Void

  public init(_ receive: @escaping @Sendable (Element) async throws(EngineError) -> Void) {
    self.receive = receive
  }

  public func yield(_ element: Element) async throws(EngineError) {
    try await receive(element)
  }
}

public typealias RequestHandler<R: Request> = @Sendable (R, Call) async throws(EngineError) -> R.Reply
public typealias StreamHandler<R: StreamRequest> =
  @Sendable (R, Call, Sink<R.Element>) async throws(EngineError) -> R.Reply

/// The typed message bus: routes by message type and, where a role has several drivers, by the driver's name.
///
/// A request inside the process is a lookup and a call of a closure: no encoding, no task, no thread.
public final class Bus: Sendable {
  @usableFromInline
  struct Key: Hashable, Sendable {
    @usableFromInline let type: ObjectIdentifier
    @usableFromInline let driver: String

    @inlinable
    init(type: ObjectIdentifier, driver: String) {
      self.type = type
      self.driver = driver
    }
  }

  @usableFromInline
  class AnyHandler: @unchecked Sendable {
    // Unchecked: `owner`, `remote` and the subclasses' bodies are immutable and Sendable; the class is open to subclasses.
    @usableFromInline let owner: String
    let remote: RemoteHandler
    let probe: Probe

    init(_ probe: Probe, remote: RemoteHandler) {
      owner = probe.owner
      self.remote = remote
      self.probe = probe
    }
  }

  @usableFromInline
  final class Handler<Body: Sendable>: AnyHandler, @unchecked Sendable {
    // Unchecked for the same reason as its superclass: everything is immutable and Sendable.
    @usableFromInline let body: Body

    init(_ probe: Probe, remote: RemoteHandler, body: Body) {
      self.body = body
      super.init(probe, remote: remote)
    }
  }

  private struct Routes {
    var handlers: [Key: AnyHandler] = [:]
    /// Message name, then driver, for what arrives by wire.
    var names: [String: [String: AnyHandler]] = [:]
    /// The driver that answers when none is named, by message name.
    var defaults: [String: String] = [:]
    var subscribers: [ObjectIdentifier: [(UInt64, @Sendable (any Event) async -> Void)]] = [:]
    var nextSubscription: UInt64 = 0
    var watchers: [UInt64: @Sendable (Observation) -> Void] = [:]
    /// Why a role's driver does not answer: shown instead of "unknown message".
    var unavailable: [String: String] = [:]
  }

  private let routes = Mutex(Routes())
  let traces = TraceStore()
  private let watchers = Atomic<Int>(0)
  public let executor: ElasticExecutor
  public let timekeeper: Timekeeper

  public init(executor: ElasticExecutor = ElasticExecutor(), timekeeper: Timekeeper = Timekeeper()) {
    self.executor = executor
    self.timekeeper = timekeeper
  }

  // MARK: Asking

  /// A root request from inside the engine: a lease of its own, released when it fails.
  ///
  /// - Parameter deadline: after it the caller is resumed with `deadlineExceeded`, also when the handler never returns.
  public func request<R: Request>(
    _ request: R, driver: String = "", deadline: Duration? = nil
  ) async throws(EngineError) -> R.Reply {
    let call = Call(bus: self)
    return try await supervise(R.name, call: call, deadline: deadline) { () async throws(EngineError) -> R.Reply in
      try await self.route(request, driver: driver, call)
    }
  }

  @usableFromInline
  func route<R: Request>(_ request: R, driver: String, _ call: Call) async throws(EngineError) -> R.Reply {
    let handler = try find(R.self, driver: driver)
    guard let typed = handler as? Handler<RequestHandler<R>> else { throw mismatch(R.name) }
    guard let point = call.tracePoint else { return try await run(typed.body, request, call, handler.probe) }
    return try await point.record(R.name, plugin: handler.owner, driver: driver) {
      (point) async throws(EngineError) in
      try await self.run(typed.body, request, call.traced(at: point), handler.probe)
    }
  }

  func route<R: StreamRequest>(
    _ request: R, driver: String, _ call: Call, _ sink: Sink<R.Element>
  ) async throws(EngineError) -> R.Reply {
    let handler = try find(R.self, driver: driver)
    guard let typed = handler as? Handler<StreamHandler<R>> else { throw mismatch(R.name) }
    guard let point = call.tracePoint else { return try await run(typed.body, request, call, sink, handler.probe) }
    return try await point.record(R.name, plugin: handler.owner, driver: driver) {
      (point) async throws(EngineError) in
      try await self.run(typed.body, request, call.traced(at: point), sink, handler.probe)
    }
  }

  private func mismatch(_ name: String) -> EngineError {
    EngineError(.internalFailure, "the handler of \(name) is of another type")
  }

  private func find<M: Message>(_ type: M.Type, driver: String) throws(EngineError) -> AnyHandler {
    let (found, drivers, reason) = routes.withLock { routes -> (AnyHandler?, [String], String?) in
      if let handler = routes.handlers[Key(type: ObjectIdentifier(type), driver: driver)] { return (handler, [], nil) }
      if driver.isEmpty, let name = routes.defaults[M.name],
        let handler = routes.handlers[Key(type: ObjectIdentifier(type), driver: name)]
      {
        return (handler, [], nil)
      }
      return (nil, Array((routes.names[M.name] ?? [:]).keys).sorted(), routes.unavailable["\(M.name) \(driver)"])
    }
    if let found { return found }
    throw Self.unroutable(M.name, driver: driver, drivers: drivers, reason: reason)
  }

  /// The handler of a message that arrived by wire.
  func remote(
    _ name: String, driver: String
  ) throws(EngineError) -> (handler: RemoteHandler, plugin: String) {
    let (found, drivers, reason) = routes.withLock { routes -> (AnyHandler?, [String], String?) in
      let named = routes.names[name]
      if let handler = named?[driver] ?? (driver.isEmpty ? routes.defaults[name].flatMap { named?[$0] } : nil) {
        return (handler, [], nil)
      }
      return (nil, named?.keys.sorted() ?? [], routes.unavailable["\(name) \(driver)"])
    }
    if let found { return (found.remote, found.owner) }
    throw Self.unroutable(name, driver: driver, drivers: drivers, reason: reason)
  }

  private static func unroutable(_ name: String, driver: String, drivers: [String], reason: String?) -> EngineError {
    if let reason { return EngineError(.unavailable, reason) }
    if drivers.isEmpty { return EngineError(.unknownMessage, "no plugin answers the message \"\(name)\"") }
    return EngineError(
      .notFound, "no driver \"\(driver)\" answers \"\(name)\"; there is: \(drivers.joined(separator: ", "))")
  }

  // MARK: Events

  /// Tells everyone who subscribed, one after the other in the order they subscribed.
  public func publish<E: Event>(_ event: E) async {
    let receivers = routes.withLock { $0.subscribers[ObjectIdentifier(E.self)]?.map(\.1) ?? [] }
    for receive in receivers { await receive(event) }
  }

  /// - Returns: what `unsubscribe` takes.
  @discardableResult
  public func subscribe<E: Event>(to type: E.Type, _ receive: @escaping @Sendable (E) async -> Void) -> UInt64 {
    routes.withLock { routes in
      routes.nextSubscription += 1
      let number = routes.nextSubscription
      routes.subscribers[ObjectIdentifier(type), default: []].append(
        (number, { event in if let event = event as? E { await receive(event) } }))
      return number
    }
  }

  public func unsubscribe(_ number: UInt64) {
    routes.withLock { routes in
      for type in routes.subscribers.keys { routes.subscribers[type]?.removeAll { $0.0 == number } }
    }
  }

  // MARK: Watching

  /// Whether anybody watches: then each message is measured and told.
  var isWatched: Bool { watchers.load(ordering: .relaxed) != 0 }

  /// Tells every message that is answered from now on, from the thread that answered it: `receive` must not block.
  ///
  /// - Returns: what `endWatching` takes.
  public func watch(_ receive: @escaping @Sendable (Observation) -> Void) -> UInt64 {
    watchers.wrappingAdd(1, ordering: .relaxed)
    return routes.withLock { routes in
      routes.nextSubscription += 1
      routes.watchers[routes.nextSubscription] = receive
      return routes.nextSubscription
    }
  }

  public func endWatching(_ number: UInt64) {
    let wasWatching = routes.withLock { $0.watchers.removeValue(forKey: number) != nil }
    if wasWatching { watchers.wrappingSubtract(1, ordering: .relaxed) }
  }

  func tell(_ observation: Observation) {
    for receive in routes.withLock({ Array($0.watchers.values) }) { receive(observation) }
  }

  /// What a plugin has answered so far.
  public func statistics(owner: String) -> [MessageStatistics] {
    let handlers = routes.withLock { routes in routes.names.values.flatMap(\.values).filter { $0.owner == owner } }
    return handlers.map(\.probe.statistics).sorted { ($0.message, $0.driver) < ($1.message, $1.driver) }
  }

  // MARK: Answering

  /// - Parameter measuresAll: whether each call is measured and not only some, for handlers that cost far more than that.
  func register<R: Request>(
    _ type: R.Type, driver: String, owner: String, measuresAll: Bool = false, _ body: @escaping RequestHandler<R>
  ) throws(EngineError) {
    let probe = Probe(message: R.name, driver: driver, owner: owner, measuresAll: measuresAll)
    let remote = RemoteHandler.request(type) { (request, call) async throws(EngineError) in
      try await call.bus.run(body, request, call, probe)
    }
    try insert(R.name, ObjectIdentifier(type), driver, Handler(probe, remote: remote, body: body))
  }

  func register<R: StreamRequest>(
    _ type: R.Type, driver: String, owner: String, measuresAll: Bool = false, _ body: @escaping StreamHandler<R>
  ) throws(EngineError) {
    let probe = Probe(message: R.name, driver: driver, owner: owner, measuresAll: measuresAll)
    let remote = RemoteHandler.stream(type) { (request, call, sink) async throws(EngineError) in
      try await call.bus.run(body, request, call, sink, probe)
    }
    try insert(R.name, ObjectIdentifier(type), driver, Handler(probe, remote: remote, body: body))
  }

  private func insert(
    _ name: String, _ type: ObjectIdentifier, _ driver: String, _ handler: AnyHandler
  ) throws(EngineError) {
    let other = routes.withLock { routes -> String? in
      if let other = routes.names[name]?[driver] { return other.owner }
      routes.handlers[Key(type: type, driver: driver)] = handler
      routes.names[name, default: [:]][driver] = handler
      routes.unavailable["\(name) \(driver)"] = nil
      return nil
    }
    if let other {
      throw EngineError(
        .conflict,
        "the plugins \(other) and \(handler.owner) both answer \"\(name)\""
          + (driver.isEmpty ? "" : " for the driver \"\(driver)\""))
    }
  }

  /// Forgets every handler of a plugin; afterwards its messages are answered with `reason`, where there is one.
  func unregister(owner: String, reason: String?) {
    routes.withLock { routes in
      for (key, handler) in routes.handlers where handler.owner == owner { routes.handlers[key] = nil }
      for (name, drivers) in routes.names {
        for (driver, handler) in drivers where handler.owner == owner {
          routes.names[name]?[driver] = nil
          routes.unavailable["\(name) \(driver)"] = reason
        }
        if routes.names[name]?.isEmpty == true { routes.names[name] = nil }
      }
    }
  }

  /// Names the driver that answers a message for which none is named.
  public func setDefaultDriver(_ driver: String, for messages: [any Message.Type]) {
    routes.withLock { routes in for message in messages { routes.defaults[message.name] = driver } }
  }

  /// Whether a driver answers a message.
  public func answers<M: Message>(_ type: M.Type, driver: String) -> Bool {
    routes.withLock { $0.handlers[Key(type: ObjectIdentifier(type), driver: driver)] != nil }
  }

  /// Asks a driver to let go of something. One that is gone has let go: it neither answers, nor is there a plugin of its
  /// name that may yet, and where it comes back it begins anew.
  ///
  /// - Returns: false where the driver is gone.
  public func release<R: Request>(
    _ request: R, role: String, driver: String, _ call: Call
  ) async throws(EngineError) -> Bool {
    await publishWanted(R.self, role: role, driver: driver)
    do throws(EngineError) {
      _ = try await call.request(request, driver: driver)
      return true
    } catch {
      let isGone = error.code == .notFound && !answers(R.self, driver: driver)
      if isGone, await !isKnown(driver: driver) { return false }
      throw error
    }
  }

  private func isKnown(driver name: String) async -> Bool {
    ((try? await request(PluginList())) ?? []).contains { $0.name == name || $0.driver == name }
  }

  /// What is known of a driver that does not answer: ` (it ended with exit status 1; ...)`, or nothing.
  public func absence(ofDriver name: String) async -> String {
    let statuses = (try? await request(PluginList())) ?? []
    for status in statuses where status.name == name || status.driver == name {
      switch status.state {
      case .failed(let reason), .skipped(let reason): return " (\(reason))"
      case .waiting: return " (it has not said yet who it is)"
      case .running, .stopped: continue
      }
    }
    return ""
  }

  /// Gives those who find drivers the chance to make one answer that does not yet.
  public func publishWanted<M: Message>(_ type: M.Type, role: String, driver: String) async {
    if !answers(type, driver: driver) { await publish(DriverWanted(role: role, driver: driver)) }
  }

  /// The driver that answers a message for which none is named, or nil where none has been chosen.
  public func defaultDriver<M: Message>(for type: M.Type) -> String? { routes.withLock { $0.defaults[M.name] } }

  /// Every message that is answered, with the drivers that answer it.
  public var answered: [String: [String]] {
    routes.withLock { $0.names.mapValues { $0.keys.sorted() } }
  }
}
