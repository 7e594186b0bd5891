import Contracts
import Wire

/// `bus tap`.
enum BusCommands {
  static let all: [Command] = [
    Command(
      "bus tap", usage: "[OPTIONS]", summary: "Show the messages between plugins as they are answered",
      arguments: .exactly(0),
      flags: {
        [
          .list("type", nil, "Only messages of this name, or that begin with it (\"volume.driver\")"),
          .list("role", nil, "Only messages that plugins of this role answer"),
          .string("container", nil, "Only messages that name this container"),
          .boolean("replies", nil, "Show what was answered, too"),
          .string("format", nil, "\"json\" for a line of JSON a message"),
        ]
      }, run: tap)
  ]

  private static func tap(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let format = options.string("format") ?? ""
    guard format.isEmpty || format == "json" else { throw Failure("bus tap prints text or json, not \"\(format)\"") }
    var client = try Engine.connect(invocation.global)
    var container = options.string("container") ?? ""
    // A name becomes the ID, which stands in more messages; a container that is yet to come has only its name.
    if !container.isEmpty, let record = try? client.request(ContainerInspect(container: container)) {
      container = record.id.text
    }
    let id = try client.send(
      BusTap(
        types: options.list("type"), roles: options.list("role"), container: container,
        withReplies: options.boolean("replies")))
    while true {
      switch try client.receive() {
      case .element(id, let body): Console.line(line(try body.decode(BusTap.Element.self), format))
      case .failure(id, let error): throw error
      case .reply(id, _): return 0
      case .element, .failure, .reply: continue
      }
    }
  }

  private static func line(_ element: BusTap.Element, _ format: String) -> String {
    if format == "json" {
      return (try? JSON.encode(element)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
    var name = element.message
    if !element.driver.isEmpty { name += "@\(element.driver)" }
    let microseconds = element.nanoseconds / 1000
    var text = "\(element.time) \(padded(name, 34)) \(padded("\(microseconds) µs", 12)) \(element.plugin)"
    text += " \(JSONText.write(element.parameters))"
    if let reply = element.reply { text += " -> \(JSONText.write(reply))" }
    if let error = element.error { text += " !! \(error.code.rawValue): \(error)" }
    if element.dropped > 0 { text = "(\(element.dropped) messages came too fast to show)\n" + text }
    return text
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }
}
