import Contracts
import Kernel
import LinuxSystem
import Wire

/// Taking containers on and off their networks.
///
/// The journal has one entry `attachment` a container, begun before any driver is asked, and one `endpoints` with what
/// the drivers gave, so that a later engine knows who is on which network.
extension NetworkCatalogPlugin {
  /// One network of an attachment that is being made.
  private struct Place {
    var definition: NetworkDefinition
    var request: EndpointRequest
  }

  /// Reserves a container's place on its networks and makes its namespace.
  func prepare(_ request: NetworkPrepare, _ call: Call) async throws(EngineError) -> NetworkPrepare.Reply {
    let container = request.container
    try await clear(container, call)
    for endpoint in request.endpoints { try await makeNetwork(ofDriver: endpoint.network, call) }
    let (drivers, failed) = try reserve(request)
    do throws(EngineError) {
      for definition in failed { try await self.ensure(definition, call) }
      let places = try places(request.endpoints)
      let begun = try host.journal.begin(
        plugin: Self.manifest.name, container: container.text,
        [(kind: "attachment", object: drivers.joined(separator: " "))])
      state.withLock { $0.change(container) { $0?.journal = begun } }
      FaultPoint.reach("networks.attach.begun")
      let isHost = drivers == ["host"]
      let namespace = isHost ? nil : try pool(for: places).take()
      state.withLock { $0.change(container) { $0?.namespace = namespace } }
      FaultPoint.reach("networks.attach.namespace")
      return NetworkPrepare.Reply(namespace: namespace)
    } catch {
      await takeBack(container)
      throw error
    }
  }

  func attach(_ request: NetworkAttach, _ call: Call) async throws(EngineError) -> NetworkAttach.Reply {
    let container = request.container
    if !state.withLock({ $0.attachments[container]?.isPrepared ?? false }) {
      _ = try await prepare(NetworkPrepare(container: container, endpoints: request.endpoints), call)
    }
    let places = try places(request.endpoints)
    let networks = places.map(\.definition.id)
    let prepared = state.withLock { state -> ContainerAttachment? in
      guard let found = state.attachments[container], found.isPrepared, found.networks == networks else { return nil }
      state.change(container) { $0?.isPrepared = false }
      return found
    }
    guard let prepared else {
      throw EngineError(
        .conflict, "the networks of the container \(container.short) are not those that were prepared for it")
    }
    let (namespace, drivers) = (prepared.namespace, prepared.drivers)
    do throws(EngineError) {
      var reply = NetworkAttach.Reply(namespace: namespace, endpoints: [], ports: [], reservations: [])
      for (driver, attachments) in Self.grouped(places, drivers) {
        let hasPorts = attachments.contains(where: \.isDefaultRoute) || drivers.count == 1
        let ports = hasPorts && driver != "host" && driver != "none" ? request.ports : []
        let message = NetworkDriverAttach(
          container: container, namespace: namespace, attachments: attachments, ports: ports)
        let part = try await call.request(message, driver: driver)
        FaultPoint.reach("networks.attach.connected")
        try check(part, message, driver: driver)
        reply.endpoints += part.endpoints
        reply.ports += part.ports
        reply.reservations += part.reservations
        reply.warnings += part.warnings
      }
      let order = places.map(\.definition.id)
      reply.endpoints.sort { left, right in
        (order.firstIndex(of: left.networkID) ?? 0) < (order.firstIndex(of: right.networkID) ?? 0)
      }
      let entries = try host.journal.begin(
        plugin: Self.manifest.name, container: container.text,
        [(kind: "endpoints", object: try Self.text(reply.endpoints))])
      state.withLock { state in
        state.change(container) { attachment in
          attachment?.endpoints = reply.endpoints
          attachment?.journal += entries
        }
      }
      FaultPoint.reach("networks.attach.recorded")
      await call.lease.hold("the networks of \(container.short)") { [self] in await takeBack(container) }
      return reply
    } catch {
      await takeBack(container)
      throw error
    }
  }

  /// Where a container's namespace comes from: from those that have a link already, where its network makes such.
  private func pool(for places: [Place]) -> NamespacePool {
    guard let driver = places.first(where: \.definition.isDefault)?.definition.driver else { return namespaces }
    return host.bus.answers(NetworkDriverPrepare.self, driver: driver) ? connected : namespaces
  }

  /// A driver is believed as far as it can be: what it says must belong to what it was asked, and an address is one
  /// container's.
  private func check(
    _ reply: NetworkDriverAttach.Reply, _ message: NetworkDriverAttach, driver: String
  ) throws(EngineError) {
    func lie(_ what: String) -> EngineError {
      EngineError(
        .protocolViolation, "the driver \"\(driver)\" answered \"\(NetworkDriverAttach.name)\" with \(what)")
    }
    let wanted = message.attachments.map(\.definition.id)
    guard reply.endpoints.map(\.networkID).sorted() == wanted.sorted() else {
      throw lie(
        "\(reply.endpoints.count) endpoints that are not those of the \(wanted.count) networks it was asked for")
    }
    for endpoint in reply.endpoints where !endpoint.address.isEmpty {
      guard Address(endpoint.address) != nil else { throw lie("\"\(endpoint.address)\", which is no address") }
      let holder = state.withLock { $0.holder(of: endpoint.address, on: endpoint.networkID) }
      if let holder, holder != message.container {
        throw lie(
          "the address \(endpoint.address), which the container \(holder.short) has on \(endpoint.networkName)")
      }
    }
  }

  /// A driver's name stands for a network of that driver where there is no network of the name, so that a driver can
  /// be chosen for one container or by the configuration alone.
  private func makeNetwork(ofDriver name: String, _ call: Call) async throws(EngineError) {
    func isThere() -> Bool { state.withLock { (try? $0.find(name)) != nil } }
    if isThere() { return }
    await host.bus.publishWanted(NetworkDriverAttach.self, role: "network", driver: name)
    guard host.bus.answers(NetworkDriverAttach.self, driver: name) else {
      let reason = await host.bus.absence(ofDriver: name)
      if reason.isEmpty { return }
      throw EngineError(.notFound, "network \(name) not found, and the driver of that name does not answer\(reason)")
    }
    do throws(EngineError) {
      _ = try await create(
        NetworkCreate(networkName: name, driver: name, pools: [], options: [:], labels: [:], isInternal: false), call)
    } catch {
      // Another container may have asked for the same at the same moment.
      if error.code != .conflict || !isThere() { throw error }
    }
  }

  private func takeBack(_ container: ObjectID) async {
    do {
      try await detach(container, Call(bus: host.bus))
    } catch {
      host.log.error("the container \(container.short) cannot be taken off its networks: \(error)")
      state.withLock { $0.change(container) { $0?.isOwed = true } }
    }
  }

  /// Takes back what a driver could not be told of when it was wanted.
  func takeBackOwed(by driver: String) async {
    let owed = state.withLock { state -> [ObjectID] in
      let owed = state.attachments.filter { container, attachment in
        attachment.isOwed && attachment.drivers.contains(driver) && state.releasing[container] == nil
      }
      for container in owed.keys { state.releasing[container] = Once<Void>() }
      return owed.keys.sorted()
    }
    for container in owed {
      await takeBack(container)
      state.withLock { $0.releasing.removeValue(forKey: container) }?.resolve(())
    }
  }

  /// What a former attempt left is taken back before the container is attached again.
  private func clear(_ container: ObjectID, _ call: Call) async throws(EngineError) {
    let (releasing, isLeft) = state.withLock { state in
      // From here on nobody else takes it back.
      if state.releasing[container] == nil { state.change(container) { $0?.isOwed = false } }
      return (state.releasing[container], state.attachments[container] != nil)
    }
    if let releasing { await releasing.value }
    guard isLeft else { return }
    do throws(EngineError) {
      try await detach(container, call)
    } catch {
      state.withLock { $0.change(container) { $0?.isOwed = true } }
      throw error
    }
  }

  /// Takes a container off everything it is on, also off what was half done.
  func detach(_ container: ObjectID, _ call: Call) async throws(EngineError) {
    guard let attachment = state.withLock({ $0.attachments[container] }) else { return }
    // Without an entry in the journal no driver has been asked.
    if !attachment.journal.isEmpty {
      state.withLock { $0.change(container) { $0?.isLeaving = true } }
      do throws(EngineError) {
        // Of one that was only prepared, no driver knows.
        for driver in attachment.isPrepared ? [] : attachment.drivers.reversed() {
          let detach = NetworkDriverDetach(container: container)
          if try await !host.bus.release(detach, role: "network", driver: driver, call) {
            host.log.warning(
              "the driver \(driver) is gone, so it is not told that \(container.short) left its networks")
          }
          FaultPoint.reach("networks.detach.disconnected")
        }
        try host.journal.end(attachment.journal)
      } catch {
        state.withLock { $0.change(container) { $0?.isLeaving = false } }
        throw error
      }
    }
    state.withLock { $0.change(container) { $0 = nil } }
    if let namespace = attachment.namespace { retired.add(namespace) }
  }

  /// Checks the request and marks its networks as used, so that none is removed meanwhile.
  ///
  /// - Returns: the drivers in the order of the networks, and the networks that could not be made at start-up.
  private func reserve(_ request: NetworkPrepare) throws(EngineError) -> ([String], [NetworkDefinition]) {
    try state.withLock { (state) throws(EngineError) in
      let places = try Self.resolve(request.endpoints, state)
      var drivers: [String] = []
      for place in places where !drivers.contains(place.definition.driver) { drivers.append(place.definition.driver) }
      let networks = places.map(\.definition.id)
      state.change(request.container) {
        $0 = ContainerAttachment(drivers: drivers, networks: networks, endpoints: [], journal: [], isPrepared: true)
      }
      return (drivers, state.failed.isEmpty ? [] : places.map(\.definition).filter { state.failed.contains($0.id) })
    }
  }

  private func places(_ endpoints: [EndpointRequest]) throws(EngineError) -> [Place] {
    try state.withLock { (state) throws(EngineError) in try Self.resolve(endpoints, state) }
  }

  private static func resolve(
    _ endpoints: [EndpointRequest], _ state: CatalogState
  ) throws(EngineError) -> [Place] {
    let endpoints = endpoints.isEmpty ? [EndpointRequest(network: CatalogState.defaultNetwork)] : endpoints
    var places: [Place] = []
    for endpoint in endpoints {
      let definition = try state.find(endpoint.network)
      if state.removing.contains(definition.id) {
        throw EngineError(.notFound, "network \(endpoint.network) not found")
      }
      if places.contains(where: { $0.definition.id == definition.id }) {
        throw EngineError(.invalidArgument, "network \(definition.name) is named more than once for the container")
      }
      try validate(endpoint, on: definition)
      places.append(Place(definition: definition, request: endpoint))
    }
    if places.count > 1 {
      if places.contains(where: { $0.definition.driver == "host" }) {
        throw EngineError(
          .invalidArgument,
          "container sharing network namespace with another container or host cannot be connected to any other network")
      }
      if places.contains(where: { $0.definition.driver == "none" }) {
        throw EngineError(
          .invalidArgument,
          "container cannot be connected to multiple networks with one of the networks in private (none) mode")
      }
    }
    return places
  }

  private static func validate(
    _ endpoint: EndpointRequest, on definition: NetworkDefinition
  ) throws(EngineError) {
    let isPredefined = CatalogState.predefined.contains(definition.name)
    if !endpoint.aliases.isEmpty && isPredefined {
      throw EngineError(
        .invalidArgument, "network-scoped alias is supported only for containers in user defined networks")
    }
    guard let text = endpoint.address else { return }
    if isPredefined {
      throw EngineError(
        .invalidArgument, "user specified IP address is supported on user defined networks only")
    }
    guard let address = Address(text) else {
      throw EngineError(.invalidArgument, "invalid IP address: \(text)")
    }
    let subnets = definition.pools.compactMap { Subnet($0.subnet) }
    if subnets.isEmpty {
      throw EngineError(
        .invalidArgument,
        "user specified IP address is supported only when connecting to networks with user configured subnets")
    }
    if !subnets.contains(where: { $0.contains(address) }) {
      throw EngineError(
        .invalidArgument,
        "no configured subnet contains IP address \(text): \(definition.name) has "
          + subnets.map(\.description).joined(separator: ", "))
    }
  }

  /// The name that the interface of a container's network has inside, counted from 0.
  static func interface(_ index: Int) -> String { "eth\(index)" }

  /// What each driver is asked for: interfaces are numbered over all networks in their order, and the default route goes
  /// through the first one that has a gateway and is not internal.
  private static func grouped(
    _ places: [Place], _ drivers: [String]
  ) -> [(String, [NetworkDriverAttach.Attachment])] {
    let route = places.firstIndex { place in
      !place.definition.isInternal && place.definition.pools.contains { $0.gateway != nil }
    }
    var attachments: [NetworkDriverAttach.Attachment] = []
    for (index, place) in places.enumerated() {
      let makesInterface = place.definition.driver != "host" && place.definition.driver != "none"
      attachments.append(
        NetworkDriverAttach.Attachment(
          definition: place.definition, request: place.request, interface: makesInterface ? interface(index) : "",
          isDefaultRoute: index == route))
    }
    return drivers.map { driver in (driver, attachments.filter { $0.definition.driver == driver }) }
  }

  // MARK: After a crash

  /// Reads from the journal who is attached to what.
  func adoptAttachments() throws(EngineError) {
    for entry in host.journal.entries(plugin: Self.manifest.name) {
      guard let container = ObjectID(entry.container) else { continue }
      switch entry.kind {
      case "attachment":
        let drivers = entry.object.split(separator: " ").map(String.init)
        state.withLock { state in
          state.change(container) {
            $0 = ContainerAttachment(drivers: drivers, networks: [], endpoints: [], journal: [entry.number])
          }
        }
      case "endpoints":
        let endpoints = try JSON.decode([Endpoint].self, Array(entry.object.utf8))
        state.withLock { state in
          state.change(container) { attachment in
            attachment?.endpoints = endpoints
            attachment?.networks = endpoints.map(\.networkID)
            attachment?.journal.append(entry.number)
          }
        }
      default: break
      }
    }
  }

  /// Containers that are on a network and do not run; repairing takes them off.
  func check(_ request: PluginCheck, _ call: Call) async throws(EngineError) -> [SystemDifference] {
    let running = Set(request.running)
    let attachments = state.withLock { $0.attachments.filter { !running.contains($0.key) } }
    var differences: [SystemDifference] = []
    for (container, attachment) in attachments.sorted(by: { $0.key < $1.key }) {
      differences.append(
        SystemDifference(
          kind: .leftover, plugin: Self.manifest.name,
          object: "attachment of \(container.short) to \(attachment.drivers.joined(separator: ", "))"))
      if request.repair { try await detach(container, call) }
    }
    return differences
  }
}
