import CLinux
import Contracts
import Glibc
import LinuxSystem
import Logging
import Synchronization
import Wire

/// One driver out of tree: a thread of its own starts its process, listens to it, and starts it again with back-off when
/// it ends. The thread lives as long as the engine, so the kernel kills the driver with the engine (PR_SET_PDEATHSIG).
final class DriverProcess: Sendable {
  /// How long a driver may take to say who it is.
  static let handshakeLimit = Duration.seconds(10)
  /// The first pause before another start; it doubles up to the last one.
  private static let firstPause = 100
  private static let lastPause = 30_000
  /// Milliseconds after which a start counts as a success, and the next pause is the first again.
  private static let provenAfter = 10_000
  /// Milliseconds that a driver has to end by itself when the engine ends.
  private static let farewell: Int32 = 500
  /// Messages without any sense that a driver may send before it is ended.
  private static let patience = 100

  struct State {
    var link: DriverLink?
    var pid: Int32 = 0
    var description: PluginDescribe.Reply?
    var status = PluginStatus.State.waiting
    var reason = "it is being started"
    var starts = 0
    /// Whether the process is to be ended for good, and why.
    var isStopping = false
    var stopReason = "the engine ends"
    /// Why the process is to be ended.
    var verdict: String?
    var missedDeadlines = 0
  }

  let driver: ExternalDriver
  /// Where it was found, when that is a plugin directory.
  private let file: String?
  let bus: Bus
  private let instance: Instance
  private let builtIn: [PluginManifest]
  private let log: Logger
  let state = Mutex(State())
  private let wake: OwnedDescriptor
  private let stopped = Once<Void>()
  /// Resolved at the first successful handshake, or when the first start has failed.
  let settled = Once<Void>()

  /// - Parameter builtIn: the plugins whose drivers' names it may not take.
  init(
    _ driver: ExternalDriver, file: String? = nil, bus: Bus, instance: Instance, builtIn: [PluginManifest]
  ) throws(SystemCallError) {
    self.driver = driver
    self.file = file
    self.bus = bus
    self.instance = instance
    self.builtIn = builtIn
    log = Logger(label: driver.name)
    wake = OwnedDescriptor(
      adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
  }

  func start() -> Bool { Thread.start { self.run() } }

  /// Lets the process be ended.
  func beginStop() {
    state.withLock { $0.isStopping = true }
    poke()
  }

  /// Whether it does not run, and its file is no longer in the plugin directory.
  var isGone: Bool {
    guard let file, !Files.exists(file) else { return false }
    return state.withLock { $0.status != .running }
  }

  /// Gives up a driver that is gone.
  func forget() {
    let reason = "its file \(file ?? "") is gone"
    state.withLock { state in
      state.isStopping = true
      state.stopReason = reason
    }
    poke()
    bus.unregister(owner: driver.name, reason: nil)
    log.notice("the driver \(driver.name) is forgotten: \(reason)")
  }

  /// Ends the process and returns when it is gone.
  func stop() async {
    let wasStarted = state.withLock { state in
      state.isStopping = true
      return state.starts > 0
    }
    poke()
    if wasStarted { await stopped.value }
  }

  var status: PluginStatus {
    let note = file.flatMap { Files.exists($0) ? nil : "its file is gone, so it is not started again" }
    return state.withLock { state in
      PluginStatus(
        name: driver.name, role: state.description?.role ?? driver.role, driver: state.description?.driver ?? "",
        version: state.description?.version ?? "", state: state.status,
        capabilities: state.description?.capabilities ?? [], command: driver.command, pid: state.pid,
        restarts: max(0, state.starts - 1), note: note)
    }
  }

  private func poke() {
    var one: UInt64 = 1
    _ = write(wake.number, &one, 8)
  }

  // MARK: The thread

  private func run() {
    var pause = Self.firstPause
    while !state.withLock({ $0.isStopping }) {
      state.withLock { $0.starts += 1 }
      let begun = Timekeeper.clock()
      var errors = DriverErrors(log: log)
      let reason: String
      do throws(EngineError) {
        reason = try live(&errors)
      } catch {
        reason = error.description
      }
      if state.withLock({ $0.isStopping }) { break }
      if (Timekeeper.clock() - begun) / 1_000_000 > UInt64(Self.provenAfter) { pause = Self.firstPause }
      let said = errors.lastLine.map { "; it said: \($0)" } ?? ""
      // Under one lock, so that no verdict on this process can be one on the next.
      state.withLock { state in
        state.link = nil
        state.pid = 0
        state.reason = "\(reason)\(said)"
        state.status = .failed(reason: "\(reason)\(said); it is started again within \(Self.text(pause))")
        state.verdict = nil
        state.missedDeadlines = 0
      }
      log.warning("the driver \(driver.name) ended: \(reason)\(said)")
      settled.resolve(())
      sleep(milliseconds: pause)
      pause = min(pause * 2, Self.lastPause)
    }
    state.withLock { state in
      state.status = .stopped
      state.reason = state.stopReason
      state.pid = 0
    }
    settled.resolve(())
    stopped.resolve(())
  }

  private static func text(_ milliseconds: Int) -> String {
    milliseconds < 1000 ? "\(milliseconds) ms" : "\((milliseconds + 500) / 1000) s"
  }

  /// Waits for the whole time unless the driver is to be ended: a poke that was meant for the life before says nothing.
  private func sleep(milliseconds: Int) {
    let end = Timekeeper.clock() + UInt64(milliseconds) * 1_000_000
    while !state.withLock({ $0.isStopping }) {
      let now = Timekeeper.clock()
      guard now < end else { return }
      var events = [pollfd(fd: wake.number, events: Int16(POLLIN), revents: 0)]
      poll(&events, 1, Int32((end - now) / 1_000_000 + 1))
      var value: UInt64 = 0
      if events[0].revents != 0 { _ = read(wake.number, &value, 8) }
    }
  }

  /// One life of the process.
  ///
  /// - Returns: why it ended.
  private func live(_ errors: inout DriverErrors) throws(EngineError) -> String {
    let pair: (first: Int32, second: Int32)
    var pipes: [Int32] = [-1, -1]
    let link: DriverLink
    let process: ChildProcess
    do throws(SystemCallError) {
      pair = try UnixSocket.pair().release()
      let theirs = OwnedDescriptor(adopting: pair.second)
      link = try DriverLink(socket: OwnedDescriptor(adopting: pair.first))
      try SystemCallError.check("pipe2") { pipe2(&pipes, O_CLOEXEC | O_NONBLOCK) }
      let said = OwnedDescriptor(adopting: pipes[1])
      errors.adopt(Descriptor(adopting: pipes[0]))
      linux_fcntl(said.number, F_SETFL, 0)
      let nothing = try Files.open("/dev/null", O_RDWR)
      process = try ChildProcess(
        driver.command, environment: environment,
        descriptors: [nothing.number, said.number, said.number, theirs.number], diesWithThread: true)
    } catch {
      throw EngineError(.unavailable, "it cannot be started: \(error)")
    }
    let pid = process.pid
    state.withLock { state in
      state.link = link
      state.pid = pid
    }
    let why = serve(link, process.pidfd.number, &errors)
    if state.withLock({ $0.isStopping }) {
      // It is told by the end of its socket, and has a moment to finish what it is at.
      shutdown(link.descriptor, Int32(SHUT_RDWR))
      var event = pollfd(fd: process.pidfd.number, events: Int16(POLLIN), revents: 0)
      poll(&event, 1, Self.farewell)
    }
    // What it may still have said, and whatever it left behind in its session.
    process.signal(SIGKILL)
    let end = process.wait()
    errors.drain()
    let reason = why ?? "it ended with \(end)"
    // Before the requests that wait are failed, so that whoever asks again at once is told this and not that it runs.
    state.withLock { state in
      state.link = nil
      state.reason = reason
      state.status = .failed(reason: reason)
    }
    let said = errors.lastLine.map { "; it said: \($0)" } ?? ""
    let name = driver.name
    link.end { message in
      let place = message.isEmpty ? "" : " at \"\(message)\""
      return EngineError(
        .unavailable,
        "the driver \(name) failed\(place): \(reason)\(said); it is started again ('engine plugin inspect \(name)')")
    }
    return reason
  }

  private var environment: [String] {
    var variables = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8"]
    variables += ["ENGINE_DRIVER_DESCRIPTOR=3", "ENGINE_DRIVER_NAME=\(driver.name)"]
    return variables.filter { variable in
      let name = variable.prefix { $0 != "=" } + "="
      return !driver.environment.contains { $0.hasPrefix(name) }
    } + driver.environment
  }

  /// Listens until the process ends, breaks the protocol, or is to be ended.
  ///
  /// - Returns: the fault, or nil where the process simply ended.
  private func serve(_ link: DriverLink, _ process: Int32, _ errors: inout DriverErrors) -> String? {
    var reader = FrameReader(maximumLength: DriverLink.maximumAnswer)
    let conversation = DriverConversation(link: link, bus: bus, name: driver.name)
    let limit = Timekeeper.clock() + UInt64(Self.handshakeLimit.components.seconds) * 1_000_000_000
    do throws(EngineError) {
      try greet(link)
      while true {
        var events = [
          pollfd(fd: link.descriptor, events: Int16(POLLIN | (link.hasOutput ? POLLOUT : 0)), revents: 0),
          pollfd(fd: process, events: Int16(POLLIN), revents: 0),
          pollfd(fd: wake.number, events: Int16(POLLIN), revents: 0),
          pollfd(fd: link.wakeDescriptor, events: Int16(POLLIN), revents: 0),
          pollfd(fd: errors.descriptor, events: Int16(POLLIN), revents: 0),
        ]
        let isKnown = state.withLock { $0.status == .running }
        let now = Timekeeper.clock()
        if !isKnown && now >= limit { return "it did not say who it is within \(Self.handshakeLimit)" }
        poll(&events, nfds_t(events.count), isKnown ? -1 : Int32((limit - now) / 1_000_000 + 1))
        if events[4].revents != 0 { errors.drain() }
        for index in [2, 3] where events[index].revents != 0 {
          var value: UInt64 = 0
          _ = read(events[index].fd, &value, 8)
        }
        let (stops, reason, verdict) = state.withLock { ($0.isStopping, $0.stopReason, $0.verdict) }
        if stops { return reason }
        if let verdict { return verdict }
        if events[0].revents & Int16(POLLOUT) != 0 { try link.flush() }
        if events[0].revents & Int16(POLLIN | POLLHUP) != 0 {
          guard try receive(link, &reader, conversation) else { return ended(process) }
        }
        if events[1].revents != 0 { return nil }
      }
    } catch {
      return error.code == .unavailable ? ended(process) : error.description
    }
  }

  /// - Returns: nil for a process that has ended; one that only closed its connection is at fault.
  private func ended(_ process: Int32) -> String? {
    var event = pollfd(fd: process, events: Int16(POLLIN), revents: 0)
    return poll(&event, 1, 1000) > 0 ? nil : "it closed its connection"
  }

  /// - Returns: false at the end of the stream.
  private func receive(
    _ link: DriverLink, _ reader: inout FrameReader, _ conversation: DriverConversation
  ) throws(EngineError) -> Bool {
    while true {
      let received = try reader.receive(from: link.descriptor, flags: Int32(MSG_DONTWAIT))
      while let frame = try reader.next() {
        try conversation.take(frame)
        if conversation.nonsense > Self.patience {
          throw EngineError(.protocolViolation, "it sent \(Self.patience) messages that answer nothing")
        }
      }
      switch received {
      case .bytes: continue
      case .wouldBlock: return true
      case .endOfStream: return false
      }
    }
  }

  // MARK: Who it is

  private func greet(_ link: DriverLink) throws(EngineError) {
    try link.enqueue(try OutgoingMessage.hello(Hello(agent: "engined \(instance.version)")))
    let describe = PluginDescribe(
      plugin: driver.name, stateDirectory: try directory(instance.root),
      runtimeDirectory: try directory(instance.runtimeDirectory), options: driver.options)
    let (_, answer) = try link.ask(PluginDescribe.name) { (id) throws(EngineError) in
      try OutgoingMessage.request(id, PluginDescribe.name, describe)
    }
    Task(executorPreference: bus.executor) {
      do throws(EngineError) {
        let reply = try await answer.value.get().decode(PluginDescribe.Reply.self)
        try self.introduce(reply, link)
        await self.bus.publish(DriverStarted(role: reply.role, driver: reply.driver))
        self.settled.resolve(())
      } catch {
        self.condemn(link, "its answer to \"\(PluginDescribe.name)\": \(error)")
      }
    }
  }

  private func directory(_ base: String) throws(EngineError) -> String {
    let path = "\(base)/drivers/\(driver.name)"
    do {
      try Files.makeDirectories(path)
    } catch {
      throw EngineError(.internalFailure, "its directory cannot be made: \(error)")
    }
    return path
  }

  /// Ends the process from any thread, unless it is another one by now.
  func condemn(_ link: DriverLink, _ verdict: String) {
    state.withLock { state in
      if state.link === link { state.verdict = state.verdict ?? verdict }
    }
    poke()
  }

  private func introduce(_ reply: PluginDescribe.Reply, _ link: DriverLink) throws(EngineError) {
    guard let role = DriverRole.named(reply.role) else {
      throw EngineError(
        .unsupported,
        "no role \"\(reply.role)\"; there is: \(DriverRole.all.map(\.name).joined(separator: ", "))")
    }
    if !driver.role.isEmpty && driver.role != reply.role {
      throw EngineError(.conflict, "it is a \(reply.role) driver, and the configuration says \(driver.role)")
    }
    let isName = reply.driver.utf8.allSatisfy { byte in
      (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || [45, 46, 95].contains(byte)
    }
    guard !reply.driver.isEmpty, isName, reply.driver.utf8.count <= 128 else {
      throw EngineError(.invalidArgument, "\"\(reply.driver)\" is no name of a driver")
    }
    // That one is not started yet, and would fail for this one's sake.
    if let plugin = builtIn.first(where: { $0.role == reply.role && $0.driver == reply.driver }) {
      throw EngineError(
        .conflict,
        "the \(reply.role) driver \(reply.driver) is built in; give this one another name, or replace that one with "
          + "enabled = false in [plugins.\(plugin.name)]")
    }
    let former = state.withLock { $0.description }
    if let former, former.role != reply.role || former.driver != reply.driver {
      throw EngineError(
        .conflict, "it was the \(former.role) driver \(former.driver) and is \(reply.role) driver \(reply.driver) now")
    }
    if state.withLock({ $0.isStopping }) { throw EngineError(.cancelled, "it is not wanted any more") }
    if former == nil { try register(role, reply.driver) }
    state.withLock { state in
      guard state.link === link else { return }
      state.description = reply
      state.status = .running
    }
    poke()
    log.info("the driver \(driver.name) answers for \(reply.role) \"\(reply.driver)\", version \(reply.version)")
  }

  /// Stays registered while it is down, so that requests say why they fail.
  private func register(_ role: DriverRole, _ name: String) throws(EngineError) {
    func answer<R: Request>(_ type: R.Type) throws(EngineError) {
      try bus.register(type, driver: name, owner: driver.name, measuresAll: true) {
        (request, call) async throws(EngineError) in
        try await self.ask(request, call)
      }
    }
    func stream<R: StreamRequest>(_ type: R.Type) throws(EngineError) {
      try bus.register(type, driver: name, owner: driver.name, measuresAll: true) {
        (request, call, sink) async throws(EngineError) in
        try await self.ask(request, call, sink)
      }
    }
    do throws(EngineError) {
      for type in role.requests { try answer(type) }
      for type in role.streams { try stream(type) }
    } catch {
      bus.unregister(owner: driver.name, reason: "the driver \(driver.name) is not running: \(error)")
      throw error
    }
  }
}
