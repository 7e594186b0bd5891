import Contracts
import Kernel
import LinuxSystem
import Synchronization

/// A run on a stage: the lifecycle does what it always does, but on a bus where questions are passed on to the real
/// plugins and whatever would change something is only written down.
final class Rehearsal: Sendable {
  private struct State {
    var steps: [ContainerPlan.Step] = []
    /// After the run: what is undone then is not part of the plan.
    var isOver = false
  }

  private let stage = Bus()
  private let lifecycle: Lifecycle
  private let real: Call
  private let state = Mutex(State())

  /// - Parameter real: the call that asks for the plan, by which real plugins are asked.
  init(of original: Lifecycle, real: Call) throws(EngineError) {
    self.real = real
    lifecycle = Lifecycle(bus: stage, log: original.log, name: original.name)
    for entry in original.table.all { lifecycle.table.keep(ContainerEntry(entry.record)) }
    for role in DriverRole.all {
      guard let message = role.requests.first, let driver = original.bus.defaultDriver(for: message) else { continue }
      stage.setDefaultDriver(driver, for: role.messages)
    }
    try set(Registrar(bus: stage, manifest: PluginManifest(name: "rehearsal", role: "rehearsal")))
  }

  func run(_ request: ContainerPlan) async throws(EngineError) -> [ContainerPlan.Step] {
    let run = ContainerRun(
      containerName: request.containerName, configuration: request.configuration, isDetached: true,
      streams: StandardStreams())
    let ignore = Sink<ContainerRunElement> { (_) async throws(EngineError) in }
    do throws(EngineError) {
      _ = try await lifecycle.run(run, Call(bus: stage), ignore)
      return state.withLock { $0.steps }
    } catch {
      state.withLock { $0.isOver = true }
      throw error
    }
  }

  private func note<M: Message>(_ type: M.Type, driver: String = "", depth: Int = 0, _ changes: [String] = []) {
    state.withLock { state in
      if state.isOver { return }
      state.steps.append(ContainerPlan.Step(message: M.name, driver: driver, depth: depth, changes: changes))
    }
  }

  // MARK: The stage

  private func set(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(ImageResolve.self) { [self] (request, _) async throws(EngineError) in
      note(ImageResolve.self)
      return try await real.request(request)
    }
    try registrar.answer(RuntimePrepare.self) { [self] (_, _) async throws(EngineError) in
      note(RuntimePrepare.self, ["process: the container's engine-shim"])
      return Done()
    }
    try setLogs(registrar)
    try registrar.answer(VolumePrepare.self) { [self] (request, _) async throws(EngineError) in
      try await prepareVolumes(request)
    }
    try registrar.answer(RecordWrite.self) { [self] (request, _) async throws(EngineError) in
      let changes = request.put.map { "record: \($0.kind)" }
      note(RecordWrite.self, changes.map { "\($0) (\(request.durability.rawValue))" })
      return Done()
    }
    try registrar.answer(NetworkPrepare.self) { [self] (request, _) async throws(EngineError) in
      try await prepareNetwork(request)
    }
    try registrar.answer(NetworkAttach.self) { [self] (request, _) async throws(EngineError) in
      try await attach(request)
    }
    try registrar.answer(SnapshotMount.self, driver: stage.defaultDriver(for: SnapshotMount.self) ?? "") {
      [self] (request, _) async throws(EngineError) in
      note(
        SnapshotMount.self, driver: stage.defaultDriver(for: SnapshotMount.self) ?? "",
        ["directory: the container's writable layer", "mount: overlay of \(request.layers.count) layers, detached"])
      return SnapshotMount.Reply(root: Descriptor(adopting: -1))
    }
    try registrar.answer(VolumeMount.self) { [self] (request, _) async throws(EngineError) in mount(request) }
    try registrar.answer(ResourceCreate.self) { [self] (_, _) async throws(EngineError) in
      note(ResourceCreate.self, ["cgroup: one in each hierarchy, with the limits"])
      return ResourceCreate.Reply(entries: [], unified: nil, paths: [:], warnings: [])
    }
    try registrar.answer(RuntimeCreate.self) { [self] (request, _) async throws(EngineError) in
      let command = request.specification.process.arguments.joined(separator: " ")
      note(RuntimeCreate.self, ["process: \(command)"])
      return RuntimeCreate.Reply()
    }
    try registrar.answer(RuntimeStart.self) { [self] (_, _) async throws(EngineError) in
      note(RuntimeStart.self)
      return RuntimeStart.Reply(pid: 0, shimPID: 0, started: .now, warnings: [])
    }
    // What is undone when the run fails on the stage; there is nothing to undo.
    try registrar.answer(RuntimeRemove.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answer(NetworkDetach.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answer(VolumeUnmount.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answer(VolumeRemove.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answer(ResourceRemove.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answer(SnapshotRemove.self, driver: stage.defaultDriver(for: SnapshotRemove.self) ?? "") {
      (_, _) async throws(EngineError) in Done()
    }
  }

  /// Every log driver there is; the options are looked at by the driver itself, and only when it runs.
  private func setLogs(_ registrar: Registrar) throws(EngineError) {
    for driver in lifecycleDrivers(LogOpen.self) {
      try registrar.answer(LogOpen.self, driver: driver) { [self] (_, _) async throws(EngineError) in
        note(LogOpen.self, driver: driver, ["directory: the container's log"])
        return LogOpen.Reply(path: "", maximumSize: 0, maximumFiles: 0)
      }
      try registrar.answer(LogRemove.self, driver: driver) { (_, _) async throws(EngineError) in Done() }
    }
  }

  private func lifecycleDrivers<M: Message>(_ type: M.Type) -> [String] { real.bus.answered[M.name] ?? [] }

  // MARK: Volumes

  private func prepareVolumes(_ request: VolumePrepare) async throws(EngineError) -> [MountPoint] {
    note(VolumePrepare.self)
    var points: [MountPoint] = []
    for mount in request.mounts {
      var point = MountPoint(
        kind: mount.kind, volume: mount.source, source: mount.source, target: mount.target, driver: "",
        isReadOnly: mount.isReadOnly, propagation: mount.propagation)
      switch mount.kind {
      case .tmpfs: point.volume = ""
      case .bind:
        point.volume = ""
        if !Files.exists(mount.source) {
          guard mount.createsSource else {
            throw EngineError(
              .invalidArgument,
              "invalid mount config for type \"bind\": bind source path does not exist: \(mount.source)")
          }
          note(VolumePrepare.self, depth: 1, ["directory: \(mount.source)"])
        }
      case .volume:
        if !mount.source.isEmpty, let volume = try? await real.request(VolumeInspect(volume: mount.source)) {
          (point.driver, point.source) = (volume.driver, volume.mountpoint)
        } else {
          point.driver = mount.driver ?? real.bus.defaultDriver(for: VolumeDriverCreate.self) ?? "local"
          let drivers = lifecycleDrivers(VolumeDriverCreate.self)
          guard drivers.contains(point.driver) else {
            throw EngineError(
              .notFound,
              "error looking up volume plugin \(point.driver): plugin \"\(point.driver)\" not found; there is: "
                + drivers.joined(separator: ", "))
          }
          if mount.source.isEmpty { point.volume = "(anonymous)" }
          note(
            VolumeDriverCreate.self, driver: point.driver, depth: 1,
            ["volume: \(point.volume)", "record: volume (power)"])
        }
      }
      points.append(point)
    }
    return points
  }

  private func mount(_ request: VolumeMount) -> [VolumeMount.Mounted] {
    note(VolumeMount.self)
    return request.points.map { point in
      let mode = point.isReadOnly ? ", read-only" : ""
      switch point.kind {
      case .tmpfs: note(VolumeMount.self, depth: 1, ["mount: tmpfs on \(point.target)\(mode), detached"])
      case .bind: note(VolumeMount.self, depth: 1, ["mount: \(point.source) on \(point.target)\(mode), detached"])
      case .volume:
        note(
          VolumeDriverMount.self, driver: point.driver, depth: 1,
          ["mount: volume \(point.volume) on \(point.target)\(mode), detached; filled from the image where it is empty"]
        )
      }
      return VolumeMount.Mounted(point: point, mount: Descriptor(adopting: -1), isDirectory: true)
    }
  }

  // MARK: Networks

  /// The driver of the network that is named, or the one whose name stands for a network that is to be made.
  private func driver(of network: String) async throws(EngineError) -> (name: String, isMade: Bool) {
    do throws(EngineError) {
      return (try await real.request(NetworkInspect(network: network)).definition.driver, false)
    } catch {
      guard lifecycleDrivers(NetworkDriverAttach.self).contains(network) else { throw error }
      return (network, true)
    }
  }

  private func prepareNetwork(_ request: NetworkPrepare) async throws(EngineError) -> NetworkPrepare.Reply {
    var made: [String] = []
    var isHost = false
    for wanted in request.endpoints {
      let driver = try await driver(of: wanted.network)
      isHost = isHost || driver.name == "host"
      if driver.isMade { made.append(driver.name) }
    }
    note(NetworkPrepare.self, isHost ? [] : ["network namespace: the container's own"])
    for driver in made {
      note(NetworkDriverCreate.self, driver: driver, depth: 1, ["network: \(driver)", "record: network (power)"])
    }
    return NetworkPrepare.Reply(namespace: nil)
  }

  private func attach(_ request: NetworkAttach) async throws(EngineError) -> NetworkAttach.Reply {
    var endpoints: [Endpoint] = []
    var steps: [(driver: String, changes: [String])] = []
    for (index, wanted) in request.endpoints.enumerated() {
      let driver = try await driver(of: wanted.network).name
      var changes: [String] = []
      if driver != "host" && driver != "none" {
        changes.append("link: eth\(index) in the container, with \(wanted.address ?? "the next free address")")
        for port in request.ports where index == 0 {
          let host = port.hostAddress.isEmpty ? "0.0.0.0" : port.hostAddress
          let number = port.hostPort == 0 ? "a free port" : String(port.hostPort)
          changes.append("port: \(host):\(number)/\(port.transport.rawValue) to \(port.containerPort)")
        }
      }
      steps.append((driver, changes))
      endpoints.append(
        Endpoint(id: .random(), networkID: .random(), networkName: wanted.network, driver: driver, interface: ""))
    }
    note(NetworkAttach.self)
    for step in steps { note(NetworkDriverAttach.self, driver: step.driver, depth: 1, step.changes) }
    return NetworkAttach.Reply(namespace: nil, endpoints: endpoints, ports: request.ports, reservations: [])
  }
}
