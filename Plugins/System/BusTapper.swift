import Contracts
import Kernel
import Synchronization
import Wire

/// `bus tap`: passes on what travels on the bus, as fast as the client takes it; what is too much is counted.
final class BusTapper: Sendable {
  /// Messages that may wait for the client.
  private static let capacity = 4096

  private struct State {
    var waiting: [Observation] = []
    var dropped: Int64 = 0
    /// Containers that the tap itself asks about, which it is not to show.
    var asked: [String] = []
    /// How often the tap itself has asked for the plugins, which it is not to show either.
    var listings = 0
    /// Each plugin's.
    var roles: [String: String] = [:]
    var wake: Once<Void>?
  }

  private let state = Mutex(State())
  private let request: BusTap

  /// - Throws: `invalidArgument` for a role or a message that there is none of.
  init(_ request: BusTap, _ call: Call) async throws(EngineError) {
    var request = request
    // "volume.*" and "volume." are what "volume" is.
    request.types = request.types.map { type in
      String(type.reversed().drop { $0 == "*" || $0 == "." }.reversed())
    }
    self.request = request
    await learnRoles(call)
    try refuseUnknown(call.bus)
  }

  private func refuseUnknown(_ bus: Bus) throws(EngineError) {
    let roles = Set(state.withLock { Array($0.roles.values) } + DriverRole.all.map(\.name)).subtracting([""])
    for role in request.roles where !roles.contains(role) {
      let hint = Suggestion.nearest(to: role, among: roles.sorted()).map { "did you mean \"\($0)\"?" }
      throw EngineError(
        .invalidArgument,
        "no plugin has the role \"\(role)\"; \(hint ?? "there is: " + roles.sorted().joined(separator: ", "))")
    }
    let messages = Set(Array(bus.answered.keys) + DriverRole.all.flatMap { $0.messages.map { $0.name } })
    for type in request.types where !messages.contains(where: { Self.matches($0, type) }) {
      let hint = Suggestion.nearest(to: type, among: messages.sorted()).map { "; did you mean \"\($0)\"?" } ?? ""
      throw EngineError(.invalidArgument, "there is no message \"\(type)\", and none that begins so\(hint)")
    }
  }

  private static func matches(_ name: String, _ type: String) -> Bool { name == type || name.hasPrefix(type + ".") }

  func run(_ call: Call, _ sink: Sink<BusTap.Element>) async throws(EngineError) {
    let number = call.bus.watch { [weak self] in self?.receive($0) }
    defer { call.bus.endWatching(number) }
    var known: [String: Bool] = [:]
    while !Task.isCancelled {
      let (observations, dropped) = await next(call)
      for observation in observations {
        // A driver that came after the tap.
        if state.withLock({ $0.roles[observation.plugin] }) == nil {
          state.withLock { $0.listings += 1 }
          await learnRoles(call, of: observation.plugin)
        }
        if !passes(observation) { continue }
        let element = element(observation, dropped)
        if await isWanted(element.parameters, &known, call) { try await sink.yield(element) }
      }
    }
    throw EngineError(.cancelled, "the tap was closed")
  }

  private func learnRoles(_ call: Call, of plugin: String = "kernel") async {
    let plugins = (try? await call.request(PluginList())) ?? []
    state.withLock { state in
      for plugin in plugins { state.roles[plugin.name] = plugin.role }
      // The kernel itself is no plugin.
      if state.roles[plugin] == nil { state.roles[plugin] = "" }
    }
  }

  private func receive(_ observation: Observation) {
    guard passes(observation), !isEcho(observation) else { return }
    let wake = state.withLock { state -> Once<Void>? in
      if state.waiting.count < Self.capacity { state.waiting.append(observation) } else { state.dropped += 1 }
      defer { state.wake = nil }
      return state.wake
    }
    wake?.resolve(())
  }

  private func next(_ call: Call) async -> ([Observation], Int64) {
    let wake = Once<Void>()
    let isEmpty = state.withLock { state -> Bool in
      if state.waiting.isEmpty { state.wake = wake }
      return state.waiting.isEmpty
    }
    if isEmpty {
      // Looks up now and then, so that a client that went away is noticed.
      let ticket = call.bus.timekeeper.schedule(after: .seconds(1)) { wake.resolve(()) }
      await wake.value
      call.bus.timekeeper.cancel(ticket)
    }
    return state.withLock { state in
      defer { (state.waiting, state.dropped) = ([], 0) }
      return (state.waiting, state.dropped)
    }
  }

  private func isEcho(_ observation: Observation) -> Bool {
    if observation.request is PluginList {
      return state.withLock { state in
        defer { state.listings = max(state.listings - 1, 0) }
        return state.listings > 0
      }
    }
    guard let inspect = observation.request as? ContainerInspect else { return false }
    return state.withLock { state in
      guard let index = state.asked.firstIndex(of: inspect.container) else { return false }
      state.asked.remove(at: index)
      return true
    }
  }

  /// The cheap filters, on the thread of whoever sent the message.
  private func passes(_ observation: Observation) -> Bool {
    let name = type(of: observation.request).name
    if !request.types.isEmpty, !request.types.contains(where: { Self.matches(name, $0) }) { return false }
    if request.roles.isEmpty { return true }
    // One that is not known yet is looked up before it is shown.
    return state.withLock { $0.roles[observation.plugin] }.map(request.roles.contains) ?? true
  }

  private func element(_ observation: Observation, _ dropped: Int64) -> BusTap.Element {
    BusTap.Element(
      time: observation.ended, message: type(of: observation.request).name, driver: observation.driver,
      plugin: observation.plugin, role: state.withLock { $0.roles[observation.plugin] } ?? "", trace: observation.trace,
      nanoseconds: observation.nanoseconds, error: observation.error,
      parameters: value(observation.request),
      reply: request.withReplies ? observation.reply.map { value($0) } : nil, dropped: dropped)
  }

  /// As it would travel; descriptors are numbers.
  private func value(_ message: any Encodable & Sendable) -> JSONValue {
    guard let bytes = try? JSON.encode(Box(message), descriptors: DescriptorTable()),
      let value = try? JSON.parse(bytes)
    else { return .null }
    return value
  }

  private struct Box: Encodable {
    let value: any Encodable
    init(_ value: any Encodable) { self.value = value }
    func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }
  }

  /// Whether the message is about the container that is asked for. It may be named by its name while messages have its
  /// ID, and may not have existed when the tap was opened.
  private func isWanted(_ parameters: JSONValue, _ known: inout [String: Bool], _ call: Call) async -> Bool {
    if request.container.isEmpty || Self.mentions(request.container, parameters) { return true }
    guard case .string(let id)? = parameters["container"], id.utf8.count == 64 else { return false }
    if let isIt = known[id] { return isIt }
    state.withLock { $0.asked.append(id) }
    guard let record = try? await call.request(ContainerInspect(container: id)) else { return false }
    known[id] = record.name == request.container
    return record.name == request.container
  }

  /// Whether a text anywhere in the message is the container's name or ID, or begins with a part of its ID.
  private static func mentions(_ container: String, _ value: JSONValue) -> Bool {
    switch value {
    case .string(let text):
      return text == container || (container.utf8.count >= 4 && text.utf8.count == 64 && text.hasPrefix(container))
    case .array(let values): return values.contains { mentions(container, $0) }
    case .object(let members): return members.contains { mentions(container, $0.value) }
    default: return false
    }
  }
}
