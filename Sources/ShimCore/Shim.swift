import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// The monitor of one container: parent and reaper of its first process, owner of its streams, writer of its log and
/// keeper of its exit status. It serves one engine at a time, and outlives engines.
///
/// Its process may serve one container after the other, each with a `Shim` of its own: what loading it anew would cost is
/// four times what a container's shim has to do. Nothing of a container stays: all descriptors but those that every shim
/// has are closed, and the IPC namespace is a new one. One that has entered a namespace of somebody else's, or has run an
/// exec, serves no other.
public final class Shim {
  /// The descriptors that a shim's process has for as long as it lives.
  public struct Surroundings {
    /// Connected to the engine that started it.
    public var engine: Int32
    /// A listening socket for engines that come later.
    public var listener: Int32
    /// A mount namespace with an empty file system, of which the container's is made; -1 for the host's own.
    public var tree: Int32
    /// The host's IPC namespace, or -1.
    public var hostIPC: Int32

    public init(engine: Int32, listener: Int32, tree: Int32 = -1, hostIPC: Int32 = -1) {
      self.engine = engine
      self.listener = listener
      self.tree = tree
      self.hostIPC = hostIPC
    }
  }

  private let loop: EventLoop
  /// The engine's connection, or -1.
  private var engine: Int32
  private var provisions: Provisions
  private var plan: StartPlan?
  private var container: Supervised?
  private var execs: [String: Supervised] = [:]
  private var cgroup: Int32 = -1
  private var cgroupEntries: [Int32] = []
  /// Held only for being held: reserved ports, namespaces.
  private var reservations: [Int32] = []
  private var log: LogWriter?
  private var exit: (code: Int32, time: Int64)?
  /// The exit is known to somebody: an engine, or the file.
  private var isRecorded = false
  private var isTerminating = false
  private var hasRunExecs = false
  /// The container is removed, and another one may come.
  private var standsBy = false
  private let surroundings: Surroundings
  /// When this shim was ready to be told, and when it was told what to start: nanoseconds of CLOCK_MONOTONIC.
  private let born: Int64
  private var planned: Int64 = 0

  /// - Parameter born: When the process began, or was done with the container before: nanoseconds of CLOCK_MONOTONIC.
  public init(_ surroundings: Surroundings, born: Int64 = MonotonicClock.now) throws(SystemCallError) {
    self.surroundings = surroundings
    self.born = born
    provisions = try .make(hostIPC: surroundings.hostIPC)
    loop = try EventLoop()
    engine = surroundings.engine
  }

  /// Reads a plan once before the real one comes: what the first reading costs, mostly in pages of code that are not
  /// mapped yet, is then paid while nobody waits.
  public static func warmUp() {
    let frame = Frame(number: 0, body: ToShim.start(StartPlan()))
    if let bytes = try? frame.encoded() { _ = try? Frame<ToShim>(decoding: bytes) }
    _ = Execute.ignoredSignals
  }

  /// Serves until nothing is left to do.
  ///
  /// - Returns: whether the process is to serve another container: by then everything of this one is closed but what is
  ///   closed with descriptors from the outside.
  public func run() -> Bool {
    loop.watch(engine, EventLoop.readable) { [unowned self] _ in self.receive() }
    loop.watch(surroundings.listener, EventLoop.readable) { [unowned self] _ in self.accept() }
    loop.run { !isFinished }
    if standsBy { Self.nameProcess(standbyLabel) }
    return standsBy
  }

  /// Nothing is left to do: nothing was ever started and nobody will, or the exit is recorded and all output taken.
  private var isFinished: Bool {
    if standsBy { return true }
    guard let container else { return engine < 0 || isTerminating }
    if isTerminating { return container.pid == 0 || container.exit != nil }
    guard exit != nil else { return container.isOver && engine < 0 }
    return isRecorded && container.streams.isDelivered
  }

  // MARK: The engine

  private func accept() {
    let connection = accept4(
      surroundings.listener, __SOCKADDR_ARG(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue))
    guard connection >= 0 else { return }
    // The newest engine is the one that lives.
    disconnect()
    engine = connection
    loop.watch(engine, EventLoop.readable) { [unowned self] _ in self.receive() }
  }

  private func disconnect() {
    guard engine >= 0 else { return }
    loop.forget(engine)
    close(engine)
    engine = -1
  }

  private func receive() {
    let begin = MonotonicClock.now
    let received: Channel.Received?
    do {
      received = try Channel.receive(from: engine, flags: Int32(MSG_DONTWAIT))
    } catch {
      if error.number != EAGAIN { engineIsGone() }
      return
    }
    guard let received else { return engineIsGone() }
    var descriptors = received.descriptors[...]
    do {
      let frame = try Frame<ToShim>(decoding: received.bytes)
      handle(frame.body, frame.number, begin, &descriptors)
    } catch {
      send(.failed(.internalFailure, "the container's shim does not understand the engine: \(error)"))
    }
    for number in descriptors { close(number) }
  }

  /// The exit is known: only output that a slow client has not taken yet keeps this process, and that keeps no port.
  private func letGo() {
    isRecorded = true
    giveBackPorts()
    disconnect()
  }

  private func giveBackPorts() {
    for number in reservations { close(number) }
    reservations = []
  }

  private func engineIsGone() {
    disconnect()
    if exit != nil && !isRecorded { record() }
  }

  private func send(_ body: FromShim, _ number: UInt32 = 0, descriptors: [Int32] = []) {
    guard engine >= 0 else { return }
    do {
      try Channel.send(Frame(number: number, body: body), descriptors: descriptors, to: engine)
    } catch {
      // The loop hears of a dead engine by itself; another failure is as good as one.
      shutdown(engine, Int32(SHUT_RDWR))
    }
  }

  private func handle(
    _ message: ToShim, _ number: UInt32, _ begin: Int64, _ descriptors: inout ArraySlice<Int32>
  ) {
    switch message {
    case .start(let plan):
      planned = begin
      start(plan, number, &descriptors)
    case .exec(let plan): exec(plan, number, begin, &descriptors)
    case .attach(let plan):
      guard let container, exit == nil else {
        return send(.failed(.internalFailure, "the container is not running"), number)
      }
      container.streams.attach(plan, ClientDescriptors(plan, &descriptors), isFirst: false)
      send(.done, number)
    case .resize(let process, let rows, let columns):
      (process.isEmpty ? container : execs[process])?.streams.resize(rows: rows, columns: columns)
      send(.done, number)
    case .acknowledgeExit:
      FaultPoint.reach("shim.exit.acknowledged")
      letGo()
    case .hello:
      let pid = exit == nil && container?.exit == nil ? container?.pid ?? 0 : 0
      let pidfd = container?.pidfd ?? -1
      send(.state(shim: getpid(), pid: pid), number, descriptors: pid > 0 && pidfd >= 0 ? [pidfd] : [])
      if let exit, !isRecorded { tell(exit) }
    case .terminate:
      // The container is gone, and whoever removes it knows: what its clients have not taken yet is still theirs.
      if exit != nil { return letGo() }
      // Without the disconnection, whose end the engine waits for, until the container is gone.
      isTerminating = true
      if let container, container.exit == nil, container.pid > 0 { kill(container.pid, SIGKILL) }
      FaultPoint.reach("shim.terminate.killed")
    case .hold:
      // A container that is over keeps no port.
      if exit != nil { return }
      reservations += descriptors
      descriptors = []
    case .standBy:
      if canServeAgain { standsBy = true } else { letGo() }
      FaultPoint.reach("shim.standby")
    case .settle: send(.done, number)
    }
  }

  // MARK: The container

  private func start(_ plan: StartPlan, _ number: UInt32, _ descriptors: inout ArraySlice<Int32>) {
    guard container == nil, descriptors.count == plan.descriptorCount else {
      return send(.failed(.internalFailure, "the container's shim was given a plan that does not fit"), number)
    }
    self.plan = plan
    Self.nameProcess(plan.directory)
    var child = ChildDescriptors()
    child.root = descriptors.popFirst() ?? -1
    child.gate = descriptors.popFirst() ?? -1
    if plan.hasNetwork { child.network = descriptors.popFirst() ?? -1 }
    if plan.hasUnifiedCgroup { cgroup = descriptors.popFirst() ?? -1 }
    let client = ClientDescriptors(plan.streams, &descriptors)
    for _ in 0..<plan.cgroupEntryCount { cgroupEntries.append(descriptors.popFirst() ?? -1) }
    for _ in plan.mounts { child.mounts.append(descriptors.popFirst() ?? -1) }
    child.cgroupEntries = cgroupEntries
    child.provisions = provisions
    defer { provisions.close() }
    defer { for number in [child.root, child.gate, child.network] + child.mounts where number >= 0 { close(number) } }
    if !plan.logPath.isEmpty {
      log = LogWriter(
        path: plan.logPath, maximumSize: plan.logMaximumSize, maximumFiles: Int(plan.logMaximumFiles))
    }
    let streams = Streams(terminal: plan.process.terminal, log: log, loop: loop)
    let process = Supervised(name: "", streams: streams, loop: loop)
    container = process
    streams.onDetach = { [unowned self] in self.send(.detached(process: "", client: $0)) }
    process.onStart = { [unowned self, unowned process] in self.announce($0, process, number) }
    process.onExit = { [unowned self] in self.ended($0, $1) }
    FaultPoint.reach("shim.start.received")
    do {
      child.owners = try owners(plan)
      defer { for number in child.owners.values { close(number) } }
      let source = plan.otherNamespaces.first { $0.kind == UInt32(CLONE_NEWPID) && $0.process != 0 }
      let pidNamespace = source.flatMap { child.owners[$0.process] } ?? -1
      // The shim's IPC namespace is the container's: a child of its own would get another one.
      let inherited = provisions.hostIPC >= 0 ? UInt32(CLONE_NEWIPC) : 0
      // What of the host is taken into the container is taken from the host's own tree.
      if !plan.isPrivileged, !plan.sharesMemory, !plan.sharesHostCgroups {
        child.tree = surroundings.tree
      }
      let copied = child.tree >= 0 ? UInt32(CLONE_NEWNS) : 0
      let flags = UInt64(plan.freshNamespaces & ~UInt32(CLONE_NEWCGROUP) & ~inherited & ~copied)
      try process.start(
        begin: planned, plan: plan.streams, flags: flags, cgroup: cgroup, pidNamespace: pidNamespace,
        descriptors: child
      ) { Child(descriptors: $0).start(plan) }
      FaultPoint.reach("shim.start.cloned")
      // The process has its own to do meanwhile.
      log?.open()
      streams.attach(plan.streams, client, isFirst: true)
    } catch {
      container = nil
      send(.failed(.internalFailure, "starting the container's first process: \(error)"), number)
    }
  }

  /// Shows a label, such as the short ID that the last component of its path begins with, in the process's arguments
  /// (proc_pid_cmdline(5)).
  private static func nameProcess(_ path: String) {
    guard CommandLine.argc > 1, let label = CommandLine.unsafeArgv[1] else { return }
    let name = path.utf8.reversed().prefix { $0 != UInt8(ascii: "/") }.reversed()
    for (index, digit) in name.prefix(strlen(label)).enumerated() { label[index] = CChar(bitPattern: digit) }
  }

  /// Pidfds of the processes whose namespaces the container shares, by their PID.
  private func owners(_ plan: StartPlan) throws(SystemCallError) -> [Int32: Int32] {
    var result: [Int32: Int32] = [:]
    do throws(SystemCallError) {
      for source in plan.otherNamespaces where source.process != 0 && result[source.process] == nil {
        result[source.process] = try SystemCallError.check("pidfd_open") { pidfd_open(source.process, 0) }
      }
    } catch {
      for number in result.values { close(number) }
      throw error
    }
    return result
  }

  private func announce(_ outcome: Supervised.Outcome, _ process: Supervised, _ number: UInt32) {
    switch outcome {
    case .started(let pid, var warnings, let steps):
      if let problem = log?.problem, process.name.isEmpty { warnings.append(problem) }
      let pidfd = process.pidfd >= 0 ? [process.pidfd] : []
      let wait = process.name.isEmpty ? [StepPlan("wait for the plan", begin: born, end: planned)] : []
      send(
        .started(pid: pid, time: wallClock(), warnings: warnings, steps: wait + steps), number, descriptors: pidfd)
      if process.name.isEmpty { FaultPoint.reach("shim.start.told") } else { FaultPoint.reach("shim.exec.told") }
    case .failed(let kind, let text):
      send(.failed(kind, text), number)
      FaultPoint.reach("shim.failure.told")
      if !process.name.isEmpty { retire(process.name) }
    }
  }

  private func ended(_ code: Int32, _ time: Int64) {
    guard exit == nil else { return }
    exit = (code, time)
    FaultPoint.reach("shim.exit.reaped")
    // It may stay, and whoever reads what the container wrote waits for the end of it.
    if canServeAgain { loop.afterwards { [unowned self] in self.container?.streams.close() } }
    // Ports that it was to hold may not have been taken from the socket yet.
    while engine >= 0, isReadable(engine) { receive() }
    if engine >= 0 {
      // Before the engine hears of it: it keeps them until the rest is undone, and then they must be free. For many of
      // them it asks later, and undoes the rest meanwhile.
      if reservations.count <= fewPorts || !canServeAgain { giveBackPorts() }
      tell((code, time))
      giveBackPorts()
      FaultPoint.reach("shim.exit.told")
    } else {
      record()
    }
  }

  private func tell(_ exit: (code: Int32, time: Int64)) {
    send(.exited(code: exit.code, time: exit.time, canServeAgain: canServeAgain))
  }

  /// Nothing of the container that has ended is left, or can be, but what is closed before the next one.
  private var canServeAgain: Bool {
    guard exit != nil, !isRecorded, !hasRunExecs, engine == surroundings.engine, let plan, let container else {
      return false
    }
    return plan.otherNamespaces.isEmpty && container.streams.isDelivered
  }

  /// Leaves the exit status for an engine to come, and starts one.
  private func record() {
    guard let exit, let plan, !isRecorded else { return }
    isRecorded = true
    Farewell.write(code: exit.code, time: exit.time, directory: plan.directory)
    FaultPoint.reach("shim.exit.recorded")
    if !plan.daemonPath.isEmpty { Farewell.startEngine(plan.daemonPath, root: plan.daemonRoot) }
    FaultPoint.reach("shim.exit.woken")
  }

  // MARK: Execs

  private func exec(_ plan: ExecPlan, _ number: UInt32, _ begin: Int64, _ descriptors: inout ArraySlice<Int32>) {
    guard let container, container.pidfd >= 0, exit == nil else {
      return send(.failed(.internalFailure, "the container is not running"), number)
    }
    guard execs[plan.name] == nil, descriptors.count == plan.streams.descriptorCount else {
      return send(.failed(.internalFailure, "the container's shim was given a plan that does not fit"), number)
    }
    let client = ClientDescriptors(plan.streams, &descriptors)
    let streams = Streams(terminal: plan.process.terminal, log: nil, loop: loop)
    let process = Supervised(name: plan.name, streams: streams, loop: loop)
    let name = plan.name
    streams.onDetach = { [unowned self] in self.send(.detached(process: name, client: $0)) }
    process.onStart = { [unowned self, unowned process] in self.announce($0, process, number) }
    process.onExit = { [unowned self] code, time in
      FaultPoint.reach("shim.exec.reaped")
      self.send(.execExited(process: name, code: code, time: time))
      self.retire(name)
    }
    // Its process joins the namespaces of the container, by way of the shim's own choice for its children.
    hasRunExecs = true
    var child = ChildDescriptors()
    child.cgroupEntries = cgroupEntries
    child.container = container.pidfd
    do {
      try process.start(
        begin: begin, plan: plan.streams, flags: 0, cgroup: cgroup, pidNamespace: container.pidfd, descriptors: child
      ) { Child(descriptors: $0).join(plan) }
      FaultPoint.reach("shim.exec.cloned")
      execs[name] = process
      streams.attach(plan.streams, client, isFirst: true)
    } catch {
      streams.close()
      send(.failed(.internalFailure, "starting the process: \(error)"), number)
    }
  }

  /// Forgets an exec, once its own handlers have returned and its client has taken everything, or is gone.
  private func retire(_ name: String) {
    loop.afterwards { [unowned self] in
      guard let process = self.execs[name] else { return }
      guard process.streams.isDelivered else {
        process.streams.onDone = { [unowned self] in self.retire(name) }
        return
      }
      process.streams.close()
      self.execs[name] = nil
    }
  }
}

/// What a shim leaves behind when no engine is there to be told.
enum Farewell {
  /// `<directory>/exit`: code and nanoseconds since 1970 in one line, in one step.
  static func write(code: Int32, time: Int64, directory: String) {
    let text = "\(code) \(time)\n"
    try? Files.replace("\(directory)/exit", with: Array(text.utf8), durable: false)
  }

  /// Starts an engine, which will find the file. It is not waited for: PID 1 reaps it.
  static func startEngine(_ path: String, root: String) {
    var arguments = clone_args()
    arguments.exit_signal = UInt64(SIGCHLD)
    guard linux_clone3(&arguments, MemoryLayout<clone_args>.size) == 0 else { return }
    _ = setsid()
    _ = linux_close_range(3, UInt32.max, 0)
    Execute.resetSignals()
    // What is to die is this process, not the engine after it.
    unsetenv("ENGINE_FAULT")
    withCStrings([path, "--root", root]) { _ = execv(path, $0) }
    _exit(127)
  }
}
