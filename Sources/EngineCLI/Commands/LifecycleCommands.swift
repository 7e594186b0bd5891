import Contracts
import Glibc
import Wire

/// What is changed of containers and looked at while they are there: `restart`, `pause`, `unpause`, `rename`, `port`,
/// `top`.
enum LifecycleCommands {
  static let all: [Command] = [
    Command(
      "restart", "container restart", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Restart one or more containers", arguments: .atLeast(1),
      flags: {
        [
          .string("signal", "s", "Signal to send to the container"),
          .integer("timeout", "t", "Seconds to wait before killing the container", aliases: ["time"]),
        ]
      },
      run: { invocation in
        let (timeout, signal) = (invocation.options.integer("timeout"), invocation.options.string("signal"))
        return try ContainerCommands.forEach(invocation) {
          ContainerRestart(container: $0, timeout: timeout, signal: signal)
        }
      }),
    Command(
      "pause", "container pause", usage: "CONTAINER [CONTAINER...]",
      summary: "Pause all processes within one or more containers", arguments: .atLeast(1),
      run: { invocation in try ContainerCommands.forEach(invocation) { ContainerPause(container: $0) } }),
    Command(
      "unpause", "container unpause", usage: "CONTAINER [CONTAINER...]",
      summary: "Unpause all processes within one or more containers", arguments: .atLeast(1),
      run: { invocation in try ContainerCommands.forEach(invocation) { ContainerUnpause(container: $0) } }),
    Command(
      "rename", "container rename", usage: "CONTAINER NEW_NAME", summary: "Rename a container",
      arguments: .exactly(2), run: rename),
    Command(
      "port", "container port", usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
      summary: "List port mappings or a specific mapping for the container", arguments: 1...2, run: port),
    Command(
      "top", "container top", usage: "CONTAINER [ps OPTIONS]", summary: "Display the running processes of a container",
      arguments: .atLeast(1), isInterspersed: false, run: top),
    Command(
      "update", "container update", usage: "[OPTIONS] CONTAINER [CONTAINER...]",
      summary: "Update configuration of one or more containers", arguments: .atLeast(1),
      flags: ContainerFlags.update, run: update),
    Command(
      "diff", "container diff", usage: "CONTAINER",
      summary: "Inspect changes to files or directories on a container's filesystem", arguments: .exactly(1),
      run: { invocation in
        var client = try Engine.connect(invocation.global)
        let found = try client.request(ContainerDifferences(container: invocation.arguments[0]))
        Console.out(found.map { "\($0.kind.rawValue) \($0.path)\n" }.joined())
        return 0
      }),
  ]

  private static func update(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    guard ContainerFlags.update().contains(where: { options.isSet($0.name) }) else {
      throw Failure("you must provide one or more flags when using this command")
    }
    let request = try ContainerRequest(updating: options)
    let limits = request.configuration.limits
    let restart = try options.string("restart").map { (text) throws(EngineError) in try RestartPolicy.parse(text) }
    return try ContainerCommands.forEach(invocation) { name in
      ContainerUpdate(container: name, limits: limits, restart: restart)
    }
  }

  private static func rename(_ invocation: borrowing Invocation) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    let (old, new) = (invocation.arguments[0], invocation.arguments[1])
    guard new.contains(where: { !$0.isWhitespace }) else {
      throw Failure("Error: Neither old nor new names may be empty")
    }
    _ = try client.request(ContainerRename(container: old, newName: new))
    return 0
  }

  private static func port(_ invocation: borrowing Invocation) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    let name = invocation.arguments[0]
    let record = try client.request(ContainerInspect(container: name))
    let ports = record.state.status.hasProcesses ? record.publishedPorts : []
    func host(_ port: PortBinding) -> String {
      let address = port.hostAddress.isEmpty ? "0.0.0.0" : port.hostAddress
      return "\(address.contains(":") ? "[\(address)]" : address):\(port.hostPort)"
    }
    guard invocation.arguments.count == 2 else {
      let lines = ports.map { (($0.containerPort, $0.transport.rawValue), host($0)) }
        .sorted { ($0.0.0, $0.0.1, $0.1) < ($1.0.0, $1.0.1, $1.1) }
      Console.out(lines.map { "\($0.0.0)/\($0.0.1) -> \($0.1)\n" }.joined())
      return 0
    }
    let parts = invocation.arguments[1].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let transport = parts.count == 2 ? parts[1].lowercased() : "tcp"
    guard let number = UInt16(parts[0]), number > 0, ["tcp", "udp", "sctp"].contains(transport) else {
      throw Failure("Error: invalid port: \(invocation.arguments[1])")
    }
    let found = ports.filter { $0.containerPort == number && $0.transport.rawValue == transport }.map(host).sorted()
    guard !found.isEmpty else { throw Failure("Error: No public port '\(number)/\(transport)' published for \(name)") }
    Console.out(found.map { $0 + "\n" }.joined())
    return 0
  }

  private static func top(_ invocation: borrowing Invocation) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    let reply = try client.request(
      ContainerTop(container: invocation.arguments[0], arguments: Array(invocation.arguments.dropFirst())))
    Console.out(Table.text([reply.titles] + reply.processes, minimum: 20, padding: 1))
    return 0
  }
}
