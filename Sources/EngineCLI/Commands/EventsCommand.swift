import Contracts
import Glibc
import Wire

/// `events`: what happens in the engine, as it happens.
enum EventsCommand {
  static let all: [Command] = [
    Command(
      "events", "system events", usage: "[OPTIONS]", summary: "Get real time events from the server",
      arguments: .exactly(0),
      flags: {
        [
          ListCommands.filterFlag("Filter output based on conditions provided"),
          .string("format", nil, "Format output using a custom template, or \"json\""),
          .string("since", nil, "Show all events created since timestamp"),
          .string("until", nil, "Stream events until this timestamp"),
        ]
      }, run: run)
  ]

  private static func run(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let format = try OutputFormat(options.string("format"))
    let filter = try EventFilter(options.list("filter"))
    func moment(_ name: String) throws -> Timestamp? {
      try options.string(name).flatMap { $0.isEmpty ? nil : try Moment.parse($0) }
    }
    var client = try Engine.connect(invocation.global)
    let id = try client.send(EventWatch(since: try moment("since"), until: try moment("until")))
    while true {
      switch try client.receive() {
      case .reply(id, _): return 0
      case .failure(id, let error): throw error
      case .element(id, let body):
        let event = try body.decode(EngineEvent.self)
        guard filter.takes(event) else { continue }
        switch format {
        case .json: Console.line(JSONText.write(EventText.value(event), indent: nil))
        case .template(let template), .tableTemplate(let template):
          Console.line(try template.render(EventText.value(event), strictness: .keys(maps: ["Attributes"])))
        case .table: Console.line(EventText.line(event))
        }
      case .reply, .failure, .element: continue
      }
    }
  }
}

/// `--filter` of `events`: values of one key are alternatives, different keys must all fit.
struct EventFilter {
  private var values: [String: [String]] = [:]

  init(_ texts: [String]) throws(EngineError) {
    for text in texts {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard ["type", "event", "container", "network", "volume", "image", "label"].contains(pair[0]) else {
        throw EngineError(.invalidArgument, "invalid filter '\(pair[0])'")
      }
      values[pair[0], default: []].append(pair.count == 2 ? pair[1] : "")
    }
  }

  func takes(_ event: EngineEvent) -> Bool {
    values.allSatisfy { key, wanted in
      switch key {
      case "type": wanted.contains(event.kind.rawValue)
      // `exec_start: sh` is an `exec_start`.
      case "event": wanted.contains { $0 == event.action || event.action.hasPrefix("\($0):") }
      case "label": ContainerFilter.has(event.attributes, wanted)
      case "image": wanted.contains { event.attributes["image"] == $0 }
      default:
        event.kind.rawValue == key
          && wanted.contains { !$0.isEmpty && (event.object.hasPrefix($0) || event.attributes["name"] == $0) }
      }
    }
  }
}

enum EventText {
  /// `2024-01-02T15:04:05.000000000+00:00 container start ID (image=x, name=y)`.
  static func line(_ event: EngineEvent) -> String {
    let attributes = event.attributes.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    return "\(HumanText.logTime(event.time)) \(event.kind.rawValue) \(event.action) \(event.object) "
      + "(\(attributes.joined(separator: ", ")))"
  }

  /// Docker's keys (Engine API 1.50, EventMessage), with the older ones of containers.
  static func value(_ event: EngineEvent) -> JSONValue {
    var members: [JSONValue.Member] = []
    if event.kind == .container {
      members += [
        .init("status", .string(event.action)), .init("id", .string(event.object)),
        .init("from", .string(event.attributes["image"] ?? "")),
      ]
    }
    members += [
      .init("Type", .string(event.kind.rawValue)), .init("Action", .string(event.action)),
      .init("Actor", ["ID": .string(event.object), "Attributes": .sorted(event.attributes)]),
      .init("scope", "local"), .init("time", .integer(event.time.nanoseconds / 1_000_000_000)),
      .init("timeNano", .integer(event.time.nanoseconds)),
    ]
    return .object(members)
  }
}
