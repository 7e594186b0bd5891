import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import ShimProtocol
import Synchronization

/// The engine's end of one shim.
final class ShimLink: Sendable {
  /// What answers a request, with the descriptors beside it.
  struct Answer: Sendable {
    var body: FromShim
    var descriptors: [Descriptor]
  }
  typealias Outcome = Result<Answer, EngineError>

  /// An exec that somebody waits for.
  struct Exec: Sendable {
    var pidfd: Descriptor?
    let ended = Once<Result<ExitStatus, EngineError>>()
    let detached: @Sendable () -> Void
  }

  private struct State: Sendable {
    var next: UInt32 = 1
    var waiting: [UInt32: Once<Outcome>] = [:]
    var execs: [String: Exec] = [:]
    var pidfd: Descriptor?
    var pid: Int32 = 0
    var isTold = false
    var hasManyPorts = false
    var isConnected = true
  }

  let container: ObjectID
  let directory: ContainerDirectory
  let socket: Descriptor
  /// When posix_spawn(3) returned, nanoseconds of CLOCK_MONOTONIC; 0 for a shim that was there already.
  private let spawned: Int64
  /// When the container got its shim.
  private let taken = MonotonicClock.now
  /// Started by an engine before this one.
  let isAdopted: Bool
  /// A child of this engine, unless another engine started it; nil until that is known.
  private let shimProcess: Mutex<ShimProcess?>
  private let state = Mutex(State())

  init(
    container: ObjectID, directory: ContainerDirectory, socket: Descriptor, process: ShimProcess?, spawned: Int64 = 0,
    isAdopted: Bool = false
  ) {
    self.spawned = spawned
    self.container = container
    self.directory = directory
    self.socket = socket
    self.isAdopted = isAdopted
    shimProcess = Mutex(process)
  }

  func setShim(_ pid: Int32) { shimProcess.withLock { $0 = ShimProcess(pid) } }

  /// The steps of a start as the bus has them: before the shim's own comes its loading.
  func measured(_ steps: [StepPlan]) -> [TimedStep] {
    var result = steps.map { step in
      var step = TimedStep(step)
      // One that stood by has waited for longer than anybody waited for it.
      step.begin = max(step.begin, min(taken, step.end))
      return step
    }
    if spawned > 0, let first = steps.first, first.begin > spawned {
      result.insert(TimedStep("load", .shim, begin: spawned, end: first.begin), at: 0)
    }
    return result
  }

  var process: ShimProcess? { shimProcess.withLock { $0 } }
  var shimPID: Int32 { process?.pid ?? 0 }
  var shim: Descriptor? { process?.pidfd }

  /// Waits until the shim has ended, at most so many milliseconds; true at once where it is not known.
  func awaitEnd(milliseconds: Int32) -> Bool {
    guard let shim else { return true }
    var waiting = pollfd(fd: shim.number, events: Int16(POLLIN), revents: 0)
    return poll(&waiting, 1, milliseconds) == 1
  }

  var pid: Int32 { state.withLock { $0.pid } }
  var isConnected: Bool { state.withLock { $0.isConnected } }

  func runs(pid: Int32, pidfd: Descriptor?) {
    state.withLock { state in
      state.pid = pid
      state.pidfd = pidfd
    }
  }

  // MARK: Asking

  /// Sends without waiting.
  func send(_ body: ToShim, number: UInt32 = 0, descriptors: [Descriptor] = []) throws(EngineError) {
    do {
      try Channel.send(
        Frame(number: number, body: body), descriptors: descriptors.map(\.number), to: socket.number)
    } catch {
      throw EngineError(.internalFailure, "the container's shim cannot be reached: \(error)")
    }
  }

  /// Asks on the calling thread, before the watcher has the socket.
  func askDirectly(_ body: ToShim, descriptors: [Descriptor] = []) throws(EngineError) -> Answer {
    try send(body, number: Self.directly, descriptors: descriptors)
    return try awaitAnswer()
  }

  /// The shim keeps so many ports that they are not free when it tells of the container's end.
  func holdsManyPorts() { state.withLock { $0.hasManyPorts = true } }

  /// Waits on the calling thread, when the watcher has let go of the socket, until a container that is over has no port.
  ///
  /// - Returns: false for a shim that did not say so, and was killed.
  func settle() -> Bool {
    guard state.withLock({ $0.hasManyPorts }) else { return true }
    if (try? send(.settle, number: Self.directly)) != nil {
      var waiting = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
      if poll(&waiting, 1, 5000) == 1, (try? awaitAnswer()) != nil { return true }
    }
    process?.kill()
    _ = awaitEnd(milliseconds: 1000)
    return false
  }

  /// The number of the question that is asked while the watcher has not got the socket.
  static let directly: UInt32 = 1

  /// Waits on the calling thread for the answer to what was sent with the number `directly`.
  func awaitAnswer() throws(EngineError) -> Answer {
    while true {
      let received: Channel.Received?
      do {
        received = try Channel.receive(from: socket.number)
      } catch {
        throw EngineError(.internalFailure, "the container's shim cannot be reached: \(error)")
      }
      guard let received else { throw EngineError(.internalFailure, "the container's shim ended while it was asked") }
      let descriptors = received.descriptors.map { Descriptor(adopting: $0) }
      let frame: Frame<FromShim>
      do { frame = try Frame<FromShim>(decoding: received.bytes) } catch { throw Self.misunderstood(error) }
      if frame.number == Self.directly || frame.number == 0, case .failed(let kind, let text) = frame.body {
        throw Self.error(kind, text)
      }
      if frame.number == Self.directly { return Answer(body: frame.body, descriptors: descriptors) }
    }
  }

  /// Asks through the watcher.
  func ask(_ body: ToShim, descriptors: [Descriptor] = []) async throws(EngineError) -> Answer {
    let once = Once<Outcome>()
    let number = state.withLock { state -> UInt32? in
      guard state.isConnected else { return nil }
      state.next += 1
      state.waiting[state.next] = once
      return state.next
    }
    guard let number else { throw EngineError(.conflict, "the container \(container.short) is not running") }
    do {
      try send(body, number: number, descriptors: descriptors)
    } catch {
      _ = state.withLock { $0.waiting.removeValue(forKey: number) }
      throw error
    }
    return try await once.value.get()
  }

  /// pidfd_send_signal(2) to the container or to an exec.
  func signal(_ number: Int32, exec: ObjectID?) throws(EngineError) {
    let target = state.withLock { state in
      if let exec { return state.execs[exec.text]?.pidfd }
      return state.pidfd
    }
    guard let target else {
      throw EngineError(.conflict, "the \(exec == nil ? "container \(container.short)" : "exec") is not running")
    }
    if pidfd_send_signal(target.number, number, nil, 0) != 0 {
      let reason = errno
      if reason == ESRCH { throw EngineError(.conflict, "the container \(container.short) is not running") }
      let code: EngineError.Code = reason == EINVAL ? .invalidArgument : .permissionDenied
      throw EngineError(code, "signal \(number) cannot be sent: \(SystemCallError.text(reason))")
    }
  }

  // MARK: Execs

  func add(_ exec: Exec, named name: String) { state.withLock { $0.execs[name] = exec } }

  func setPIDFD(_ pidfd: Descriptor?, exec name: String) { state.withLock { $0.execs[name]?.pidfd = pidfd } }

  @discardableResult
  func removeExec(_ name: String) -> Exec? { state.withLock { $0.execs.removeValue(forKey: name) } }

  func exec(_ name: String) -> Exec? { state.withLock { $0.execs[name] } }

  // MARK: Hearing

  /// Gives an answer to who waits for it.
  func resolve(_ frame: Frame<FromShim>, _ descriptors: [Descriptor]) {
    let once = state.withLock { $0.waiting.removeValue(forKey: frame.number) }
    if case .failed(let kind, let text) = frame.body {
      once?.resolve(.failure(Self.error(kind, text)))
    } else {
      once?.resolve(.success(Answer(body: frame.body, descriptors: descriptors)))
    }
  }

  /// True the first time: an exit is told once.
  func claimsExit() -> Bool {
    state.withLock { state in
      defer { state.isTold = true }
      return !state.isTold
    }
  }

  /// The connection is at its end: whoever waits is told.
  func disconnected() {
    let (waiting, execs) = state.withLock { state in
      state.isConnected = false
      let all = (Array(state.waiting.values), Array(state.execs.values))
      state.waiting = [:]
      state.execs = [:]
      return all
    }
    let error = EngineError(.conflict, "the container \(container.short) is not running")
    for once in waiting { once.resolve(.failure(error)) }
    for exec in execs {
      exec.ended.resolve(.success(ExitStatus(code: 137, finished: .now, reason: "the container ended")))
    }
  }

  /// A shim that was killed took the container along (PR_SET_PDEATHSIG), but for a first process that had executed a
  /// set-user-ID file.
  func killContainer() {
    let pidfd = state.withLock { $0.pidfd }
    if let pidfd { _ = pidfd_send_signal(pidfd.number, SIGKILL, nil, 0) }
  }

  static func error(_ kind: FailureKind, _ text: String) -> EngineError {
    switch kind {
    case .internalFailure: EngineError(.internalFailure, text)
    case .commandNotFound: EngineError(.commandNotFound, text)
    case .notExecutable: EngineError(.notExecutable, text)
    case .invalidArgument: EngineError(.invalidArgument, text)
    }
  }

  static func misunderstood(_ error: ProtocolError) -> EngineError {
    EngineError(.protocolViolation, "the engine does not understand the container's shim: \(error)")
  }
}

extension TimedStep {
  /// As the bus has it.
  init(_ step: StepPlan) {
    self.init(step.name, step.isInProcess ? .process : .shim, begin: step.begin, end: step.end)
  }
}
