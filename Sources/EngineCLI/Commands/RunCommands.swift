import Contracts
import Glibc
import LinuxSystem
import Wire

/// `run` and `create`.
enum RunCommands {
  static let all: [Command] = [
    Command(
      "run", "container run", usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
      summary: "Create and run a new container from an image", arguments: .atLeast(1), isInterspersed: false,
      flags: ContainerFlags.run, run: run),
    Command(
      "create", "container create", usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
      summary: "Create a new container", arguments: .atLeast(1), isInterspersed: false,
      flags: ContainerFlags.create, run: create),
  ]

  static func create(_ invocation: borrowing Invocation) throws -> Int32 {
    try reportingAsRun(invocation) { (invocation, file) in
      let trace = try CommandTrace.open(invocation.options, command: invocation.spelling)
      let request = try ContainerRequest(options: invocation.options, arguments: invocation.arguments)
      warn(request.warnings)
      trace?.finish("make the request")
      let reply = try withImage(invocation) {
        var client = try Engine.connect(invocation.global)
        trace?.finish("connect")
        defer {
          if let trace {
            trace.finish(ContainerCreate.name)
            trace.write(engine: (try? client.request(TraceRead(trace: trace.identifier))) ?? [])
          }
        }
        return try client.request(
          ContainerCreate(containerName: request.name, configuration: request.configuration),
          trace: trace?.identifier ?? "")
      }
      warn(reply.warnings)
      try file.write(reply.id)
      Console.line(reply.id.text)
      return 0
    }
  }

  static func run(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let isDetached = options.boolean("detach")
    guard !(isDetached && options.isSet("attach")) else {
      throw Failure("conflicting options: cannot specify both --attach and --detach", status: 125)
    }
    return try reportingAsRun(invocation) { (invocation, file) in
      let trace = try CommandTrace.open(invocation.options, command: invocation.spelling)
      let request = try ContainerRequest(options: invocation.options, arguments: invocation.arguments)
      warn(request.warnings)
      let configuration = request.configuration
      if invocation.options.boolean("plan") { return try plan(request, invocation) }
      if !isDetached {
        try OwnStreams.checkTerminal(input: configuration.attachesInput, terminal: configuration.hasTerminal)
      }
      trace?.finish("make the request")
      return try withImage(invocation) {
        let streams = try OwnStreams.make(
          input: configuration.attachesInput, output: configuration.attachesOutput,
          error: configuration.attachesError, keepsInputOpen: configuration.keepsInputOpen,
          terminal: configuration.hasTerminal && !isDetached,
          detachKeys: invocation.options.string("detach-keys") ?? DetachKeys.standard)
        let message = ContainerRun(
          containerName: request.name, configuration: configuration, isDetached: isDetached, streams: streams)
        return try watch(message, invocation, &file, trace)
      }
    }
  }

  /// Runs `body`, and again after a pull where the engine does not have the image: what is there costs no question.
  private static func withImage<Value>(_ invocation: Invocation, _ body: () throws -> Value) throws -> Value {
    let options = invocation.options
    let image = invocation.arguments[0]
    func pull() throws {
      try ImageTransfer.pull(
        image, platform: options.string("platform"), invocation.global, output: 2, isQuiet: options.boolean("quiet"))
    }
    if options.string("pull") == "always", !ContainerRequest.isImageID(image) { try pull() }
    do {
      return try body()
    } catch let error as EngineError {
      // There is none of the name, or one for another platform than the one that was asked for.
      let isMissing = error.message.hasPrefix("No such image") || error.message.hasPrefix("image with reference")
      guard error.code == .notFound, isMissing, options.string("pull") != "never",
        !ContainerRequest.isImageID(image)
      else { throw error }
      Console.error("Unable to find image '\((try? ImageReference(parsing: image).familiar) ?? image)' locally")
      try pull()
      return try body()
    }
  }

  private static func plan(_ request: ContainerRequest, _ invocation: Invocation) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    let steps = try client.request(
      ContainerPlan(containerName: request.name, configuration: request.configuration))
    for step in steps {
      let indent = String(repeating: "  ", count: step.depth)
      Console.line("\(indent)\(step.message)\(step.driver.isEmpty ? "" : "@\(step.driver)")")
      for change in step.changes { Console.line("\(indent)    + \(change)") }
    }
    return 0
  }

  private static func watch(
    _ message: ContainerRun, _ invocation: Invocation, _ file: inout ContainerIDFile, _ trace: CommandTrace?
  ) throws -> Int32 {
    let configuration = message.configuration
    var foreground = try Foreground(
      client: try Engine.connect(invocation.global),
      proxiesSignals: !message.isDetached && invocation.options.boolean("sig-proxy", default: true),
      sendsSize: configuration.hasTerminal && !message.isDetached,
      takesKeys: configuration.hasTerminal && configuration.attachesInput && !message.isDetached, trace: trace)
    var created: ObjectID?
    let status = try foreground.run(message) { body in
      switch try body.decode(ContainerRunElement.self) {
      case .created(let id, let warnings):
        created = id
        warn(warnings)
        return .created(id)
      case .started:
        if let created { try file.write(created) }
        return .started
      case .detached: return .detached
      }
    }
    if message.isDetached, let created { Console.line(created.text) }
    guard let status else { return 0 }
    if !status.reason.isEmpty { Console.error("engine: \(status.reason)") }
    return status.code
  }

  private static func warn(_ warnings: [String]) {
    for warning in warnings { Console.error("WARNING: \(warning)") }
  }

  /// Errors as `run` reports them: one line, the way to the help, and an exit code that is not the command's own.
  private static func reportingAsRun(
    _ invocation: borrowing Invocation, _ body: (Invocation, inout ContainerIDFile) throws -> Int32
  ) throws -> Int32 {
    let invocation = copy invocation
    do {
      var file = try ContainerIDFile(path: invocation.options.string("cidfile"))
      return try body(invocation, &file)
    } catch let failure as Failure {
      throw failure
    } catch {
      let error = EngineError(wrapping: error)
      throw Failure(
        "engine: \(error.fullStopped)\n\nRun 'engine \(invocation.spelling) --help' for more information",
        status: error.exitStatus)
    }
  }
}

extension EngineError {
  /// What `run`, `start` and `exec` exit with when the engine could not do it.
  var exitStatus: Int32 {
    switch code {
    case .notExecutable: 126
    case .commandNotFound: 127
    default: 125
    }
  }

  /// The description as a sentence.
  var fullStopped: String {
    let text = description
    return text.hasSuffix(".") || text.hasSuffix("?") ? text : text + "."
  }
}

/// The file of `--cidfile`: it must not exist before, and it is not left behind without a container.
struct ContainerIDFile: ~Copyable {
  private let path: String?
  private var isWritten = false

  init(path: String?) throws {
    self.path = path.flatMap { $0.isEmpty ? nil : $0 }
    guard let path = self.path else { return }
    do {
      _ = try Files.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
    } catch  where error.number == EEXIST {
      throw EngineError(
        .conflict, "container ID file found, make sure the other container isn't running or delete \(path)")
    } catch {
      throw EngineError(.invalidArgument, "failed to create the container ID file: \(error)")
    }
  }

  mutating func write(_ id: ObjectID) throws {
    guard let path else { return }
    let file = try Files.open(path, O_WRONLY)
    try Files.writeAll(file.number, Array(id.text.utf8), subject: path)
    isWritten = true
  }

  deinit {
    if let path, !isWritten { unlink(path) }
  }
}
