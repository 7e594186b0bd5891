import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import ShimProtocol
import Synchronization

/// Runs containers with Linux's own means: one shim a container, which makes the namespaces and watches the process.
public final class LinuxRuntimePlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "runtime-linux", role: "runtime",
    keys: [
      ConfigurationKey(
        "standby-shims", .integer(4), range: 0...64,
        "Processes that are started before a container needs them: each costs 0.2 MB and saves a start half a millisecond."
      )
    ])

  let host: PluginHost
  let spawner: ShimSpawner
  let standby: StandbyShims
  private let spares: DirectoryPool
  private let replenisher: Replenisher
  private let filters = SeccompFilters()
  private let plans: PlanBuilder
  private let watcher: ShimWatcher
  private let directoryBase: String
  let shims = Mutex(ShimTable())
  private let preparation = Mutex<Task<Void, Never>?>(nil)

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    directoryBase = try host.runtimeDirectory()
    spawner = ShimSpawner(path: host.instance.shimPath)
    spares = DirectoryPool(in: directoryBase, bus: host.bus)
    standby = StandbyShims(
      base: directoryBase, spares: spares, spawner: spawner, count: Int(host.setting("standby-shims")) ?? 0)
    replenisher = Replenisher(host.bus)
    plans = PlanBuilder(instance: host.instance, filters: filters)
    let table = Relay()
    watcher = try ShimWatcher(executor: host.bus.executor) { link, tiding in
      table.target.withLock { $0 }?.hear(link, tiding)
    }
    table.target.withLock { $0 = self }
  }

  /// Lets the watcher's thread find the plugin, which is not there yet when the watcher is made.
  private final class Relay: Sendable {
    // The engine ends with its plugins, so this cycle is never in anybody's way.
    let target = Mutex<LinuxRuntimePlugin?>(nil)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(RuntimePrepare.self) { [self] (request, call) throws(EngineError) in
      try await prepare(request.container, call)
    }
    try registrar.answer(RuntimeCreate.self) { [self] (request, call) async throws(EngineError) in
      try await create(request, call)
    }
    try registrar.answer(RuntimeStart.self) { [self] (request, call) throws(EngineError) in
      try await start(request, call)
    }
    try registrar.answer(RuntimeAdopt.self) { [self] (request, _) throws(EngineError) in
      try await adopt(request.containers)
    }
    try registrar.answer(RuntimeSignal.self) { [self] (request, _) throws(EngineError) in
      try running(request.container).signal(request.signal, exec: request.exec)
      return Done()
    }
    try registrar.answer(RuntimeResize.self) { [self] (request, _) throws(EngineError) in
      let process = request.exec?.text ?? ""
      _ = try await running(request.container).ask(
        .resize(process: process, rows: request.rows, columns: request.columns))
      return Done()
    }
    try registrar.answer(RuntimeAttach.self) { [self] (request, call) throws(EngineError) in
      let client = clientDescriptor(call, request.streams)
      let plan = try plans.streams(request.streams, client: client)
      _ = try await running(request.container).ask(
        .attach(plan), descriptors: plans.clientDescriptors(request.streams, client: client))
      return Done()
    }
    try registrar.stream(RuntimeExec.self) { [self] (request, call, sink) throws(EngineError) in
      try await exec(request, call, sink)
    }
    try registrar.answer(RuntimeRemove.self) { [self] (request, _) throws(EngineError) in
      try remove(request.container)
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { [self] (request, _) throws(EngineError) in
      try check(request)
    }
  }

  public func start() async throws(EngineError) {
    do {
      _ = try spawner.load()
    } catch {
      throw EngineError(.unavailable, "the shim cannot be loaded: \(error)")
    }
    // Where /run is on a disk.
    InodePlacement.spread(directoryBase)
    standby.clean()
    spares.clean()
    let preparation = Task(executorPreference: host.bus.executor) { [standby, filters] in
      // What the first container needs comes first.
      await standby.fill(upTo: 1)
      _ = try? filters.usual()
      await standby.fill()
    }
    self.preparation.withLock { $0 = preparation }
  }

  /// Waits until all is there that `start` has begun to make.
  func waitUntilPrepared() async { await preparation.withLock { $0 }?.value }

  public func stop() async {
    await standby.close()
    await spares.close()
  }

  func directory(_ container: ObjectID) -> ContainerDirectory {
    ContainerDirectory(base: directoryBase, container: container)
  }

  func running(_ container: ObjectID) throws(EngineError) -> ShimLink {
    guard let link = shims.withLock({ $0.running[container] }) else {
      throw EngineError(.conflict, "the container \(container.short) is not running")
    }
    return link
  }

  // MARK: Starting

  private func prepare(_ container: ObjectID, _ call: Call) async throws(EngineError) -> Done {
    _ = try spawn(container)
    // Started or not: what is not committed has no owner, so it goes.
    await call.lease.hold("shim of \(container.short)") { [self] in
      try? remove(container)
    }
    return Done()
  }

  private func spawn(_ container: ObjectID) throws(EngineError) -> ShimLink {
    if shims.withLock({ $0.hasShim(container) }) {
      throw EngineError(.conflict, "the container \(container.short) is running already")
    }
    let directory = directory(container)
    let entries = try host.journal.begin(
      plugin: Self.manifest.name, container: container.text, [("shim", directory.path)])
    FaultPoint.reach("runtime.prepare.journalled")
    do throws(SystemCallError) {
      let link: ShimLink
      if let shim = standby.take(for: directory) {
        FaultPoint.reach("runtime.prepare.directory")
        link = ShimLink(container: container, directory: directory, socket: shim.socket, process: shim.process)
      } else {
        try spares.ensure(directory.path)
        FaultPoint.reach("runtime.prepare.directory")
        let (socket, pid) = try spawner.spawn(in: directory, label: container.short)
        link = ShimLink(
          container: container, directory: directory, socket: socket, process: ShimProcess(pid),
          spawned: MonotonicClock.now)
      }
      FaultPoint.reach("runtime.prepare.spawned")
      shims.withLock { shims in
        shims.prepared[container] = link
        shims.entries[container] = entries
      }
      return link
    } catch {
      try? directory.remove()
      try host.journal.end(entries)
      throw EngineError(.internalFailure, "the container's shim cannot be started: \(error)")
    }
  }

  private func create(_ request: RuntimeCreate, _ call: Call) async throws(EngineError) -> RuntimeCreate.Reply {
    let container = request.container
    if shims.withLock({ $0.prepared[container] == nil }) { _ = try await prepare(container, call) }
    guard let link = shims.withLock({ $0.prepared[container] }) else { throw Self.removed(container) }
    do throws(EngineError) {
      let creation = try plans.create(
        request, directory: link.directory, client: clientDescriptor(call, request.streams))
      try link.send(.start(creation.plan), number: ShimLink.directly, descriptors: creation.descriptors)
      FaultPoint.reach("runtime.create.sent")
      let created = ShimTable.Created(link: link, gate: creation.gate, files: creation.files)
      guard shims.withLock({ $0.created(container, created) }) else { throw Self.removed(container) }
      return RuntimeCreate.Reply(generatedPaths: creation.files)
    } catch {
      try? remove(container)
      throw error
    }
  }

  private static func removed(_ container: ObjectID) -> EngineError {
    EngineError(.cancelled, "the container \(container.short) was removed while it was started")
  }

  private func start(_ request: RuntimeStart, _ call: Call) async throws(EngineError) -> RuntimeStart.Reply {
    let container = request.container
    guard let created = shims.withLock({ $0.created[container] }) else {
      throw EngineError(.conflict, "the container \(container.short) was not created, so it cannot be started")
    }
    let link = created.link
    do throws(EngineError) {
      try hold(request.portReservations, by: link)
      try fill(created, request.files)
      // One that has failed meanwhile has no reader at its gate, and its shim tells why.
      var byte: UInt8 = 1
      _ = write(created.gate.number, &byte, 1)
      let answer = try link.awaitAnswer()
      guard case .started(let pid, let time, let warnings, let measured) = answer.body else {
        throw EngineError(.protocolViolation, "the container's shim gave no answer to its start")
      }
      FaultPoint.reach("runtime.start.started")
      link.runs(pid: pid, pidfd: answer.descriptors.first)
      shims.withLock { $0.started(link) }
      watcher.watch(link)
      replenisher.taken(isLast: standby.isEmpty) { [standby] in await standby.fill() }
      let steps = link.measured(measured ?? [])
      record(steps, link, process: pid, call)
      return RuntimeStart.Reply(
        pid: pid, shimPID: link.shimPID, started: Timestamp(nanoseconds: time), warnings: warnings, steps: steps)
    } catch {
      try? remove(container)
      throw error
    }
  }

  /// Has the shim keep the sockets of ports; as many at a time as one message takes (SCM_MAX_FD, unix(7)).
  private func hold(_ reservations: [Descriptor], by link: ShimLink) throws(EngineError) {
    if reservations.count > fewPorts { link.holdsManyPorts() }
    var left = reservations[...]
    while !left.isEmpty {
      try link.send(.hold, descriptors: Array(left.prefix(200)))
      left = left.dropFirst(200)
    }
  }

  private func fill(_ created: ShimTable.Created, _ files: [String: String]) throws(EngineError) {
    for (name, content) in files {
      guard let path = created.files[name] else {
        throw EngineError(.invalidArgument, "\(name) is none of the container's generated files")
      }
      do {
        try created.link.directory.fill(path, content)
      } catch {
        throw EngineError(.internalFailure, "the container's \(name) cannot be written: \(error)")
      }
    }
  }

  /// Puts what the shim and the process measured into the trace of who asked, if there is one.
  private func record(_ steps: [TimedStep], _ link: ShimLink, process: Int32, _ call: Call) {
    guard let trace = call.tracePoint else { return }
    trace.append(steps.filter { $0.place == .shim }, process: link.shimPID, program: "engine-shim")
    trace.append(steps.filter { $0.place == .process }, process: process, program: "container")
  }

  /// A pidfd of the client, by which the shim hears of its end; nil where no client's descriptors are passed.
  private func clientDescriptor(_ call: Call, _ streams: StandardStreams) -> Descriptor? {
    guard let peer = call.peer, streams.input != nil || streams.output != nil || streams.error != nil else {
      return nil
    }
    let number = pidfd_open(peer.pid, 0)
    return number >= 0 ? Descriptor(adopting: number) : nil
  }

  // MARK: Execs

  private func exec(
    _ request: RuntimeExec, _ call: Call, _ sink: Sink<RuntimeExec.Element>
  ) async throws(EngineError) -> ExitStatus {
    let link = try running(request.container)
    let (plan, descriptors) = try plans.exec(request, client: clientDescriptor(call, request.streams))
    let name = request.exec.text
    let bus = host.bus
    let exec = ShimLink.Exec {
      Task(executorPreference: bus.executor) {
        try? await sink.yield(.detached)
        await bus.publish(RuntimeDetached(container: request.container, exec: request.exec))
      }
    }
    link.add(exec, named: name)
    do throws(EngineError) {
      let answer = try await link.ask(.exec(plan), descriptors: descriptors)
      guard case .started(let pid, _, _, let steps) = answer.body else {
        throw EngineError(.protocolViolation, "the container's shim gave no answer to the exec")
      }
      link.setPIDFD(answer.descriptors.first, exec: name)
      record((steps ?? []).map(TimedStep.init), link, process: pid, call)
      try await sink.yield(.started(pid: pid))
    } catch {
      link.removeExec(name)
      throw error
    }
    return try await exec.ended.value.get()
  }

  // MARK: Hearing

  private func hear(_ link: ShimLink, _ tiding: ShimWatcher.Tiding) {
    let bus = host.bus
    switch tiding {
    case .exited(let status, let canServeAgain):
      // The removal decides what becomes of it, where somebody else could have it.
      let stays = canServeAgain && !link.isAdopted
      shims.withLock { $0.exited(link, stays: stays) }
      tell(link, status, keepsShim: stays)
    case .detached(let exec, let client) where exec.isEmpty:
      Task(executorPreference: bus.executor) {
        await bus.publish(RuntimeDetached(container: link.container, exec: nil, client: client))
      }
    case .detached(let exec, _):
      link.exec(exec)?.detached()
    case .ended:
      Task(executorPreference: bus.executor) { self.ended(link) }
    }
  }

  /// A shim's connection has ended, and it had not told of an exit.
  private func ended(_ link: ShimLink) {
    // It closes its descriptors a moment before it is gone. One that stays talks to another engine now.
    guard link.awaitEnd(milliseconds: 1000) else {
      shims.withLock { $0.ended(link) }
      return
    }
    link.killContainer()
    tell(link, (try? link.directory.exit()) ?? killed)
  }

  private var killed: ExitStatus {
    ExitStatus(code: 137, finished: .now, reason: "the container's shim was killed")
  }

  /// Publishes an exit once; the shim may go when everybody has heard it, unless it is kept for the removal.
  private func tell(_ link: ShimLink, _ status: ExitStatus, keepsShim: Bool = false) {
    guard link.claimsExit() else { return }
    shims.withLock { $0.ended(link) }
    Task(executorPreference: host.bus.executor) { [host] in
      await host.bus.publish(RuntimeExited(container: link.container, status: status))
      if !keepsShim { try? link.send(.acknowledgeExit) }
    }
  }

  // MARK: Adopting and removing

  private func adopt(_ containers: [ObjectID]) async throws(EngineError) -> RuntimeAdopt.Reply {
    var running: RuntimeAdopt.Reply = [:]
    var ended: [(ObjectID, ExitStatus)] = []
    for container in containers {
      if let link = shims.withLock({ $0.running[container] }) {
        running[container] = link.pid
        continue
      }
      let directory = directory(container)
      guard let connection = try? directory.connect() else {
        ended.append((container, try directory.exit() ?? killed))
        continue
      }
      let link = ShimLink(
        container: container, directory: directory, socket: Descriptor(adopting: connection.release()), process: nil,
        isAdopted: true)
      guard let answer = try? link.askDirectly(.hello), case .state(let shim, let pid) = answer.body else {
        // It left in this moment: after it had written how the container ended.
        ended.append((container, try directory.exit() ?? killed))
        continue
      }
      link.setShim(shim)
      link.runs(pid: pid, pidfd: answer.descriptors.first)
      if pid > 0 { running[container] = pid }
      shims.withLock { $0.started(link) }
      watcher.watch(link)
    }
    Task(executorPreference: host.bus.executor) { [host] in
      for (container, status) in ended { await host.bus.publish(RuntimeExited(container: container, status: status)) }
    }
    return running
  }

  /// Ends a container's shim, with the container, and removes its directory. A shim that told how the container ended
  /// is not waited for: it holds nothing any more and goes by itself, or stands by for another container.
  func remove(_ container: ObjectID) throws(EngineError) {
    let directory = directory(container)
    let (link, over, known) = shims.withLock { shims in
      (shims.take(container), shims.forget(container), shims.entries.removeValue(forKey: container))
    }
    var isTakenBack = false
    if let link {
      _ = link.claimsExit()
      end(link)
    } else if let kept = over?.link {
      watcher.letGo(kept)
      isTakenBack = kept.settle() && standby.take(back: kept)
      if isTakenBack {
        if standby.hasTooMany { replenisher.taken(isLast: false) { [standby] in await standby.fill() } }
      } else {
        try? kept.send(.acknowledgeExit)
        watcher.watch(kept)
      }
    } else if over == nil, let connection = try? directory.connect() {
      terminate(connection.number)
    }
    FaultPoint.reach("runtime.remove.ended")
    do {
      if !isTakenBack { try spares.give(back: directory.path) }
    } catch {
      throw EngineError(.internalFailure, "the container's runtime directory cannot be removed: \(error)")
    }
    FaultPoint.reach("runtime.remove.directory")
    // Those of a container that another engine started are looked up.
    let entries = known ?? host.journal.entries(plugin: Self.manifest.name, container: container.text).map(\.number)
    try host.journal.end(entries)
  }

  /// Tells a shim to end and waits until it has: its socket is at its end when it and its container are gone.
  private func end(_ link: ShimLink) {
    let isTold = (try? link.send(.terminate)) != nil
    if !isTold || !link.awaitEnd(milliseconds: 5000), let shim = link.shim {
      // Stopped, in a call that does not return, or out of reach: its death takes the container along.
      _ = pidfd_send_signal(shim.number, SIGKILL, nil, 0)
      link.killContainer()
      _ = link.awaitEnd(milliseconds: 1000)
    }
    waitpid(link.shimPID, nil, WNOHANG)
  }

  /// The same for a shim that another engine left.
  func terminate(_ connection: Int32) {
    if (try? Channel.send(Frame(number: 0, body: ToShim.terminate), to: connection)) != nil { awaitEnd(of: connection) }
  }

  private func awaitEnd(of connection: Int32) {
    var waiting = pollfd(fd: connection, events: 0, revents: 0)
    _ = poll(&waiting, 1, 5000)
  }
}

/// The shims this engine knows.
struct ShimTable: Sendable {
  /// A shim with a process that waits for its start.
  struct Created: Sendable {
    var link: ShimLink
    /// What is written here lets the process go on; closed, it ends.
    var gate: Descriptor
    /// The generated files on the host, by their path in the container.
    var files: [String: String]
  }

  /// Spawned, and without a container yet.
  var prepared: [ObjectID: ShimLink] = [:]
  private(set) var created: [ObjectID: Created] = [:]
  var running: [ObjectID: ShimLink] = [:]
  /// The journal's entries about containers that this engine started.
  var entries: [ObjectID: [UInt64]] = [:]
  /// A container whose shim told how it ended.
  struct Over: Sendable {
    /// The shim, where it waits for the removal; nil where it goes by itself.
    var link: ShimLink?
  }

  /// Those that are not removed yet.
  private var over: [ObjectID: Over] = [:]

  func hasShim(_ container: ObjectID) -> Bool {
    prepared[container] != nil || created[container] != nil || running[container] != nil
  }

  /// Those with a shim that runs nothing yet.
  var starting: Set<ObjectID> { Set(prepared.keys).union(created.keys) }

  /// - Returns: false where the shim was taken meanwhile.
  mutating func created(_ container: ObjectID, _ process: Created) -> Bool {
    guard prepared[container] === process.link else { return false }
    prepared[container] = nil
    created[container] = process
    return true
  }

  mutating func started(_ link: ShimLink) {
    prepared[link.container] = nil
    created[link.container] = nil
    running[link.container] = link
  }

  mutating func exited(_ link: ShimLink, stays: Bool) {
    if running[link.container] === link { over[link.container] = Over(link: stays ? link : nil) }
  }

  /// - Returns: what is left of a container that is over; nil for one that is not known to be.
  mutating func forget(_ container: ObjectID) -> Over? { over.removeValue(forKey: container) }

  mutating func ended(_ link: ShimLink) {
    if running[link.container] === link { running[link.container] = nil }
  }

  mutating func take(_ container: ObjectID) -> ShimLink? {
    prepared.removeValue(forKey: container) ?? created.removeValue(forKey: container)?.link
      ?? running.removeValue(forKey: container)
  }
}
