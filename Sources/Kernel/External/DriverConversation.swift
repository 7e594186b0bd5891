import Contracts
import Synchronization
import Wire

/// Understands the messages of one process of a driver. Used by the thread that reads alone.
final class DriverConversation {
  /// Requests of the driver's own that may be under way at once.
  private static let maximumRequests = 16

  private struct StreamElement: Decodable {
    var id: UInt64
    var value: JSONValue
  }

  private let link: DriverLink
  private let bus: Bus
  private let name: String
  private var isGreeted = false
  private let requests = Requests()
  /// Messages that answered nothing.
  private(set) var nonsense = 0

  private final class Requests: Sendable {
    let count = Mutex(0)
  }

  init(link: DriverLink, bus: Bus, name: String) {
    self.link = link
    self.bus = bus
    self.name = name
  }

  /// - Throws: `protocolViolation` or `versionMismatch`, after which the process is ended.
  func take(_ frame: FrameReader.Frame) throws(EngineError) {
    let message = try RemoteMessage(parsing: frame)
    guard isGreeted else {
      guard case .notification(WireProtocol.hello, let body) = message else {
        throw EngineError(.protocolViolation, "its first message is not \"hello\"")
      }
      try body.decode(Hello.self).check()
      isGreeted = true
      return
    }
    switch message {
    case .result(let id, let body):
      if !link.resolve(id, .success(body)) { nonsense += 1 }
    case .failure(let id?, let error):
      if !link.resolve(id, .failure(error)) { nonsense += 1 }
    case .failure(nil, let error):
      throw EngineError(.protocolViolation, "it does not understand the engine", because: error)
    case .notification(WireProtocol.element, let body):
      let element = try body.decode(StreamElement.self)
      let isWanted = try link.element(element.id, Body(value: element.value, descriptors: body.descriptors))
      if !isWanted { nonsense += 1 }
    case .notification(WireProtocol.keepAlive, _): break
    case .notification: nonsense += 1
    case .request(let request): answer(request)
    }
  }

  private struct Parameters: RemoteParameters {
    let body: Body
    func decode<Value: Decodable>(_ type: Value.Type) throws(EngineError) -> Value { try body.decode(type) }
  }

  /// A driver may ask the engine as any client may.
  private func answer(_ request: RemoteMessage.Request) {
    let (link, bus, requests) = (link, bus, requests)
    let isTooMany = requests.count.withLock { count -> Bool in
      if count >= Self.maximumRequests { return true }
      count += 1
      return false
    }
    if isTooMany {
      nonsense += 1
      let error = EngineError(
        .resourceExhausted, "a driver may have \(Self.maximumRequests) requests under way at once")
      if let frame = try? OutgoingMessage.failure(request.id, error) { try? link.enqueue(frame) }
      return
    }
    Task(executorPreference: bus.executor) {
      let lease = Lease()
      let frame: OutgoingFrame?
      do throws(EngineError) {
        let (handler, _) = try bus.remote(request.method, driver: request.driver)
        let reply = try await handler.run(
          Parameters(body: request.parameters), Call(bus: bus, lease: lease, trace: request.trace)
        ) { (element) async throws(EngineError) in
          try link.enqueue(try OutgoingMessage.element(request.id, element))
        }
        frame = try OutgoingMessage.result(request.id, reply)
      } catch {
        await lease.release()
        frame = try? OutgoingMessage.failure(request.id, error)
      }
      if let frame { try? link.enqueue(frame) }
      requests.count.withLock { $0 -= 1 }
    }
  }
}
