@_exported import Contracts
import Glibc
import LinuxSystem
import Wire

/// The run loop of a driver out of tree: answers what the engine sends on descriptor 3, one message after the other,
/// until the engine ends.
///
/// ```swift
/// var server = DriverServer(role: .volume, version: "1.0")
/// server.answer(VolumeDriverCreate.self) { request in .init(mountpoint: ...) }
/// server.run()
/// ```
public struct DriverServer {
  public typealias Description = PluginDescribe.Reply

  private var handlers: [String: any AnyAnswer] = [:]
  private let role: DriverRole
  private let version: String
  private let capabilities: [String]
  private var prepare: (PluginDescribe) throws(EngineError) -> Void = { (_) throws(EngineError) in }

  public init(role: DriverRole, version: String, capabilities: [String] = []) {
    self.role = role
    self.version = version
    self.capabilities = capabilities
  }

  /// Is told where the driver may keep things and what the configuration says, before any other message.
  public mutating func onStart(_ body: @escaping (PluginDescribe) throws(EngineError) -> Void) { prepare = body }

  public mutating func answer<R: Request>(_ type: R.Type, _ body: @escaping (R) throws(EngineError) -> R.Reply) {
    handlers[R.name] = TypedAnswer<R>(body: body)
  }

  /// Answers until the engine closes the connection.
  ///
  /// - Returns: the process's exit status.
  public func run(descriptor: Int32 = 3) -> Int32 {
    signal(SIGPIPE, SIG_IGN)
    do throws(EngineError) {
      try OutgoingMessage.hello(Hello(agent: "\(role.name) driver \(version)")).sendAll(to: descriptor)
      var reader = FrameReader()
      while true {
        while let frame = try reader.next() { try take(frame, descriptor) }
        if case .endOfStream = try reader.receive(from: descriptor) { return 0 }
      }
    } catch {
      if error.code == .unavailable { return 0 }
      let line = Array("\(error)\n".utf8)
      _ = write(2, line, line.count)
      return 1
    }
  }

  private func take(_ frame: FrameReader.Frame, _ descriptor: Int32) throws(EngineError) {
    switch try RemoteMessage(parsing: frame) {
    case .notification(WireProtocol.hello, let body): try body.decode(Hello.self).check()
    // A request is answered before the next message is read, so there is nothing left to cancel.
    case .notification, .result, .failure: break
    case .request(let request):
      let answer: OutgoingFrame
      do throws(EngineError) {
        answer = try self.answer(request)
      } catch {
        answer = try OutgoingMessage.failure(request.id, error)
      }
      try answer.sendAll(to: descriptor)
    }
  }

  private func answer(_ request: RemoteMessage.Request) throws(EngineError) -> OutgoingFrame {
    if request.method == PluginDescribe.name {
      let ask = try request.parameters.decode(PluginDescribe.self)
      try prepare(ask)
      let description = Description(
        role: role.name, driver: ask.plugin, version: version, capabilities: capabilities)
      return try OutgoingMessage.result(request.id, description)
    }
    guard let handler = handlers[request.method] else {
      throw EngineError(.unknownMessage, "this \(role.name) driver does not answer \"\(request.method)\"")
    }
    return try handler.answer(request)
  }
}

/// A handler whose message's type is known to it alone. (A closure over a generic closure crashes Swift 6.3's compiler.)
private protocol AnyAnswer {
  func answer(_ request: RemoteMessage.Request) throws(EngineError) -> OutgoingFrame
}

private struct TypedAnswer<R: Request>: AnyAnswer {
  let body: (R) throws(EngineError) -> R.Reply

  func answer(_ request: RemoteMessage.Request) throws(EngineError) -> OutgoingFrame {
    let reply = try body(try request.parameters.decode(R.self))
    return try OutgoingMessage.result(request.id, reply)
  }
}
