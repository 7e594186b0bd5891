import Contracts
import Kernel
import LinuxSystem
import Synchronization
import Wire

/// Knows every network, which driver has it, and which container is on it; the drivers do the work.
public final class NetworkCatalogPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "networks", role: "network-catalog", dependencies: ["records", "network"],
    keys: [
      ConfigurationKey(
        "ready_namespaces", .integer(4), range: 0...64,
        "How many network namespaces are kept ready for containers that start, with a link on the default network.")
    ])

  /// The kind of this plugin's records.
  static let recordKind = "network"

  let host: PluginHost
  let namespaces: NamespacePool
  /// Those with an interface on the default network, where its driver makes it ahead.
  let connected: NamespacePool
  let retired: RetiredNamespaces
  let state = Mutex(CatalogState())

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    let capacity = try host.integerSetting("ready_namespaces")
    namespaces = try NamespacePool(bus: host.bus, capacity: capacity)
    let bus = host.bus
    retired = RetiredNamespaces(bus: bus)
    connected = try NamespacePool(bus: bus, capacity: capacity) { (namespace) async throws(EngineError) in
      guard let definition = try await bus.request(NetworkList()).first(where: \.isDefault) else { return }
      _ = try await bus.request(
        NetworkDriverPrepare(definition: definition, namespace: namespace, interface: Self.interface(0)),
        driver: definition.driver)
    }
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(NetworkCreate.self) { (request, call) async throws(EngineError) in
      let definition = try await self.create(request, call)
      await self.tell("create", definition.id, definition.name, definition.driver)
      return definition
    }
    try registrar.answer(NetworkList.self) { (_, _) async throws(EngineError) in
      self.state.withLock { $0.definitions.values.sorted { $0.name < $1.name } }
    }
    try registrar.answer(NetworkInspect.self) { (request, _) async throws(EngineError) in
      try self.state.withLock { (state) throws(EngineError) in
        let definition = try state.find(request.network)
        return NetworkInspection(definition: definition, endpoints: state.endpoints(on: definition.id))
      }
    }
    try registrar.answer(NetworkForget.self) { (request, call) async throws(EngineError) in
      try await self.removeAndTell(request.network, forgets: true, call)
    }
    try registrar.answer(NetworkRemove.self) { (request, call) async throws(EngineError) in
      try await self.removeAndTell(request.network, forgets: false, call).network
    }
    try registrar.answer(NetworkPrepare.self) { (request, call) async throws(EngineError) in
      try await self.prepare(request, call)
    }
    try registrar.answer(NetworkAttach.self) { (request, call) async throws(EngineError) in
      try await self.attach(request, call)
    }
    try registrar.answer(NetworkDetach.self) { (request, call) async throws(EngineError) in
      // What a driver could not be told of is made up for when it can.
      let isOwed = self.state.withLock { $0.attachments[request.container]?.isOwed ?? false }
      if !isOwed { try await self.detach(request.container, call) }
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, call) async throws(EngineError) in
      try await self.check(request, call)
    }
  }

  private func removeAndTell(
    _ name: String, forgets: Bool, _ call: Call
  ) async throws(EngineError) -> NetworkForget.Reply {
    let definition = try state.withLock { (state) throws(EngineError) in try state.find(name) }
    let reply = try await remove(name, forgets: forgets, call)
    await tell("destroy", reply.network, definition.name, definition.driver)
    return reply
  }

  private func tell(_ action: String, _ id: ObjectID, _ name: String, _ driver: String) async {
    await host.bus.publish(
      EngineEvent(kind: .network, action: action, object: id.text, attributes: ["name": name, "type": driver]))
  }

  public func start() async throws(EngineError) {
    let call = Call(bus: host.bus)
    try await load(call)
    try await finishInterrupted(call)
    try adoptAttachments()
    let definitions = state.withLock { $0.definitions.values.sorted { $0.created < $1.created } }
    for definition in definitions {
      do throws(EngineError) {
        try await ensure(definition, call)
      } catch {
        host.log.warning("the network \(definition.name) is not available: \(error)")
      }
    }
    host.bus.subscribe(to: DriverStarted.self) { event in
      if event.role == "network" { await self.tellNetworks(to: event.driver) }
    }
  }

  public func stop() async {
    await namespaces.close()
    await connected.close()
    retired.letGo()
  }

  /// A driver out of tree that was started again knows nothing of its networks.
  private func tellNetworks(to driver: String) async {
    let definitions = state.withLock { $0.definitions.values.filter { $0.driver == driver } }
    for definition in definitions {
      do throws(EngineError) {
        try await ensure(definition, Call(bus: host.bus))
      } catch {
        host.log.warning("the network \(definition.name) is not available: \(error)")
      }
    }
    await takeBackOwed(by: driver)
  }

  // MARK: Start

  /// Reads the networks, and on the first start makes the records of the predefined ones.
  private func load(_ call: Call) async throws(EngineError) {
    for record in try await call.request(RecordRead(kind: Self.recordKind)) {
      do {
        let definition = try JSON.decode(NetworkDefinition.self, Array(record.value.utf8))
        state.withLock { $0.definitions[definition.id] = definition }
      } catch {
        throw EngineError(.corrupt, "the record \(record.key) of kind network does not read", because: error)
      }
    }
    let names = state.withLock { Set($0.definitions.values.map(\.name)) }
    let missing = CatalogState.predefined.filter { !names.contains($0) }.map { name in
      NetworkDefinition(
        id: .random(), name: name, driver: name, created: .now, isDefault: name == CatalogState.defaultNetwork)
    }
    if missing.isEmpty { return }
    try await write(missing, call)
    state.withLock { state in for definition in missing { state.definitions[definition.id] = definition } }
  }

  /// Completes what a former engine was doing when it ended: a network whose creation was not recorded is taken back,
  /// a removal is finished.
  private func finishInterrupted(_ call: Call) async throws(EngineError) {
    for entry in host.journal.entries(plugin: Self.manifest.name)
    where entry.kind == "creation" || entry.kind == "removal" {
      let definition = try JSON.decode(NetworkDefinition.self, Array(entry.object.utf8))
      let isKnown = state.withLock { $0.definitions[definition.id] != nil }
      if entry.kind == "removal" || !isKnown {
        _ = try await call.request(NetworkDriverRemove(definition: definition), driver: definition.driver)
        try await forget(definition, call)
      }
      try host.journal.end([entry.number])
    }
  }

  /// Makes a network's kernel objects where they are not there yet.
  ///
  /// - Throws: why the driver cannot; until it can, attaching to the network says so.
  func ensure(_ definition: NetworkDefinition, _ call: Call) async throws(EngineError) {
    let complete: NetworkDefinition
    do {
      complete = try await call.request(NetworkDriverCreate(definition: definition), driver: definition.driver)
    } catch {
      state.withLock { _ = $0.failed.insert(definition.id) }
      throw error
    }
    if complete != definition { try await write([complete], call) }
    state.withLock { state in
      state.failed.remove(definition.id)
      state.definitions[definition.id] = complete
    }
  }

  // MARK: Records

  func write(_ definitions: [NetworkDefinition], _ call: Call) async throws(EngineError) {
    var records: [Record] = []
    for definition in definitions {
      records.append(
        Record(kind: Self.recordKind, key: definition.id.text, value: try Self.text(definition)))
    }
    _ = try await call.request(RecordWrite(put: records, durability: .power))
  }

  func forget(_ definition: NetworkDefinition, _ call: Call) async throws(EngineError) {
    let key = RecordWrite.Key(kind: Self.recordKind, key: definition.id.text)
    _ = try await call.request(RecordWrite(delete: [key], durability: .power))
    state.withLock { state in
      state.definitions[definition.id] = nil
      state.failed.remove(definition.id)
      state.removing.remove(definition.id)
    }
  }

  static func text<Value: Encodable>(_ value: Value) throws(EngineError) -> String {
    String(decoding: try JSON.encode(value), as: UTF8.self)
  }
}
