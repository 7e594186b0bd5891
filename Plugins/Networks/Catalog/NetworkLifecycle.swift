import Contracts
import Kernel
import LinuxSystem

/// Making and removing networks.
extension NetworkCatalogPlugin {
  func create(_ request: NetworkCreate, _ call: Call) async throws(EngineError) -> NetworkDefinition {
    let name = request.networkName
    let driver = request.driver ?? "bridge"
    try Self.validateName(name)
    await host.bus.publishWanted(NetworkDriverCreate.self, role: "network", driver: driver)
    let drivers = host.bus.answered[NetworkDriverCreate.name] ?? []
    guard drivers.contains(driver) else {
      throw EngineError(
        .notFound,
        "network driver \"\(driver)\" not found\(await host.bus.absence(ofDriver: driver)); "
          + "there is: \(drivers.joined(separator: ", "))")
    }
    if driver == "host" || driver == "none" {
      throw EngineError(.permissionDenied, "only one instance of \"\(driver)\" network is allowed")
    }
    let definition = NetworkDefinition(
      id: .random(), name: name, driver: driver, created: .now, pools: request.pools, options: request.options,
      labels: request.labels, isInternal: request.isInternal)
    try state.withLock { (state) throws(EngineError) in
      if state.creating.contains(name) || state.definitions.values.contains(where: { $0.name == name }) {
        throw EngineError(.conflict, "network with name \(name) already exists")
      }
      try validate(request.pools, taken: state.definitions.values.flatMap(\.pools))
      state.creating.insert(name)
    }
    defer { state.withLock { _ = $0.creating.remove(name) } }

    let entries = try host.journal.begin(
      plugin: Self.manifest.name, [(kind: "creation", object: try Self.text(definition))])
    FaultPoint.reach("networks.create.begun")
    let complete: NetworkDefinition
    do {
      complete = try await call.request(NetworkDriverCreate(definition: definition), driver: driver)
    } catch {
      try host.journal.end(entries)
      throw error
    }
    FaultPoint.reach("networks.create.made")
    do throws(EngineError) {
      try state.withLock { (state) throws(EngineError) in
        // Two networks that were made at the same time can have asked for overlapping pools.
        try validate(complete.pools, taken: state.definitions.values.flatMap(\.pools))
        state.definitions[complete.id] = complete
      }
      try await write([complete], call)
    } catch {
      state.withLock { _ = $0.definitions.removeValue(forKey: complete.id) }
      // Where even that fails the entry in the journal stays, and the next start tries again.
      _ = try await call.request(NetworkDriverRemove(definition: complete), driver: driver)
      try host.journal.end(entries)
      throw error
    }
    FaultPoint.reach("networks.create.recorded")
    try host.journal.end(entries)
    return complete
  }

  /// - Throws: `inUse` that names the running containers on it.
  ///
  /// - Parameter forgets: a network whose driver is gone loses its record alone.
  func remove(
    _ text: String, forgets: Bool = false, _ call: Call
  ) async throws(EngineError) -> NetworkForget.Reply {
    var warnings: [String] = []
    let definition = try state.withLock { (state) throws(EngineError) in
      let definition = try state.find(text)
      if CatalogState.predefined.contains(definition.name) {
        throw EngineError(
          .permissionDenied, "\(definition.name) is a pre-defined network and cannot be removed")
      }
      guard state.removing.insert(definition.id).inserted else {
        throw EngineError(.conflict, "network \(definition.name) is being removed already")
      }
      return definition
    }
    do throws(EngineError) {
      await takeBackOwed(by: definition.driver)
      try await refuseWhileInUse(definition, call)
      let entries = try host.journal.begin(
        plugin: Self.manifest.name, [(kind: "removal", object: try Self.text(definition))])
      FaultPoint.reach("networks.remove.begun")
      do throws(EngineError) {
        if let warning = try await removeFromDriver(definition, forgets: forgets, call) { warnings.append(warning) }
        FaultPoint.reach("networks.remove.removed")
        try await forget(definition, call)
      } catch {
        try host.journal.end(entries)
        throw error
      }
      FaultPoint.reach("networks.remove.forgotten")
      try host.journal.end(entries)
    } catch {
      state.withLock { _ = $0.removing.remove(definition.id) }
      throw error
    }
    return NetworkForget.Reply(network: definition.id, warnings: warnings)
  }

  /// - Returns: a warning where the driver is gone and that is passed over.
  private func removeFromDriver(
    _ definition: NetworkDefinition, forgets: Bool, _ call: Call
  ) async throws(EngineError) -> String? {
    let (name, driver) = (definition.name, definition.driver)
    await host.bus.publishWanted(NetworkDriverRemove.self, role: "network", driver: driver)
    do throws(EngineError) {
      _ = try await call.request(NetworkDriverRemove(definition: definition), driver: driver)
      return nil
    } catch {
      guard DriverAbsence.codes.contains(error.code) else { throw error }
      if forgets {
        return "the driver \"\(driver)\" of the network \(name) is gone (\(error)); only the engine's record was "
          + "removed, and what the driver made may remain"
      }
      throw EngineError(
        error.code,
        "error while removing network: \(error.message); where the driver is gone for good, "
          + "'engine network rm -f \(name)' removes the engine's record and leaves what the driver made",
        causes: error.causes)
    }
  }

  private func refuseWhileInUse(_ definition: NetworkDefinition, _ call: Call) async throws(EngineError) {
    var names: [ObjectID: String] = [:]
    var users = Set(state.withLock { $0.containers(on: definition.id) })
    do {
      for user in try await call.request(ContainerUsers(resource: .network(definition.id))) {
        names[user.id] = user.containerName
        if user.isRunning { users.insert(user.id) }
      }
    } catch  where error.code == .unknownMessage {
      // An engine without containers: the attachments are all there is to know.
    }
    if users.isEmpty { return }
    let list = users.sorted().map { id in "name:\"\(names[id] ?? id.short)\" id:\"\(id.short)\"" }
    throw EngineError(
      .inUse,
      "error while removing network: network \(definition.name) has active endpoints "
        + "(\(list.joined(separator: ", ")))")
  }

  static func validateName(_ name: String) throws(EngineError) {
    if CatalogState.predefined.contains(name) || name == "default" || name == "container" {
      throw EngineError(.permissionDenied, "operation is not permitted on predefined \(name) network")
    }
    func isAlphanumeric(_ byte: UInt8) -> Bool {
      (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
    }
    let bytes = Array(name.utf8)
    guard let first = bytes.first, isAlphanumeric(first), bytes.count <= 255,
      bytes.allSatisfy({ isAlphanumeric($0) || $0 == 95 || $0 == 46 || $0 == 45 })
    else {
      throw EngineError(
        .invalidArgument,
        "\(name) includes invalid characters for a network name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    }
  }
}
