import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  /// A run that began.
  struct Launched: Sendable {
    var session: Session
    var client: Session.Client
    var warnings: [String]
  }

  /// A container's own file system: the root, and what is mounted in it.
  private struct Files: Sendable {
    var root: Descriptor
    var mounts: [VolumeMount.Mounted]
  }

  /// What a process is put into, each told as soon as it is there.
  private struct Surroundings: Sendable {
    /// Nil for the host's network, another container's, or a new one that nobody sees; it has nothing in it yet.
    let namespace = Once<Result<Descriptor?, EngineError>>()
    let groups = Once<Result<ResourceCreate.Reply, EngineError>>()

    func fail(_ error: EngineError) {
      namespace.resolve(.failure(error))
      groups.resolve(.failure(error))
    }
  }

  /// So many ports take longer than everything else.
  private static let manyPorts = 16

  /// Starts a container: everything that it needs is acquired on the lease of `call`, which is
  /// committed here once the container runs and its state is stored. The entry's lock is held.
  ///
  /// - Parameters:
  ///   - new: how the container's record is stored, where it is new; undoing takes its writable layer then too.
  ///   - announce: called when all is ready and the process is started next: a client that is told has its terminal
  ///     and its signals in order before the process can ask for them.
  /// - Returns: the run that began with its first client, and warnings for people.
  func launch(
    _ entry: ContainerEntry, _ streams: StandardStreams, new: Made?, _ steps: StartSteps, _ call: Call,
    announce: () async throws(EngineError) -> Void
  ) async throws(EngineError) -> Launched {
    let record = entry.record
    let session = Session(trace: call.tracePoint)
    let client = session.attach()
    var streams = streams
    streams.client = client.number
    let isRun = new != nil
    let fresh = isRun ? entry : nil
    let shared = try sharedNamespaces(record)
    entry.update { state in
      state.isActive = true
      state.startingSession = session
    }
    await call.lease.hold("start of container \(record.name)") {
      entry.update { state in
        state.isActive = false
        state.startingSession = nil
      }
    }

    // What the process is made of comes first, on two processors, and then the process is set up beside all the rest. What
    // takes longer begins at once: many ports, and a record that is to survive a power failure, which waits for the disk.
    // That of a container that goes with its process is stored once, with its state: without that it would be undone.
    let surroundings = Surroundings()
    let hasManyPorts = record.configuration.ports.count > Self.manyPorts
    let late = record.configuration.removesItself ? new : nil
    async let storage = attempt { () async throws(EngineError) in if late == nil { try await new?.store(nil) } }
    async let attachment = attempt { () async throws(EngineError) in
      try await surround(record, fresh, surroundings, makesGroups: !hasManyPorts, steps, call)
    }
    let created = await attempt { [streams] () async throws(EngineError) -> [String: String] in
      let files = try await mount(record, fresh, steps, call)
      if hasManyPorts { try await makeGroups(record, fresh, surroundings, steps, call) }
      return try await createProcess(record, fresh, files, surroundings, shared, streams, steps, call)
    }
    // All branches have ended before any one's failure is undone.
    let (attached, stored) = await (attachment, storage)
    let generatedPaths = try created.get()
    let network = try attached.get()
    _ = try stored.get()
    let resources = try await surroundings.groups.value.get()
    var mark = MonotonicClock.now
    try await announce()
    // What the process does from now on others may see, so a client that is killed no longer undoes it.
    try call.lease.keep()

    let endpoints = network?.endpoints ?? []
    let started = try await call.request(
      RuntimeStart(
        container: entry.id, files: try SpecificationBuilder.files(record, endpoints: endpoints, shared: shared),
        portReservations: network?.reservations ?? []))
    steps.finish("start process", &mark)
    steps.append(started.steps)
    session.begin(at: started.steps.map(\.end).max())
    FaultPoint.reach("containers.run.started")

    var running = record
    running.endpoints = endpoints
    running.publishedPorts = network?.ports ?? []
    running.cgroupPaths = resources.paths
    running.generatedPaths = generatedPaths
    running.state = ContainerState()
    running.state.status = .running
    running.state.pid = started.pid
    running.state.shimPID = started.shimPID
    running.state.started = started.started
    running.state.restartCount = record.state.restartCount
    let state = StoredState(.running, running)
    if let late { try await late.store(state) } else { try await Storage.write(state, entry.id, call) }
    await hold("state of container \(record.name)", of: fresh, call) { (call) async throws(EngineError) in
      if isRun {
        try await Storage.delete(record.id, call)
      } else {
        try await Storage.write(StoredState(.stopped, entry.record), record.id, call)
      }
    }
    steps.finish("store state", &mark)
    FaultPoint.reach("containers.run.stored")
    try call.lease.commit()
    history.add(
      ContainerTimings.Reply(
        id: entry.id, containerName: record.name, started: started.started, begin: steps.begin,
        end: MonotonicClock.now, steps: steps.steps))
    entry.update { [running] state in
      state.record = running
      state.session = session
      state.startingSession = nil
    }
    await tell("connect", endpoints, of: record)
    await tell("start", record)
    return Launched(
      session: session, client: client,
      warnings: (network?.warnings ?? []) + resources.warnings + started.warnings)
  }

  /// Network namespace, groups and then the network.
  private func surround(
    _ record: ContainerRecord, _ fresh: ContainerEntry?, _ surroundings: Surroundings, makesGroups: Bool,
    _ steps: StartSteps, _ call: Call
  ) async throws(EngineError) -> NetworkAttach.Reply? {
    let endpoints = NetworkMode.endpoints(record.configuration)
    let reply = await attempt { () async throws(EngineError) -> NetworkAttach.Reply? in
      var mark = MonotonicClock.now
      var namespace: Descriptor?
      if !endpoints.isEmpty {
        namespace = try await call.request(NetworkPrepare(container: record.id, endpoints: endpoints)).namespace
        steps.finish("network namespace", &mark)
        FaultPoint.reach("containers.run.namespace")
      }
      surroundings.namespace.resolve(.success(namespace))
      if makesGroups { try await makeGroups(record, fresh, surroundings, steps, call) }
      if endpoints.isEmpty { return nil }
      mark = MonotonicClock.now
      let reply = try await call.request(
        NetworkAttach(container: record.id, endpoints: endpoints, ports: record.configuration.ports))
      steps.finish("attach network", &mark)
      return reply
    }
    if case .failure(let error) = reply { surroundings.fail(error) }
    if !endpoints.isEmpty {
      // Not before: nobody may take it off while its drivers are at work. Also after a failure, because it was prepared.
      await hold("network of container \(record.name)", of: fresh, call) { (call) async throws(EngineError) in
        _ = try await call.request(NetworkDetach(container: record.id))
      }
      FaultPoint.reach("containers.run.attached")
    }
    return try reply.get()
  }

  private func makeGroups(
    _ record: ContainerRecord, _ fresh: ContainerEntry?, _ surroundings: Surroundings, _ steps: StartSteps,
    _ call: Call
  ) async throws(EngineError) {
    var mark = MonotonicClock.now
    var limits = record.configuration.limits
    limits.allowsAllDevices = record.configuration.isPrivileged
    let groups = try await call.request(ResourceCreate(container: record.id, limits: limits))
    await hold("cgroups of container \(record.name)", of: fresh, call) { (call) async throws(EngineError) in
      _ = try await call.request(ResourceRemove(container: record.id))
    }
    surroundings.groups.resolve(.success(groups))
    steps.finish("make cgroups", &mark)
    FaultPoint.reach("containers.run.cgroup")
  }

  /// Root file system and volumes.
  private func mount(
    _ record: ContainerRecord, _ fresh: ContainerEntry?, _ steps: StartSteps, _ call: Call
  ) async throws(EngineError) -> Files {
    let id = record.id
    var mark = MonotonicClock.now
    let root: Descriptor
    do throws(EngineError) {
      let mount = SnapshotMount(
        container: id, layers: record.layers, discardable: record.configuration.removesItself)
      root = try await call.request(mount).root
    } catch  where error.code == .notFound {
      throw EngineError(
        .notFound,
        "the image \(record.configuration.image) of the container \(record.name) is not here: pull or load it again",
        because: error)
    }
    if fresh != nil {
      await hold("file system of container \(record.name)", of: fresh, call) { (call) async throws(EngineError) in
        _ = try await call.request(SnapshotRemove(container: id))
      }
    }
    steps.finish("mount layers", &mark)
    FaultPoint.reach("containers.run.mounted")
    if record.mounts.isEmpty { return Files(root: root, mounts: []) }
    let mounts = try await call.request(
      VolumeMount(container: id, mounts: record.mounts, points: record.mountPoints, root: root))
    await hold("mounts of container \(record.name)", of: fresh, call) { (call) async throws(EngineError) in
      _ = try await call.request(VolumeUnmount(container: id))
    }
    steps.finish("mount volumes", &mark)
    FaultPoint.reach("containers.run.volumes")
    return Files(root: root, mounts: mounts)
  }

  /// Has the process made, all but its command.
  ///
  /// - Returns: where the generated files are.
  private func createProcess(
    _ record: ContainerRecord, _ fresh: ContainerEntry?, _ files: Files, _ surroundings: Surroundings,
    _ shared: SpecificationBuilder.Shared, _ streams: StandardStreams, _ steps: StartSteps, _ call: Call
  ) async throws(EngineError) -> [String: String] {
    let groups = try await surroundings.groups.value.get()
    let namespace = try await surroundings.namespace.value.get()
    var mark = MonotonicClock.now
    // Before it is there: what it holds (groups, mounts) cannot be given back while it lives.
    let what = "process of container \(record.name)"
    let remove: @Sendable (Call) async throws(EngineError) -> Void = { (call) async throws(EngineError) in
      _ = try await call.request(RuntimeRemove(container: record.id))
    }
    await hold(what, of: fresh, call, remove)
    let created = try await call.request(
      RuntimeCreate(
        container: record.id, specification: try SpecificationBuilder.build(record, shared: shared), root: files.root,
        mounts: files.mounts, networkNamespace: namespace, cgroupEntries: groups.entries, unifiedCgroup: groups.unified,
        streams: streams, logPath: record.logPath, logMaximumSize: record.logMaximumSize,
        logMaximumFiles: record.logMaximumFiles))
    // Then it was removed before it was there.
    if call.lease.isReleased { await undo(what, of: fresh, remove) }
    steps.finish("create process", &mark)
    FaultPoint.reach("containers.run.created")
    return created.generatedPaths
  }

  /// Namespaces that the container shares with the host or with other containers, which must run.
  private func sharedNamespaces(_ record: ContainerRecord) throws(EngineError) -> SpecificationBuilder.Shared {
    typealias Source = RuntimeSpecification.NamespaceSource
    let configuration = record.configuration
    var shared = SpecificationBuilder.Shared()
    func source(_ mode: ContainerConfiguration.NamespaceMode, _ what: String) throws(EngineError) -> Source? {
      switch mode {
      case .own, .shareable, .none: return nil
      case .host: return .host
      case .container(let other):
        let record = try table.find(other).record
        func refuse(_ why: String) -> EngineError {
          EngineError(.conflict, "failed to join \(what) namespace: \(why)")
        }
        guard record.state.status == .running || record.state.status == .paused else {
          throw refuse("container \(record.id) is not running")
        }
        // A container's IPC is its own affair unless it says otherwise.
        if what == "IPC", record.configuration.ipcMode == .own || record.configuration.ipcMode == .none {
          throw refuse("non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
        }
        return .process(record.state.pid)
      }
    }
    switch NetworkMode(configuration) {
    case .host: shared.namespaces[.network] = .host
    case .container(let other):
      let record = try networkOwner(other)
      shared.namespaces[.network] = NetworkMode(record.configuration) == .host ? .host : .process(record.state.pid)
      shared.network = record
    case .attached, .none: break
    }
    shared.namespaces[.pid] = try source(configuration.pidMode, "PID")
    shared.namespaces[.ipc] = try source(configuration.ipcMode, "IPC")
    shared.namespaces[.uts] = try source(configuration.utsMode, "UTS")
    shared.namespaces[.cgroup] = try source(configuration.cgroupNamespaceMode, "cgroup")
    return shared
  }

  /// The container whose network is meant, which may be one that `other` shares in its turn.
  private func networkOwner(_ other: String) throws(EngineError) -> ContainerRecord {
    var reference = other
    for _ in 0..<64 {
      let record = try table.find(reference).record
      guard record.state.status == .running || record.state.status == .paused else {
        throw EngineError(.conflict, "cannot join network of a non running container: \(record.id)")
      }
      guard case .container(let next) = NetworkMode(record.configuration) else { return record }
      reference = next
    }
    throw EngineError(.invalidArgument, "container \(other) shares its network in a circle")
  }
}
