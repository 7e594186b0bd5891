import Contracts
import Glibc
import Wire

/// What is done with containers that are there: `stop`, `kill`, `rm`, `wait`, `start`, `exec`, `logs`.
enum ContainerCommands {
  static let all: [Command] = [
    Command(
      "start", "container start", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Start one or more stopped containers", arguments: .atLeast(1),
      flags: {
        [
          .boolean("attach", "a", "Attach STDOUT/STDERR and forward signals"),
          .string("detach-keys", nil, "Override the key sequence for detaching a container", check: DetachKeys.check),
          .boolean("interactive", "i", "Attach container's STDIN"),
          .boolean("sig-proxy", nil, "Proxy received signals to the process", initially: true), CommandTrace.flag,
        ]
      }, run: AttachedCommands.start),
    Command(
      "attach", "container attach", usage: "[OPTIONS] CONTAINER",
      summary: "Attach local standard input, output, and error streams to a running container",
      arguments: .exactly(1),
      flags: {
        [
          .string("detach-keys", nil, "Override the key sequence for detaching a container", check: DetachKeys.check),
          .boolean("no-stdin", nil, "Do not attach STDIN"),
          .boolean("sig-proxy", nil, "Proxy all received signals to the process", initially: true),
        ]
      }, run: AttachedCommands.attach),
    Command(
      "stop", "container stop", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Stop one or more running containers", arguments: .atLeast(1),
      flags: {
        [
          .string("signal", "s", "Signal to send to the container"),
          .integer("timeout", "t", "Seconds to wait before killing the container", aliases: ["time"]),
        ]
      },
      run: { invocation in
        let (timeout, signal) = (invocation.options.integer("timeout"), invocation.options.string("signal"))
        return try forEach(invocation) { ContainerStop(container: $0, timeout: timeout, signal: signal) }
      }),
    Command(
      "kill", "container kill", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Kill one or more running containers", arguments: .atLeast(1),
      flags: { [.string("signal", "s", "Signal to send to the container (default \"KILL\")")] },
      run: { invocation in
        let signal = invocation.options.string("signal").flatMap { $0.isEmpty ? nil : $0 } ?? "KILL"
        return try forEach(invocation) { ContainerKill(container: $0, signal: signal) }
      }),
    Command(
      "rm", "container rm", "container remove", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Remove one or more containers", arguments: .atLeast(1),
      flags: {
        [
          .boolean("force", "f", "Force the removal of a running container (uses SIGKILL)"),
          .boolean("volumes", "v", "Remove anonymous volumes associated with the container"),
        ]
      },
      run: { invocation in
        let (force, volumes) = (invocation.options.boolean("force"), invocation.options.boolean("volumes"))
        // What is gone already is what `-f` wants.
        return try forEach(invocation, forgiving: force ? .notFound : nil) {
          ContainerRemove(container: $0, force: force, removesVolumes: volumes)
        }
      }),
    Command(
      "wait", "container wait", usage: "CONTAINER [CONTAINER...]",
      summary: "Block until one or more containers stop, then print their exit codes", arguments: .atLeast(1),
      run: { invocation in
        try forEach(invocation, show: { String($1.code) }) { ContainerWait(container: $0) }
      }),
    Command(
      "exec", "container exec", usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
      summary: "Execute a command in a running container", arguments: .atLeast(2), isInterspersed: false,
      flags: AttachedCommands.execFlags, run: AttachedCommands.exec),
    Command(
      "logs", "container logs", usage: "[OPTIONS] CONTAINER", summary: "Fetch the logs of a container",
      arguments: .exactly(1), flags: logFlags, run: logs),
  ]

  /// Sends one request for each of the arguments, all before the first answer, so that ten containers that take ten
  /// seconds to stop take ten seconds; the answers are printed in the order of the arguments.
  static func forEach<R: Request>(
    _ invocation: borrowing Invocation, forgiving forgiven: EngineError.Code? = nil,
    show: (String, R.Reply) -> String = { name, _ in name }, _ make: (String) -> R
  ) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    var status: Int32 = 0
    var names = invocation.arguments[...]
    while !names.isEmpty {
      let group = Array(names.prefix(64))
      names = names.dropFirst(64)
      var waiting: [UInt64: Int] = [:]
      for (index, name) in group.enumerated() { waiting[try client.send(make(name))] = index }
      var answers: [Result<R.Reply, EngineError>?] = group.map { _ in nil }
      var next = 0
      while next < group.count {
        switch try client.receive() {
        case .reply(let id, let body):
          if let index = waiting[id] { answers[index] = .success(try body.decode(R.Reply.self)) }
        case .failure(let id, let error):
          if let index = waiting[id] { answers[index] = .failure(error) }
        case .element: continue
        }
        while next < group.count, let answer = answers[next] {
          switch answer {
          case .success(let reply): Console.line(show(group[next], reply))
          case .failure(let error):
            Console.error(Reports.line(error))
            if error.code != forgiven { status = 1 }
          }
          next += 1
        }
      }
    }
    return status
  }

  private static func logFlags() -> [Flag] {
    [
      .boolean("follow", "f", "Follow log output"),
      .string(
        "since", nil,
        "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"),
      .string(
        "until", nil,
        "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"),
      .string("tail", "n", "Number of lines to show from the end of the logs (default \"all\")"),
      .boolean("timestamps", "t", "Show timestamps"),
    ]
  }

  private static func logs(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    func moment(_ name: String) throws -> Timestamp? {
      try options.string(name).flatMap { $0.isEmpty ? nil : try Moment.parse($0) }
    }
    var tail: Int?
    if let text = options.string("tail"), text != "all" {
      guard let number = Int(text) else {
        throw Failure("invalid value for \"tail\": value must be \"all\" or a number: \(text)")
      }
      tail = number < 0 ? nil : number
    }
    let message = ContainerLogs(
      container: invocation.arguments[0], output: try OwnStreams.duplicate(1), error: try OwnStreams.duplicate(2),
      follow: options.boolean("follow"), tail: tail, since: try moment("since"), until: try moment("until"),
      timestamps: options.boolean("timestamps"))
    var client = try Engine.connect(invocation.global)
    let id = try client.send(message)
    while true {
      switch try client.receive() {
      case .reply(id, _): return 0
      case .failure(id, let error): throw error
      case .reply, .failure, .element: continue
      }
    }
  }
}
