import CLinux
import Contracts
import Glibc
import LinuxSystem
import Synchronization
import Wire

/// A driver's process as the engine would have it, for the kits.
public final class DriverSession: ConformanceSubject {
  /// How long answers may take, in milliseconds.
  public struct Deadlines: Sendable {
    /// Until the first answer that does not come.
    public var first: Int32
    /// From then on, and while what the kit made is removed.
    public var later: Int32

    public init(first: Int32 = 10_000, later: Int32 = 2_000) {
      self.first = first
      self.later = later
    }
  }

  /// How often a message may stay without an answer before it is no longer sent.
  private static let patience = 2

  /// One life of the process.
  private final class Life: @unchecked Sendable {
    // Unchecked: a kit asks one thing after the other.
    var client: Client
    let keeper: DriverKeeper

    init(client: consuming Client, keeper: DriverKeeper) {
      self.client = client
      self.keeper = keeper
    }

    deinit { keeper.kill() }
  }

  private struct State {
    var life: Life?
    var description: PluginDescribe.Reply?
    /// Why the process is of no more use.
    var loss: EngineError?
    /// How often each message stayed without an answer.
    var hangs: [String: Int] = [:]
    var isCleaningUp = false
  }

  private let command: [String]
  private let directory: String
  private let options: [String: String]
  private let deadlines: Deadlines
  private let interruption: OneTimeEvent?
  private let state = Mutex(State())

  /// Starts the driver.
  ///
  /// - Parameters:
  ///   - directory: where its state is kept; it is made.
  ///   - options: as in its table of the configuration.
  ///   - interruption: ends every wait for an answer.
  public init(
    _ command: [String], directory: String, options: [String: String] = [:], deadlines: Deadlines = Deadlines(),
    interruption: OneTimeEvent? = nil
  ) throws(EngineError) {
    self.command = command
    self.directory = directory
    self.options = options
    self.deadlines = deadlines
    self.interruption = interruption
    try begin()
  }

  /// What it says of itself.
  public var description: PluginDescribe.Reply? { state.withLock { $0.description } }

  /// Ends the process.
  public func end() { state.withLock { $0.life.take() }?.keeper.kill() }

  private var name: String {
    let file = command.first?.split(separator: "/").last ?? ""
    return file.split(separator: ".").first.map(String.init) ?? "driver"
  }

  private func begin() throws(EngineError) {
    let (stateDirectory, runtimeDirectory) = ("\(directory)/state", "\(directory)/runtime")
    let life: Life
    do throws(SystemCallError) {
      try Files.makeDirectories(stateDirectory)
      try Files.makeDirectories(runtimeDirectory)
      let pair = try UnixSocket.pair().release()
      let theirs = OwnedDescriptor(adopting: pair.second)
      let ours = OwnedDescriptor(adopting: pair.first)
      let nothing = try Files.open("/dev/null", O_RDWR)
      let keeper = try DriverKeeper(
        command,
        environment: [
          "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8",
          "ENGINE_DRIVER_DESCRIPTOR=3", "ENGINE_DRIVER_NAME=\(name)",
        ], descriptors: [nothing.number, 2, 2, theirs.number])
      do {
        life = Life(client: try Client(adopting: ours, agent: "conformance"), keeper: keeper)
      } catch {
        keeper.kill()
        throw SystemCallError(call: "send", subject: command[0], number: EPIPE)
      }
    } catch {
      throw EngineError(.unavailable, "it cannot be started: \(error)\(Self.remedy(error, command.first ?? ""))")
    }
    state.withLock { state in
      state.life = life
      state.loss = nil
    }
    let description: PluginDescribe.Reply = try Self.decode(
      PluginDescribe.name,
      try exchange(
        PluginDescribe(
          plugin: name, stateDirectory: stateDirectory, runtimeDirectory: runtimeDirectory, options: options)))
    state.withLock { $0.description = description }
  }

  private static func remedy(_ error: SystemCallError, _ path: String) -> String {
    switch error.number {
    case EACCES where Files.isDirectory(path): "; it is a directory"
    case EACCES: "; make it executable: chmod +x \(path)"
    case ENOEXEC: "; a script begins with a line that names its interpreter, such as #!/usr/bin/python3"
    case ENOENT where Files.exists(path): "; the interpreter that its first line names is not there"
    default: ""
    }
  }

  public func restart() async throws(EngineError) {
    end()
    try begin()
  }

  public func revive() async throws(EngineError) -> Bool {
    guard state.withLock({ $0.loss != nil || $0.life == nil }) else { return false }
    try await restart()
    return true
  }

  public var loss: EngineError? { state.withLock { $0.loss } }

  public var isInterrupted: Bool { interruption?.isRaised ?? false }

  public func beginCleanup() { state.withLock { $0.isCleaningUp = true } }

  // MARK: Messages

  public func ask<R: Request>(_ request: R) async throws(EngineError) -> R.Reply {
    try Self.decode(R.name, try exchange(request))
  }

  public func ask<R: StreamRequest>(_ request: R) async throws(EngineError) -> R.Reply {
    try Self.decode(R.name, try exchange(request))
  }

  private static func decode<Reply: Decodable>(_ message: String, _ body: Body) throws(EngineError) -> Reply {
    do throws(EngineError) {
      return try body.decode(Reply.self)
    } catch {
      throw EngineError(
        .protocolViolation, "the driver answered \"\(message)\" with what is no answer to it", because: error)
    }
  }

  public func askAndCancel<R: Request>(_ request: R) async throws(EngineError) {
    try withLife { (life) throws(EngineError) in
      let id = try life.client.send(request, driver: description?.driver ?? "")
      try life.client.cancel(id)
    }
  }

  public func askAndKill<R: Request>(_ request: R) async throws(EngineError) {
    try withLife { (life) throws(EngineError) in
      _ = try life.client.send(request, driver: description?.driver ?? "")
    }
    // So that it is somewhere in the middle, or anywhere at all: each is allowed to happen.
    usleep(2000)
    try await restart()
  }

  private func withLife<Value>(_ body: (Life) throws(EngineError) -> Value) throws(EngineError) -> Value {
    guard let life = state.withLock({ $0.life }) else {
      throw EngineError(.unavailable, "the driver is not running")
    }
    return try body(life)
  }

  private func exchange<M: Message>(_ message: M) throws(EngineError) -> Body {
    let (driver, limit, hangs) = state.withLock { state in
      (
        state.description?.driver ?? "",
        state.hangs.isEmpty && !state.isCleaningUp ? deadlines.first : deadlines.later, state.hangs[M.name] ?? 0
      )
    }
    if hangs >= Self.patience {
      throw EngineError(
        .deadlineExceeded, "\"\(M.name)\" is no longer sent: the driver left it without an answer \(hangs) times")
    }
    let result = try withLife { (life) throws(EngineError) -> Result<Body, EngineError> in
      do throws(EngineError) {
        let id = try life.client.send(message, driver: driver, deadline: Int64(limit))
        return try answer(to: id, M.name, within: limit, life)
      } catch {
        let loss = Self.fault(error, M.name, life)
        state.withLock { $0.loss = loss }
        throw loss
      }
    }
    return try result.get()
  }

  /// Why there is no answer, in words about the driver.
  private static func fault(_ error: EngineError, _ message: String, _ life: Life) -> EngineError {
    switch error.code {
    case .deadlineExceeded, .cancelled: return error
    case .unavailable:
      // The connection is at its end, and the process usually too.
      if let end = life.keeper.end(within: 1000) {
        let what = end == .exited(0) ? "ended" : "crashed"
        return EngineError(.unavailable, "the driver \(what) (\(end)) before it answered \"\(message)\"")
      } else {
        return EngineError(.unavailable, "the driver closed its connection before it answered \"\(message)\"")
      }
    default:
      return EngineError(
        .protocolViolation, "what the driver sent instead of an answer to \"\(message)\": \(error)")
    }
  }

  /// - Returns: what the driver said to the message, which may be a refusal.
  /// - Throws: what makes the process of no more use.
  private func answer(
    to id: UInt64, _ message: String, within limit: Int32, _ life: Life
  ) throws(EngineError) -> Result<Body, EngineError> {
    let end = MonotonicClock.now + Int64(limit) * 1_000_000
    let isCleaningUp = state.withLock { $0.isCleaningUp }
    while true {
      while let incoming = try life.client.receiveBuffered() {
        switch incoming {
        case .reply(id, let body): return .success(body)
        case .failure(id, let error): return .failure(error)
        // To something that was given up, or an element of a stream.
        case .reply, .failure, .element: continue
        }
      }
      var events = [
        pollfd(fd: life.client.descriptor, events: Int16(POLLIN), revents: 0),
        pollfd(fd: isCleaningUp ? -1 : interruption?.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
      ]
      let rest = (end - MonotonicClock.now + 999_999) / 1_000_000
      if rest <= 0 || poll(&events, 2, Int32(rest)) == 0 {
        state.withLock { $0.hangs[message, default: 0] += 1 }
        throw EngineError(
          .deadlineExceeded,
          "the driver hangs: no answer to \"\(message)\" within \(Duration.milliseconds(Int64(limit)))")
      }
      if events[1].revents != 0 { throw EngineError(.cancelled, "interrupted while the driver had \"\(message)\"") }
      if events[0].revents != 0 { try life.client.receiveAvailable() }
    }
  }
}
