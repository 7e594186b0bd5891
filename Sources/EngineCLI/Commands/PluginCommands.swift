import Contracts
import Wire

/// `plugin ls`, `plugin inspect`, `plugin verify`.
enum PluginCommands {
  static let all: [Command] = [
    Command(
      "plugin ls", "plugin list", usage: "[OPTIONS]", summary: "List plugins", arguments: .exactly(0),
      flags: {
        [
          .string("format", nil, ListCommands.formatHelp), .boolean("no-trunc", nil, "Don't truncate output"),
          .boolean("quiet", "q", "Only display plugin names"),
        ]
      }, run: list),
    Command(
      "plugin inspect", usage: "[OPTIONS] PLUGIN [PLUGIN...]",
      summary: "Display state, configuration and message counts of plugins", arguments: .atLeast(1),
      flags: { [InspectCommands.formatFlag] }, run: inspect),
    Command(
      "plugin verify", usage: "[OPTIONS] PATH", summary: "Examine a driver with the conformance kit of its role",
      arguments: .exactly(1),
      flags: {
        [
          .list("option", "o", "Option of the driver, as in its table of the configuration", type: "map"),
          .list(
            "create-option", nil, "Option that goes with each volume, network or log that the kit makes", type: "map"),
        ]
      },
      run: { invocation in
        var words = ["--verify", invocation.arguments[0]]
        for option in invocation.options.list("option") { words += ["--option", option] }
        for option in invocation.options.list("create-option") { words += ["--create-option", option] }
        return try ConfigCommands.become(words)
      }),
  ]

  private static func list(_ invocation: borrowing Invocation) throws -> Int32 {
    let format = try OutputFormat(invocation.options.string("format"))
    var client = try Engine.connect(invocation.global)
    let plugins = try client.request(PluginList())
    if invocation.options.boolean("quiet"), case .table = format {
      Console.out(plugins.map { $0.name + "\n" }.joined())
      return 0
    }
    let listing = Listing(
      rowType: "pluginContext", columns: ["Name", "Role", "Driver", "Version", "Restarts", "State"],
      fields: [
        .init("Name", "NAME"), .init("Role", "ROLE"), .init("Driver", "DRIVER"), .init("Version", "VERSION"),
        .init("Restarts", "RESTARTS"), .init("Capabilities", "CAPABILITIES"), .init("Command", "COMMAND"),
        .init("State", "STATE"),
      ], rows: plugins.map(SystemCommands.pluginRow))
    Console.out(try listing.text(format))
    return 0
  }

  private static func inspect(_ invocation: borrowing Invocation) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    var values: [JSONValue] = []
    var failures: [String] = []
    for name in invocation.arguments {
      do {
        values.append(value(try client.request(PluginInspect(plugin: name))))
      } catch {
        failures.append(Reports.line(error))
      }
    }
    if let format = invocation.options.string("format"), !format.isEmpty, format != "json" {
      for value in values { try SystemCommands.show(value, format) }
    } else {
      Console.line(JSONText.write(.array(values), indent: "    "))
    }
    for failure in failures { Console.error(failure) }
    return failures.isEmpty ? 0 : 1
  }

  private static func value(_ reply: PluginInspect.Reply) -> JSONValue {
    let status = reply.status
    let (state, reason) =
      switch status.state {
      case .waiting: ("waiting", "")
      case .running: ("running", status.note ?? "")
      case .skipped(let reason): ("skipped", reason)
      case .failed(let reason): ("failed", reason)
      case .stopped: ("stopped", "")
      }
    return [
      "Name": .string(status.name), "Role": .string(status.role), "Driver": .string(status.driver),
      "Version": .string(status.version), "State": .string(state), "Reason": .string(reason),
      "Capabilities": .strings(status.capabilities), "Command": .strings(status.command),
      "Pid": .int(Int(status.pid)), "Restarts": .int(status.restarts),
      "Dependencies": .strings(reply.dependencies), "Configuration": .sorted(reply.configuration),
      "Messages": .array(
        reply.messages.map { message in
          let mean = message.measured > 0 ? message.totalNanoseconds / message.measured : 0
          return [
            "Message": .string(message.message), "Driver": .string(message.driver), "Count": .integer(message.count),
            "Failures": .integer(message.failures), "Measured": .integer(message.measured),
            "MeanMicroseconds": .number(Double(mean / 10) / 100),
            "MaximumMicroseconds": .number(Double(message.maximumNanoseconds / 10) / 100),
          ]
        }),
    ]
  }
}
