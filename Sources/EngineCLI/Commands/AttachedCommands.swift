import Contracts
import Glibc
import Wire

/// `start`, `attach` and `exec`: the commands beside `run` that may stand in the foreground.
enum AttachedCommands {
  static func start(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    guard options.boolean("attach") || options.boolean("interactive") else { return try startAll(invocation) }
    guard invocation.arguments.count == 1 else {
      throw Failure("you cannot start and attach multiple containers at once")
    }
    let trace = try CommandTrace.open(options, command: invocation.spelling)
    let name = invocation.arguments[0]
    var client = try Engine.connect(invocation.global)
    let record = try client.request(ContainerInspect(container: name))
    let takesInput = options.boolean("interactive") && record.configuration.keepsInputOpen
    return try stay(with: record, client, takesInput: takesInput, trace: trace, options) { streams in
      ContainerStart(container: record.id.text, isAttached: true, streams: streams)
    }
  }

  static func attach(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    var client = try Engine.connect(invocation.global)
    let record = try client.request(ContainerInspect(container: invocation.arguments[0]))
    switch record.state.status {
    case .running: break
    case .paused: throw Failure("You cannot attach to a paused container, unpause it first")
    case .restarting: throw Failure("You cannot attach to a restarting container, wait until it is running")
    case .created, .exited, .removing, .dead:
      throw Failure("You cannot attach to a stopped container, start it first")
    }
    let takesInput = !options.boolean("no-stdin") && record.configuration.keepsInputOpen
    return try stay(with: record, client, takesInput: takesInput, redraws: true, options) { streams in
      ContainerAttach(container: record.id.text, streams: streams)
    }
  }

  /// Sends the request that `make` gives for this client's own streams, and stays until the container ends.
  ///
  /// - Parameter redraws: the terminal has been somebody else's, so that what is on it has to be drawn anew.
  private static func stay<R: StreamRequest>(
    with record: ContainerRecord, _ client: consuming Client, takesInput: Bool, redraws: Bool = false,
    trace: CommandTrace? = nil, _ options: Options, _ make: (StandardStreams) -> R
  ) throws -> Int32 where R.Reply == ExitStatus? {
    let configuration = record.configuration
    try OwnStreams.checkTerminal(input: takesInput, terminal: configuration.hasTerminal)
    let streams = try OwnStreams.make(
      input: takesInput, output: true, error: true, keepsInputOpen: configuration.keepsInputOpen,
      terminal: configuration.hasTerminal,
      detachKeys: options.string("detach-keys") ?? DetachKeys.standard)
    var foreground = try Foreground(
      client: client, proxiesSignals: options.boolean("sig-proxy", default: true),
      sendsSize: configuration.hasTerminal, takesKeys: takesInput && configuration.hasTerminal,
      redraws: redraws, container: record.id.text, trace: trace)
    let status: ExitStatus?
    do {
      status = try foreground.run(make(streams), tell: ContainerRunElement.tell)
    } catch let error as EngineError {
      throw Failure(Reports.line(error), status: error.exitStatus == 125 ? 1 : error.exitStatus)
    }
    guard let status else { return 0 }
    if !status.reason.isEmpty { Console.error("engine: \(status.reason)") }
    return status.code
  }

  private static func startAll(_ invocation: borrowing Invocation) throws -> Int32 {
    let trace = try CommandTrace.open(invocation.options, command: invocation.spelling)
    var client = try Engine.connect(invocation.global)
    trace?.finish("connect")
    defer {
      if let trace { trace.write(engine: (try? client.request(TraceRead(trace: trace.identifier))) ?? []) }
    }
    var failed: [String] = []
    for name in invocation.arguments {
      defer { trace?.finish("\(ContainerStart.name) \(name)") }
      let id = try client.send(
        ContainerStart(container: name, isAttached: false, streams: StandardStreams()),
        trace: trace?.identifier ?? "")
      waiting: while true {
        switch try client.receive() {
        case .reply(id, _):
          Console.line(name)
          break waiting
        case .failure(id, let error):
          Console.error(Reports.line(error))
          failed.append(name)
          break waiting
        case .element, .reply, .failure: continue
        }
      }
    }
    guard failed.isEmpty else {
      throw Failure("Error: failed to start containers: \(failed.joined(separator: ", "))")
    }
    return 0
  }

  static func execFlags() -> [Flag] {
    [
      .boolean("detach", "d", "Detached mode: run command in the background"),
      .string("detach-keys", nil, "Override the key sequence for detaching a container", check: DetachKeys.check),
      .list("env", "e", "Set environment variables", check: KeyValues.checkEnvironment),
      .list("env-file", nil, "Read in a file of environment variables"),
      .boolean("interactive", "i", "Keep STDIN open even if not attached"),
      .boolean("privileged", nil, "Give extended privileges to the command"),
      CommandTrace.flag, .boolean("tty", "t", "Allocate a pseudo-TTY"),
      .string("user", "u", "Username or UID (format: \"<name|uid>[:<group|gid>]\")"),
      .string("workdir", "w", "Working directory inside the container"),
    ]
  }

  static func exec(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let trace = try CommandTrace.open(options, command: invocation.spelling)
    let isDetached = options.boolean("detach")
    let hasTerminal = options.boolean("tty")
    let takesInput = options.boolean("interactive") && !isDetached
    try OwnStreams.checkTerminal(input: takesInput, terminal: hasTerminal)
    let own: (String) -> String? = Environment.value
    var environment: [String] = []
    for path in options.list("env-file") {
      environment += try KeyValues.parseFile(try HostFile.read(path), path: path, environment: own)
    }
    environment += KeyValues.resolve(options.list("env"), from: own)
    let streams = try OwnStreams.make(
      input: takesInput, output: !isDetached, error: !isDetached, keepsInputOpen: takesInput, terminal: hasTerminal,
      detachKeys: options.string("detach-keys") ?? DetachKeys.standard)
    let container = invocation.arguments[0]
    let message = ContainerExec(
      container: container, command: Array(invocation.arguments.dropFirst()), environment: environment,
      workingDirectory: options.string("workdir") ?? "", user: options.string("user") ?? "",
      hasTerminal: hasTerminal, isPrivileged: options.boolean("privileged"), isDetached: isDetached, streams: streams)
    trace?.finish("make the request")
    var foreground = try Foreground(
      client: try Engine.connect(invocation.global), proxiesSignals: !isDetached,
      sendsSize: hasTerminal && !isDetached, takesKeys: takesInput && hasTerminal, container: container, trace: trace)
    let status: ExitStatus?
    do {
      status = try foreground.run(message, isExec: true) { body in
        switch try body.decode(ContainerExec.Element.self) {
        case .created(let id): .created(id)
        case .started: .started
        case .detached: .detached
        }
      }
    } catch let error as EngineError {
      throw Failure(Reports.line(error), status: error.exitStatus == 125 ? 1 : error.exitStatus)
    }
    return status?.code ?? 0
  }
}

extension ContainerRunElement {
  /// What it means to a client in the foreground.
  static func tell(_ body: Body) throws -> Foreground.Told {
    switch try body.decode(ContainerRunElement.self) {
    case .created(let id, _): .created(id)
    case .started: .started
    case .detached: .detached
    }
  }
}
