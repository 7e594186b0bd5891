import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing
import Wire

@testable import ContainersPlugin

/// Every other plugin as a fake on one bus: it records what it is asked, keeps what it "made", and fails where told to.
final class World: Sendable {
  struct State: Sendable {
    var calls: [String] = []
    /// Message name to how often it shall still fail.
    var failures: [String: (times: Int, error: EngineError)] = [:]
    /// What would be on the host: `snapshot <id>`, `network <id>`, ...
    var made: Set<String> = []
    var records: [String: Record] = [:]
    var durabilities: [Durability] = []
    var volumes: Set<String> = []
    var nextVolume = 0
    var creates: [RuntimeCreate] = []
    var starts: [RuntimeStart] = []
    var execs: [RuntimeExec] = []
    var attaches: [NetworkAttach] = []
    var logReads: [LogRead] = []
    var checks: [(plugin: String, check: PluginCheck)] = []
    var signals: [Int32] = []
    /// Signals that end a container.
    var deadly: Set<Int32> = [9, 15]
    var oomKills: UInt64 = 0
    /// The command ends at once with this code.
    var exitsAtOnce: Int32?
    var adopted: [ObjectID: Int32] = [:]
    var adoptionEnds: [ObjectID: Contracts.ExitStatus] = [:]
    var image = ImageConfiguration.Execution()
    /// Message names at which the fake waits until `gate` is opened.
    var gated: Set<String> = []
  }

  let state = Mutex(State())
  let bus = Bus()
  let plugin: ContainersPlugin
  let gate = Signal<Bool>()
  let reachedGate = Signal<Bool>()
  private let directory: String
  private let host: PluginHost

  static let imageID = Digest("sha256:" + String(repeating: "a", count: 64))!
  static let layer = Digest("sha256:" + String(repeating: "b", count: 64))!

  /// - Parameter records: what a former engine stored.
  init(records: [Record] = [], _ prepare: (inout State) -> Void = { _ in }) async throws {
    directory = "/tmp/containers-tests-\(getpid())-\(ObjectID.random().short)"
    try Files.makeDirectories(directory)
    let instance = Instance(
      root: directory, runtimeDirectory: directory, hash: "00000000", isDefault: false, daemonPath: "", shimPath: "",
      version: "test")
    host = PluginHost(
      manifest: ContainersPlugin.manifest, bus: bus, instance: instance,
      journal: try Journal(path: "\(directory)/journal"))
    plugin = try ContainersPlugin(host: host)
    state.withLock { state in
      state.image.command = ["sh"]
      state.image.environment = ["PATH=/bin"]
      for record in records { state.records["\(record.kind)/\(record.key)"] = record }
      prepare(&state)
    }
    try registerStores()
    try registerNetwork()
    try registerRuntime()
    try plugin.register(Registrar(bus: bus, manifest: ContainersPlugin.manifest))
    try await plugin.start()
    state.withLock { $0.calls = [] }
  }

  deinit { try? Files.removeTree(directory) }

  // MARK: Looking

  var calls: [String] { state.withLock { $0.calls } }
  var made: Set<String> { state.withLock { $0.made } }
  var records: [Record] { state.withLock { Array($0.records.values) } }

  func fail(_ message: String, times: Int = 1, _ error: EngineError = EngineError(.resourceExhausted, "injected")) {
    state.withLock { $0.failures[message] = (times, error) }
  }

  // MARK: Faking

  /// Notes the call, waits at the gate where told to, and fails where told to.
  func reach(_ name: String) async throws(EngineError) {
    let (waits, failure) = state.withLock { state -> (Bool, EngineError?) in
      state.calls.append(name)
      var failure: EngineError?
      if let planned = state.failures[name], planned.times > 0 {
        state.failures[name] = (planned.times - 1, planned.error)
        failure = planned.error
      }
      return (state.gated.contains(name), failure)
    }
    if waits {
      reachedGate.resolve(true)
      _ = await gate.wait(.seconds(120), by: bus.timekeeper)
    }
    if let failure { throw failure }
  }

  func make(_ what: String) { state.withLock { _ = $0.made.insert(what) } }
  func unmake(_ what: String) { state.withLock { _ = $0.made.remove(what) } }

  private func registrar(_ name: String) -> Registrar {
    Registrar(bus: bus, manifest: PluginManifest(name: name, role: name))
  }

  static func descriptor() -> Descriptor { Descriptor(adopting: open("/dev/null", O_RDWR | O_CLOEXEC)) }

  private func registerStores() throws {
    let stores = registrar("stores")
    try stores.answer(RecordWrite.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("record.write")
      state.withLock { state in
        for record in request.put { state.records["\(record.kind)/\(record.key)"] = record }
        for key in request.delete { state.records["\(key.kind)/\(key.key)"] = nil }
        state.durabilities.append(request.durability)
      }
      return Done()
    }
    try stores.answer(RecordRead.self) { [unowned self] (request, _) async throws(EngineError) in
      state.withLock { $0.records.values.filter { $0.kind == request.kind }.sorted { $0.key < $1.key } }
    }
    try stores.answer(ImageResolve.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("image.resolve")
      guard request.reference != "missing" else {
        throw EngineError(.notFound, "No such image: missing:latest")
      }
      var configuration = ImageConfiguration(
        architecture: "amd64", os: "linux", rootfs: .init(differenceIDs: [Self.layer]))
      configuration.config = state.withLock { $0.image }
      return ImageDescription(
        id: Self.imageID, references: [request.reference], repositoryDigests: [], configuration: configuration,
        layers: [Self.layer], size: 1, stored: .now)
    }
    try stores.answer(SnapshotMount.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("snapshot.mount")
      make("snapshot \(request.container)")
      return SnapshotMount.Reply(root: Self.descriptor())
    }
    try stores.answer(SnapshotRemove.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("snapshot.remove")
      unmake("snapshot \(request.container)")
      return Done()
    }
    try stores.answer(SnapshotUsage.self) { (_, _) async throws(EngineError) in 42 }
    try stores.answer(LogOpen.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("log.open")
      make("log \(request.container)")
      return LogOpen.Reply(path: "/logs/\(request.container)", maximumSize: 10, maximumFiles: 2)
    }
    try stores.answer(LogRemove.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("log.remove")
      unmake("log \(request.container)")
      return Done()
    }
    try stores.stream(LogRead.self) { [unowned self] (request, _, sink) async throws(EngineError) in
      state.withLock { $0.logReads.append(request) }
      try await sink.yield(Done())
      return Done()
    }
    try registerVolumes(stores)
  }

  private func registerVolumes(_ stores: Registrar) throws {
    try stores.answer(VolumePrepare.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("volume.prepare")
      return state.withLock { state in
        request.mounts.map { mount in
          var name = ""
          if mount.kind == .volume {
            name = mount.source
            if name.isEmpty {
              state.nextVolume += 1
              name = "anonymous\(state.nextVolume)"
            }
            state.volumes.insert(name)
          }
          return MountPoint(
            kind: mount.kind, volume: name, source: "/volumes/\(name)", target: mount.target, driver: "local",
            isReadOnly: mount.isReadOnly, propagation: "")
        }
      }
    }
    try stores.answer(VolumeMount.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("volume.mount")
      make("mounts \(request.container)")
      return request.points.map { VolumeMount.Mounted(point: $0, mount: Self.descriptor(), isDirectory: true) }
    }
    try stores.answer(VolumeUnmount.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("volume.unmount")
      unmake("mounts \(request.container)")
      return Done()
    }
    try stores.answer(VolumeKeep.self) { [unowned self] (_, _) async throws(EngineError) in
      try await reach("volume.keep")
      return Done()
    }
    try stores.answer(VolumeRemove.self) { [unowned self] (request, call) async throws(EngineError) in
      try await reach("volume.remove")
      let users = try await call.request(ContainerUsers(resource: .volume(request.volume)))
      guard users.isEmpty else { throw EngineError(.inUse, "remove \(request.volume): volume is in use") }
      state.withLock { _ = $0.volumes.remove(request.volume) }
      return Done()
    }
  }

  private func registerNetwork() throws {
    let network = registrar("network-fake")
    try network.answer(NetworkPrepare.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("network.prepare")
      make("network \(request.container)")
      return NetworkPrepare.Reply(namespace: request.endpoints.first?.network == "host" ? nil : Self.descriptor())
    }
    try network.answer(NetworkAttach.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("network.attach")
      state.withLock { $0.attaches.append(request) }
      let isHost = request.endpoints.first?.network == "host"
      let endpoint = Endpoint(
        id: .random(), networkID: .random(), networkName: "bridge", driver: "bridge", interface: "eth0",
        address: isHost ? "" : "172.17.0.2", prefixLength: 16, gateway: isHost ? "" : "172.17.0.1")
      let ports = request.ports.map {
        var port = $0
        if port.hostPort == 0 { port.hostPort = 32768 }
        return port
      }
      return NetworkAttach.Reply(
        namespace: isHost ? nil : Self.descriptor(), endpoints: [endpoint], ports: ports,
        reservations: ports.map { _ in Self.descriptor() })
    }
    try network.answer(NetworkDetach.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("network.detach")
      unmake("network \(request.container)")
      return Done()
    }
    for name in ["network-fake", "runtime-fake", "zeta"] {
      try registrar(name).answerAsPlugin(PluginCheck.self) { [unowned self] (request, _) async throws(EngineError) in
        state.withLock { $0.checks.append((name, request)) }
        return name == "zeta" ? [SystemDifference(kind: .draining, plugin: name, object: "link z")] : []
      }
    }
    try network.answer(ResourceCreate.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("resource.create")
      make("cgroup \(request.container)")
      return ResourceCreate.Reply(entries: [], unified: nil, paths: ["cpu": "/cg"], warnings: ["no swap limit"])
    }
    try network.answer(ResourceRemove.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("resource.remove")
      unmake("cgroup \(request.container)")
      return Done()
    }
    try network.answer(ResourceRead.self) { [unowned self] (request, _) async throws(EngineError) in
      guard made.contains("cgroup \(request.container)") else { throw EngineError(.notFound, "no cgroup") }
      return state.withLock {
        ResourceUsage(cpuNanoseconds: 0, memory: 0, memoryLimit: 0, pids: 0, oomKills: $0.oomKills)
      }
    }
  }

  private func registerRuntime() throws {
    let runtime = registrar("runtime-fake")
    try runtime.answer(RuntimePrepare.self) { [unowned self] (request, call) async throws(EngineError) in
      try await reach("runtime.prepare")
      make("shim \(request.container)")
      await call.lease.hold("shim") { [weak self] in self?.unmake("shim \(request.container)") }
      return Done()
    }
    try runtime.answer(RuntimeCreate.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("runtime.create")
      make("process \(request.container)")
      state.withLock { $0.creates.append(request) }
      return RuntimeCreate.Reply(generatedPaths: request.specification.generatedFiles.mapValues { _ in "/a/file" })
    }
    try runtime.answer(RuntimeStart.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("runtime.start")
      let code = state.withLock { state in
        state.starts.append(request)
        return state.exitsAtOnce
      }
      if let code { await end(request.container, code) }
      return RuntimeStart.Reply(pid: getpid(), shimPID: getpid(), started: .now, warnings: [])
    }
    try runtime.answer(RuntimeRemove.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("runtime.remove")
      unmake("process \(request.container)")
      unmake("shim \(request.container)")
      return Done()
    }
    try runtime.answer(RuntimeSignal.self) { [unowned self] (request, _) async throws(EngineError) in
      try await reach("runtime.signal")
      let isDeadly = state.withLock { state in
        state.signals.append(request.signal)
        return state.deadly.contains(request.signal)
      }
      if isDeadly, request.exec == nil { await end(request.container, 128 + request.signal) }
      return Done()
    }
    try runtime.answer(RuntimeResize.self) { [unowned self] (_, _) async throws(EngineError) in
      try await reach("runtime.resize")
      return Done()
    }
    try runtime.answer(RuntimeAttach.self) { [unowned self] (_, _) async throws(EngineError) in
      try await reach("runtime.attach")
      return Done()
    }
    try runtime.answer(RuntimeAdopt.self) { [unowned self] (request, call) async throws(EngineError) in
      try await reach("runtime.adopt")
      let (alive, ends) = state.withLock { ($0.adopted, $0.adoptionEnds) }
      // On the bus's threads: those of the tests may all be held by tests that wait for a process.
      Task(executorPreference: bus.executor) {
        for (id, status) in ends { await call.bus.publish(RuntimeExited(container: id, status: status)) }
      }
      return alive.filter { request.containers.contains($0.key) }
    }
    try runtime.stream(RuntimeExec.self) { [unowned self] (request, _, sink) async throws(EngineError) in
      try await reach("runtime.exec")
      state.withLock { $0.execs.append(request) }
      try await sink.yield(.started(pid: 7))
      return .init(code: 3, finished: .now)
    }
  }

  /// The container's process ends.
  func end(_ id: ObjectID, _ code: Int32) async {
    await bus.publish(RuntimeExited(container: id, status: .init(code: code, finished: .now)))
  }

  // MARK: Driving

  func configuration(_ change: (inout ContainerConfiguration) -> Void = { _ in }) -> ContainerConfiguration {
    var configuration = ContainerConfiguration(image: "busybox")
    configuration.command = ["true"]
    change(&configuration)
    return configuration
  }

  @discardableResult
  func run(
    _ name: String? = nil, detached: Bool = true, lease: Lease = Lease(),
    _ change: (inout ContainerConfiguration) -> Void = { _ in }
  ) async throws -> (id: ObjectID?, status: Contracts.ExitStatus?, elements: [ContainerRunElement]) {
    let request = ContainerRun(
      containerName: name, configuration: configuration(change), isDetached: detached, streams: StandardStreams())
    let elements = Mutex<[ContainerRunElement]>([])
    let status = try await Call(bus: bus, lease: lease).stream(request) { (element) async throws(EngineError) in
      elements.withLock { $0.append(element) }
    }
    let seen = elements.withLock { $0 }
    var id: ObjectID?
    for case .created(let created, _) in seen { id = created }
    return (id, status, seen)
  }

  func inspect(_ container: String) async throws -> ContainerRecord {
    try await bus.request(ContainerInspect(container: container))
  }

  /// Waits until something is as it shall be, for what happens in the background.
  func eventually(_ condition: @Sendable () async -> Bool) async -> Bool {
    for _ in 0..<20000 {
      if await condition() { return true }
      await bus.timekeeper.sleep(.milliseconds(2))
    }
    return false
  }
}

/// The error that a request ends with.
func failure(_ body: () async throws -> Void) async -> EngineError? {
  do {
    try await body()
    return nil
  } catch {
    return EngineError(wrapping: error)
  }
}
