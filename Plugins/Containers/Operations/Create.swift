import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  func create(_ request: ContainerCreate, _ call: Call) async throws(EngineError) -> ContainerCreate.Reply {
    try await leased("container", call) { (call) async throws(EngineError) in
      let made = try await make(request.containerName, request.configuration, isRun: false, StartSteps(), call)
      try await made.store(nil)
      try call.lease.commit()
      return ContainerCreate.Reply(id: made.entry.id, warnings: made.warnings)
    }
  }

  /// A container that was made.
  struct Made: Sendable {
    var entry: ContainerEntry
    var warnings: [String]
    /// Stores its record, and its state where it has one by then. Nothing of it may be said to be there before this has
    /// returned; the journal knows until then what is on the host for it.
    var store: @Sendable (StoredState?) async throws(EngineError) -> Void
  }

  /// Makes a container's record and what it names (log, volumes); nothing is mounted yet.
  ///
  /// - Parameter isRun: it is started next: its shim is started while the rest is prepared. The entry's lock is held
  ///   when this returns, and given back by the caller once the lease is committed.
  func make(
    _ name: String?, _ configuration: ContainerConfiguration, isRun: Bool, _ steps: StartSteps, _ call: Call
  ) async throws(EngineError) -> Made {
    var mark = steps.begin
    let image = try await call.request(ImageResolve(reference: configuration.image, platform: configuration.platform))
    steps.finish("resolve image", &mark)
    var configuration = configuration
    try concretize(&configuration)
    chooseDefaults(&configuration)
    let merged = try Merge.merge(
      configuration, image: image.configuration.config ?? .init(), inherited: try inheritedMounts(configuration))
    let id = ObjectID.random()
    complete(&configuration, id: id, ports: merged.ports)
    let name =
      try name.map { (name) throws(EngineError) in try Names.validate(name) } ?? Names.invent(isFree: table.isFree)
    var record = ContainerRecord(
      id: id, name: name, created: .now, configuration: configuration, imageID: image.id, layers: image.layers,
      path: merged.arguments[0], arguments: Array(merged.arguments.dropFirst()), environment: merged.environment,
      workingDirectory: merged.workingDirectory, user: merged.user, exposedPorts: merged.exposedPorts,
      stopSignal: merged.stopSignal, imageLabels: merged.imageLabels, mounts: merged.mounts, mountPoints: [],
      log: LogOpen.Reply(path: "", maximumSize: 0, maximumFiles: 0))
    let entry = ContainerEntry(record)
    entry.update { $0.isActive = isRun }
    if isRun {
      try await entry.lock.acquire()
      // Given back last, so that nobody meets a container that is half gone.
      await call.lease.hold("lock") { entry.lock.release() }
    }
    try table.insert(entry, name: name)
    await call.lease.hold("name \(name)") { [table] in
      if entry.record.state.status != .dead { table.remove(id) }
    }

    // A shim that was started without a record is nobody's, and the runtime's check ends it.
    async let prepared = attempt { () async throws(EngineError) -> Done in
      guard isRun else { return Done() }
      var mark = MonotonicClock.now
      let done = try await call.request(RuntimePrepare(container: id))
      steps.finish("spawn shim", &mark)
      return done
    }
    steps.finish("merge, name", &mark)
    let complete = await attempt { [record, mark] () async throws(EngineError) -> ContainerRecord in
      var record = record
      var mark = mark
      try await prepareStorage(&record, entry, call)
      steps.finish("log, volumes", &mark)
      return record
    }
    _ = try await prepared.get()
    record = try complete.get()
    entry.update { [record] in $0.record = record }
    // Before it is there, because what is held first is given back last: as long as something of it is left, so is the
    // record.
    let durability: Durability = record.configuration.removesItself ? .process : .power
    await hold("record of container \(name)", of: entry, call) { (call) async throws(EngineError) in
      try await Storage.delete(id, durability: durability, call)
    }
    return Made(entry: entry, warnings: Self.warnings(image, record.configuration) + merged.warnings) {
      [self, record] (state) async throws(EngineError) in
      var mark = MonotonicClock.now
      try await Storage.create(record, isRun: isRun, state: state, call)
      steps.finish("store record", &mark)
      // Then it may have been deleted before it was there.
      if call.lease.isReleased { try await Storage.delete(id, durability: durability, call) }
      if isRun { FaultPoint.reach("containers.run.recorded") } else { FaultPoint.reach("containers.create.recorded") }
      await self.tell("create", record)
    }
  }

  /// An image of another platform, which people may have under the name without knowing.
  private static func warnings(
    _ image: ImageDescription, _ configuration: ContainerConfiguration
  ) -> [String] {
    let platform = image.configuration.platform
    guard configuration.platform == nil, !platform.architecture.isEmpty,
      platform.architecture != ImagePlatform.host.architecture, !ImagePlatform.host.runnable.contains(platform)
    else { return [] }
    return [
      "The requested image's platform (\(platform)) does not match the detected host platform "
        + "(\(ImagePlatform.host)) and no specific platform was requested"
    ]
  }

  /// Asks where the log goes and what the volumes are, and makes those that do not exist.
  private func prepareStorage(
    _ record: inout ContainerRecord, _ entry: ContainerEntry, _ call: Call
  ) async throws(EngineError) {
    let id = record.id
    if record.configuration.logDriver != "none" {
      let log = try await openLog(record, call)
      await hold("log of container \(record.name)", of: entry, call) {
        [self, record] (call) async throws(EngineError) in
        try await removeLog(record, call)
      }
      record.logPath = log.path
      record.logMaximumSize = log.maximumSize
      record.logMaximumFiles = log.maximumFiles
      FaultPoint.reach("containers.create.logged")
    }
    if record.mounts.isEmpty { return }
    let points = try await call.request(VolumePrepare(container: id, mounts: record.mounts))
    guard points.count == record.mounts.count else {
      throw EngineError(
        .internalFailure, "the volume catalog told of \(points.count) mounts where \(record.mounts.count) were asked")
    }
    record.mountPoints = points
    entry.update { $0.record.mountPoints = points }
    await hold("volumes of container \(record.name)", of: entry, call) { [record] (call) async throws(EngineError) in
      // It is still in the table, and must not be taken for a user of its own volumes.
      entry.update { $0.isBeingRemoved = true }
      for volume in record.anonymousVolumes {
        _ = try await call.request(VolumeRemove(volume: volume, force: true))
      }
    }
    FaultPoint.reach("containers.create.volumes")
  }

  private func openLog(_ record: ContainerRecord, _ call: Call) async throws(EngineError) -> LogOpen.Reply {
    let driver = logDriver(record.configuration)
    if !driver.isEmpty { await call.bus.publishWanted(LogOpen.self, role: "log", driver: driver) }
    do throws(EngineError) {
      return try await call.request(
        LogOpen(container: record.id, options: record.configuration.logOptions), driver: driver)
    } catch  where error.code == .notFound && !driver.isEmpty {
      throw EngineError(.invalidArgument, "logger: no log driver named '\(driver)' is registered", because: error)
    }
  }

  /// The driver to route log messages to; the default answers when none is named.
  func logDriver(_ configuration: ContainerConfiguration) -> String { configuration.logDriver ?? "" }

  func removeLog(_ record: ContainerRecord, _ call: Call) async throws(EngineError) {
    if record.configuration.logDriver == "none" { return }
    let driver = logDriver(record.configuration)
    if try await !bus.release(LogRemove(container: record.id), role: "log", driver: driver, call) {
      log.warning("the log driver \(driver) is gone, so what it keeps of \(record.id.short) may remain")
    }
  }

  /// What the command line leaves to the engine's configuration is written down, so that the container keeps it when
  /// the configuration changes.
  private func chooseDefaults(_ configuration: inout ContainerConfiguration) {
    configuration.logDriver = configuration.logDriver ?? bus.defaultDriver(for: LogOpen.self)
    guard configuration.networkMode == "default" || configuration.networkMode.isEmpty,
      configuration.networks.isEmpty, let network = bus.defaultDriver(for: NetworkDriverAttach.self),
      network != "bridge"
    else { return }
    configuration.networkMode = network
  }

  /// Names of other containers become their IDs, which outlive a renaming.
  private func concretize(_ configuration: inout ContainerConfiguration) throws(EngineError) {
    if case .container(let other) = NetworkMode(configuration) {
      configuration.networkMode = "container:\(try table.find(other).id)"
      configuration.networks = []
    }
    for path in [\ContainerConfiguration.pidMode, \.ipcMode, \.utsMode, \.cgroupNamespaceMode] {
      if case .container(let other) = configuration[keyPath: path] {
        configuration[keyPath: path] = .container(try table.find(other).id.text)
      }
    }
  }

  /// Fills in what depends on the container's identity.
  private func complete(_ configuration: inout ContainerConfiguration, id: ObjectID, ports: [PortBinding]) {
    configuration.ports = ports
    if !configuration.hostname.isEmpty { return }
    let mode = NetworkMode(configuration)
    if case .container(let other) = mode, let entry = try? table.find(other) {
      configuration.hostname = entry.record.configuration.hostname
    } else if mode == .host || configuration.utsMode == .host {
      configuration.hostname = HostName.current
    } else {
      configuration.hostname = id.short
    }
  }

  /// The mounts of `--volumes-from x[:ro|:rw]`.
  private func inheritedMounts(_ configuration: ContainerConfiguration) throws(EngineError) -> [MountRequest] {
    var mounts: [MountRequest] = []
    for reference in configuration.volumesFrom {
      let parts = reference.split(separator: ":", maxSplits: 1).map(String.init)
      guard let container = parts.first, parts.count == 1 || ["ro", "rw", "z", "Z"].contains(parts[1]) else {
        throw EngineError(.invalidArgument, "invalid specification for --volumes-from: \(reference)")
      }
      let record = try table.find(container).record
      for (mount, point) in zip(record.mounts, record.mountPoints) where mount.kind != .tmpfs {
        var mount = mount
        if mount.kind == .volume { mount.source = point.volume }
        if parts.count == 2, parts[1] == "ro" { mount.isReadOnly = true }
        mount.createsSource = false
        mounts.append(mount)
      }
    }
    return mounts
  }
}

extension ContainerRecord {
  /// Volumes that were made for this container without a name: they go with it.
  var anonymousVolumes: [String] {
    zip(mounts, mountPoints).compactMap { mount, point in
      mount.kind == .volume && mount.source.isEmpty && !point.volume.isEmpty ? point.volume : nil
    }
  }
}
