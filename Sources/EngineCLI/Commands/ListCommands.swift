import Contracts
import Wire

/// `ps`.
enum ListCommands {
  static let all: [Command] = [
    Command(
      "ps", "container ls", "container list", "container ps", usage: "[OPTIONS]", summary: "List containers",
      arguments: .exactly(0), flags: flags, run: run)
  ]

  static let formatHelp =
    "Format output using a custom template:\n'table':            Print output in table format with column headers "
    + "(default)\n'table TEMPLATE':   Print output in table format using the given Go template\n"
    + "'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template."

  static func filterFlag(_ help: String) -> Flag {
    .list("filter", "f", help, type: "filter") { (text) throws(EngineError) in
      guard text.contains("=") else {
        throw EngineError(.invalidArgument, "bad format of filter (expected name=value)")
      }
    }
  }

  private static func flags() -> [Flag] {
    [
      .boolean("all", "a", "Show all containers (default shows just running)"),
      filterFlag("Filter output based on conditions provided"),
      .string("format", nil, formatHelp),
      .integer("last", "n", "Show n last created containers (includes all states) (default -1)"),
      .boolean("latest", "l", "Show the latest created container (includes all states)"),
      .boolean("no-trunc", nil, "Don't truncate output"),
      .boolean("quiet", "q", "Only display container IDs"),
      .boolean("size", "s", "Display total file sizes"),
    ]
  }

  private static func run(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let isQuiet = options.boolean("quiet")
    let format = try OutputFormat(options.string("format"))
    let filter = try ContainerFilter(options.list("filter"))
    let limit = options.boolean("latest") ? 1 : options.integer("last") ?? -1
    let asksForAll = options.boolean("all") || limit > 0 || filter.wantsAll
    let needsAll = asksForAll || options.list("filter").contains { $0.hasPrefix("before=") || $0.hasPrefix("since=") }
    let needsImages = options.boolean("size") || options.list("filter").contains { $0.hasPrefix("ancestor=") }

    var client = try Engine.connect(invocation.global)
    let every = try client.request(ContainerSummaries(all: needsAll)).map(\.record)
    let images = needsImages ? try client.request(ImageList()) : []
    var containers = every
    if !asksForAll { containers.removeAll { !isShownByDefault($0.state.status) } }
    containers = try filter.apply(to: containers, all: every, images: images)
    if limit > 0 { containers = Array(containers.prefix(limit)) }
    if isQuiet, case .table = format {
      let truncates = !options.boolean("no-trunc")
      Console.out(containers.map { (truncates ? $0.id.short : $0.id.text) + "\n" }.joined())
      return 0
    }
    var sizes: [ObjectID: ContainerListing.Size]?
    if options.boolean("size") {
      var found: [ObjectID: ContainerListing.Size] = [:]
      for container in containers {
        let writable = try client.request(ContainerSize(container: container.id.text))
        let image = images.first { $0.id == container.imageID }?.size ?? 0
        found[container.id] = ContainerListing.Size(writable: writable, virtual: writable + image)
      }
      sizes = found
    }
    let isPlainTable = if case .table = format { true } else { false }
    let listing = ContainerListing.make(
      containers, sizes: sizes, truncates: !options.boolean("no-trunc"), asTable: isPlainTable)
    Console.out(try listing.text(format))
    return 0
  }

  private static func isShownByDefault(_ status: ContainerStatus) -> Bool {
    switch status {
    case .running, .paused, .restarting: true
    case .created, .removing, .exited, .dead: false
    }
  }
}
