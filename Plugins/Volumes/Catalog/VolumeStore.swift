import Contracts
import Kernel
import LinuxSystem
import Synchronization
import Wire

/// The volumes that exist: in memory for reading, in the records for keeping.
final class VolumeStore: Sendable {
  private struct State {
    var volumes: [String: Volume] = [:]
    /// Names that are being made or removed now, with what tells when that is done.
    var busy: [String: Once<Void>] = [:]
    /// Made by this process, so an operation or a container of its own takes care of them.
    var made: Set<String> = []
  }

  let host: PluginHost
  private let state = Mutex(State())
  private static let kind = "volume"
  static let defaultDriver = "local"

  init(host: PluginHost) { self.host = host }

  func load() async throws(EngineError) {
    var volumes: [String: Volume] = [:]
    for record in try await host.bus.request(RecordRead(kind: Self.kind)) {
      do throws(EngineError) {
        volumes[record.key] = try JSON.decode(Volume.self, Array(record.value.utf8))
      } catch {
        throw EngineError(.corrupt, "the record of the volume \(record.key) does not read", because: error)
      }
    }
    state.withLock { [volumes] in $0.volumes = volumes }
  }

  func list() -> [Volume] { state.withLock { Array($0.volumes.values) }.sorted { $0.name < $1.name } }

  func find(_ name: String) -> Volume? { state.withLock { $0.volumes[name] } }

  func volume(_ name: String) throws(EngineError) -> Volume {
    guard let volume = find(name) else { throw EngineError(.notFound, "get \(name): no such volume") }
    return volume
  }

  // MARK: One at a time for a name

  /// Runs `body` while nobody else makes, removes or fills the volume.
  func alone<Value: Sendable>(
    _ name: String, _ body: () async throws(EngineError) -> Value
  ) async throws(EngineError) -> Value {
    let mine = Once<Void>()
    while true {
      let other = state.withLock { state -> Once<Void>? in
        if let other = state.busy[name] { return other }
        state.busy[name] = mine
        return nil
      }
      guard let other else { break }
      await other.value
    }
    defer {
      state.withLock { $0.busy[name] = nil }
      mine.resolve(())
    }
    return try await body()
  }

  // MARK: Making

  /// - Returns: the volume, and whether this call made it.
  func create(
    _ request: VolumeCreate, isAnonymous: Bool, container: ObjectID? = nil, _ call: Call
  ) async throws(EngineError) -> (volume: Volume, isNew: Bool) {
    let name = request.volumeName ?? ObjectID.random().text
    try VolumeName.check(name)
    return try await alone(name) { () async throws(EngineError) -> (volume: Volume, isNew: Bool) in
      if let present = find(name) { return (try same(present, request), false) }
      let driver =
        request.driver.flatMap { $0.isEmpty ? nil : $0 } ?? host.bus.defaultDriver(for: VolumeDriverCreate.self)
        ?? Self.defaultDriver
      await host.bus.publishWanted(VolumeDriverCreate.self, role: "volume", driver: driver)
      let drivers = host.bus.answered[VolumeDriverCreate.name] ?? []
      guard drivers.contains(driver) else {
        throw EngineError(
          .notFound,
          "create \(name): error looking up volume plugin \(driver): plugin \"\(driver)\" not found"
            + "\(await host.bus.absence(ofDriver: driver)); there is: \(drivers.joined(separator: ", "))")
      }
      let made: VolumeDriverCreate.Reply
      do throws(EngineError) {
        made = try await call.request(VolumeDriverCreate(volume: name, options: request.options), driver: driver)
      } catch {
        throw EngineError(error.code, "create \(name): \(error.message)", causes: error.causes)
      }
      FaultPoint.reach("volumes.create.made")
      let volume = Volume(
        name: name, driver: driver, created: .now, mountpoint: made.mountpoint, labels: request.labels,
        options: request.options, isAnonymous: isAnonymous, container: isAnonymous ? container : nil)
      if volume.container != nil { state.withLock { _ = $0.made.insert(name) } }
      do throws(EngineError) {
        try await write(volume, call)
      } catch {
        _ = try? await call.request(VolumeDriverRemove(volume: name), driver: driver)
        throw error
      }
      FaultPoint.reach("volumes.create.recorded")
      state.withLock { $0.volumes[name] = volume }
      await tell("create", volume)
      return (volume, true)
    }
  }

  /// A volume that is there already answers for one that is asked for, unless it is another one of the same name.
  private func same(_ present: Volume, _ request: VolumeCreate) throws(EngineError) -> Volume {
    if let driver = request.driver, !driver.isEmpty, driver != present.driver {
      throw EngineError(
        .conflict,
        "create \(present.name): driver '\(present.driver)' already has volume '\(present.name)': "
          + "volume name must be unique")
    }
    if !request.options.isEmpty && request.options != present.options {
      throw EngineError(
        .conflict,
        "create \(present.name): the volume exists with other options; remove it first (volume rm \(present.name))")
    }
    return present
  }

  private func write(_ volume: Volume, _ call: Call) async throws(EngineError) {
    let text = String(decoding: try JSON.encode(volume), as: UTF8.self)
    _ = try await call.request(
      RecordWrite(
        put: [Record(kind: Self.kind, key: volume.name, value: text)],
        durability: volume.isAnonymous ? .process : .power))
  }

  // MARK: Removing

  /// - Parameter forgets: a volume whose driver is gone loses its record alone.
  /// - Returns: warnings for people.
  @discardableResult
  func remove(
    _ request: VolumeRemove, forgets: Bool = false, _ call: Call
  ) async throws(EngineError) -> [String] {
    let name = request.volume
    return try await alone(name) { () async throws(EngineError) -> [String] in
      guard let volume = find(name) else {
        if request.force { return [] }
        throw EngineError(.notFound, "get \(name): no such volume")
      }
      let users = try await call.request(ContainerUsers(resource: .volume(name)))
      if !users.isEmpty {
        let list = users.map(\.id.text).joined(separator: ", ")
        throw EngineError(.inUse, "remove \(name): volume is in use - [\(list)]")
      }
      return try await discard(volume, forgets: forgets, call)
    }
  }

  /// Undoes a creation. Not while something else of this name goes on, and not once it is another volume.
  func undo(_ volume: Volume, _ call: Call) async {
    _ = try? await alone(volume.name) { () async throws(EngineError) in
      if find(volume.name) == volume { _ = try await discard(volume, forgets: false, call) }
    }
  }

  /// Asks the volume's driver, which may have to be found first.
  func ask<R: Request>(_ request: R, _ volume: Volume, _ call: Call) async throws(EngineError) -> R.Reply {
    await host.bus.publishWanted(R.self, role: "volume", driver: volume.driver)
    return try await call.request(request, driver: volume.driver)
  }

  /// The record goes first: data without a record is a leftover that the check clears, a record without data would be
  /// a volume that fails.
  private func discard(_ volume: Volume, forgets: Bool, _ call: Call) async throws(EngineError) -> [String] {
    var warnings: [String] = []
    _ = try await call.request(
      RecordWrite(
        delete: [.init(kind: Self.kind, key: volume.name)], durability: volume.isAnonymous ? .process : .power))
    FaultPoint.reach("volumes.remove.forgotten")
    do throws(EngineError) {
      _ = try await ask(VolumeDriverRemove(volume: volume.name), volume, call)
    } catch {
      let isGone = DriverAbsence.codes.contains(error.code)
      if forgets, isGone {
        warnings.append(
          "the driver \"\(volume.driver)\" of the volume \(volume.name) is gone (\(error)); only the engine's record was "
            + "removed, and the driver's data may remain\(volume.mountpoint.isEmpty ? "" : " in \(volume.mountpoint)")")
      } else {
        try await write(volume, call)
        let wayOut =
          isGone
          ? "; where the driver is gone for good, 'engine volume rm -f \(volume.name)' removes the engine's record "
            + "and leaves the driver's data" : ""
        throw EngineError(error.code, "remove \(volume.name): \(error.message)\(wayOut)", causes: error.causes)
      }
    }
    state.withLock { state in
      state.volumes[volume.name] = nil
      state.made.remove(volume.name)
    }
    FaultPoint.reach("volumes.remove.removed")
    await tell("destroy", volume)
    return warnings
  }

  private func tell(_ action: String, _ volume: Volume) async {
    await host.bus.publish(
      EngineEvent(kind: .volume, action: action, object: volume.name, attributes: ["driver": volume.driver]))
  }

  // MARK: Anonymous volumes and their containers

  /// From now on the anonymous volumes of a container do without it.
  func keep(of container: ObjectID, _ call: Call) async throws(EngineError) {
    for owned in list() where owned.container == container {
      try await alone(owned.name) { () async throws(EngineError) in
        guard var volume = find(owned.name), volume.container == container else { return }
        volume.container = nil
        try await write(volume, call)
        FaultPoint.reach("volumes.keep.recorded")
        state.withLock { [volume] in $0.volumes[volume.name] = volume }
      }
    }
  }

  /// Anonymous volumes of a former engine whose container never came to be.
  func unclaimed(known: Set<ObjectID>) -> [Volume] {
    let made = state.withLock { $0.made }
    return list().filter { volume in
      guard let container = volume.container, !made.contains(volume.name) else { return false }
      return !known.contains(container)
    }
  }
}
