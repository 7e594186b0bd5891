import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// A client that stands by while a container or an exec runs: passes on signals and the terminal's size, and reports how
/// it ended. The bytes of the standard streams do not come by here; the container has the client's own descriptors.
struct Foreground: ~Copyable {
  /// What the stream of elements told.
  enum Told {
    case created(ObjectID)
    case started
    case detached
  }

  private var client: Client
  private let signals: SignalSource
  private let sendsSize: Bool
  /// Whether what runs shall draw its screen anew: it does so when the size changes.
  private let redraws: Bool
  /// Whether the user's keys go to the container: then the terminal is raw from the first thing the engine tells until
  /// the end, so that what this client says before is shown as usual and Ctrl-C still works.
  private let takesKeys: Bool
  private var terminal: RawTerminal?
  /// Whom signals go to: known once the engine says that it is created, and possible once it is started.
  private var container: String?
  private var exec: ObjectID?
  private var isStarted = false
  private var waiting: [Int32] = []
  private var impatience = 0
  /// The request that tells the terminal's size. One at a time, because requests may overtake each other; what has
  /// changed meanwhile is told when it is answered.
  private var sizing: UInt64?
  private var isSizeStale = false
  private let trace: CommandTrace?

  init(
    client: consuming Client, proxiesSignals: Bool, sendsSize: Bool, takesKeys: Bool, redraws: Bool = false,
    container: String? = nil, trace: CommandTrace? = nil
  ) throws {
    self.trace = trace
    trace?.finish("connect")
    self.client = client
    self.sendsSize = sendsSize
    self.redraws = redraws
    self.takesKeys = takesKeys
    self.container = container
    signals = try SignalSource(proxied: proxiesSignals)
  }

  /// Sends the request and stays until its reply.
  ///
  /// - Parameter tell: reads an element and says what it means here.
  /// - Throws: the engine's error; `Failure` with 128 and the signal's number when the user gave up before there was
  ///   anything to send a signal to.
  mutating func run<R: StreamRequest>(
    _ request: R, isExec: Bool = false, tell: (Body) throws -> Told
  ) throws -> ExitStatus? where R.Reply == ExitStatus? {
    defer {
      terminal = nil
      if let trace {
        trace.finish(R.name)
        trace.write(engine: (try? client.request(TraceRead(trace: trace.identifier))) ?? [])
      }
    }
    let id = try client.send(request, trace: trace?.identifier ?? "")
    while true {
      while let message = try client.receiveBuffered() {
        switch message {
        case .reply(id, let body): return try body.decode(ExitStatus?.self)
        case .failure(id, let error): throw error
        case .element(id, let body):
          let told = try tell(body)
          // First, because what is drawn when the size is told may be answered at once.
          if takesKeys && terminal == nil { terminal = RawTerminal(0) }
          try take(told, isExec: isExec)
        // Answers to signals and sizes: one that came too late says so, and that is all right.
        case .reply(let other, _), .failure(let other, _):
          if other == sizing { try sized() }
        case .element: continue
        }
      }
      try waitForMore()
    }
  }

  private mutating func take(_ told: Told, isExec: Bool) throws {
    switch told {
    case .created(let id):
      if isExec { exec = id } else { container = id.text }
    case .started:
      isStarted = true
      if sendsSize && redraws { try resize(by: 1) }
      if sendsSize { try resize() }
      let signals = waiting
      waiting = []
      for signal in signals { try forward(signal) }
    case .detached:
      Console.error("read escape sequence")
    }
  }

  private mutating func waitForMore() throws {
    var events = [
      pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: signals.descriptor, events: Int16(POLLIN), revents: 0),
    ]
    try SystemCallError.check("poll") { poll(&events, 2, -1) }
    // What the engine said first: whoever sends a signal may have seen the container, of which it tells before.
    if events[0].revents != 0 { return try client.receiveAvailable() }
    while let signal = signals.next() { try handle(signal) }
  }

  private mutating func handle(_ signal: Int32) throws {
    if signal == SIGWINCH {
      if isStarted && sendsSize { try resize() }
      return
    }
    if signal == SIGINT || signal == SIGTERM {
      impatience += 1
      if impatience >= 3 && !isStarted { throw Failure("", status: 128 + signal) }
      if container == nil { throw Failure("", status: 128 + signal) }
    }
    if isStarted { try forward(signal) } else { waiting.append(signal) }
  }

  private mutating func forward(_ signal: Int32) throws {
    guard let container else { return }
    if let exec {
      _ = try client.send(ContainerExecSignal(container: container, exec: exec, signal: signal))
    } else {
      _ = try client.send(ContainerKill(container: container, signal: String(signal)))
    }
  }

  private mutating func resize(by more: UInt16 = 0) throws {
    guard let container, let size = RawTerminal.size else { return }
    guard sizing == nil else {
      isSizeStale = true
      return
    }
    sizing = try client.send(
      ContainerResize(container: container, exec: exec, rows: size.rows &+ more, columns: size.columns &+ more))
  }

  private mutating func sized() throws {
    sizing = nil
    guard isSizeStale else { return }
    isSizeStale = false
    try resize()
  }
}

/// The client's own descriptors, as they travel to the container.
enum OwnStreams {
  static func make(
    input: Bool, output: Bool, error: Bool, keepsInputOpen: Bool, terminal: Bool, detachKeys: String
  ) throws -> StandardStreams {
    let size = terminal ? RawTerminal.size : nil
    return StandardStreams(
      input: input ? try duplicate(0) : nil, output: output ? try duplicate(1) : nil,
      error: error ? try duplicate(2) : nil, keepsInputOpen: keepsInputOpen,
      detachKeys: terminal ? detachKeys : "", rows: size?.rows ?? 0, columns: size?.columns ?? 0)
  }

  static func duplicate(_ number: Int32) throws -> Descriptor {
    let copy = linux_fcntl(number, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 || errno != EBADF else {
      return Descriptor(adopting: try Files.open("/dev/null", O_RDWR).release())
    }
    return Descriptor(adopting: try SystemCallError.check("fcntl(F_DUPFD_CLOEXEC)") { copy })
  }

  /// `-i -t` means that a person types; without a terminal nobody does.
  static func checkTerminal(input: Bool, terminal: Bool) throws {
    if input && terminal && isatty(0) == 0 { throw Failure("the input device is not a TTY") }
  }
}
