import Contracts
import Wire

/// `network ls`, `network create`, `network rm`.
enum NetworkCommands {
  static let all: [Command] = [
    Command(
      "network ls", "network list", usage: "[OPTIONS]", summary: "List networks", arguments: .exactly(0),
      flags: {
        [
          ListCommands.filterFlag("Provide filter values (e.g. \"driver=bridge\")"),
          .string("format", nil, ListCommands.formatHelp),
          .boolean("no-trunc", nil, "Do not truncate the output"),
          .boolean("quiet", "q", "Only display network IDs"),
        ]
      }, run: list),
    Command(
      "network create", usage: "[OPTIONS] NETWORK", summary: "Create a network", arguments: .exactly(1),
      flags: {
        [
          .string("driver", "d", "Driver to manage the Network (default \"bridge\")"),
          .list("gateway", nil, "IPv4 Gateway for the subnet", type: "strings"),
          .boolean("internal", nil, "Restrict external access to the network"),
          .list("ip-range", nil, "Allocate container ip from a sub-range", type: "strings"),
          .list("label", nil, "Set metadata on a network", check: KeyValues.checkLabel),
          .list("opt", "o", "Set driver specific options (default map[])", type: "map"),
          .list("subnet", nil, "Subnet in CIDR format that represents a network segment", type: "strings"),
        ]
      }, run: create),
    Command(
      "network rm", "network remove", usage: "NETWORK [NETWORK...]", summary: "Remove one or more networks",
      arguments: .atLeast(1), flags: { [.boolean("force", "f", "Do not error if the network does not exist")] },
      run: { invocation in
        guard invocation.options.boolean("force") else {
          return try ContainerCommands.forEach(invocation) { NetworkRemove(network: $0) }
        }
        return try ContainerCommands.forEach(
          invocation, forgiving: .notFound,
          show: { name, reply in
            for warning in reply.warnings { Console.error("WARNING: \(warning)") }
            return name
          }
        ) { NetworkForget(network: $0) }
      }),
  ]

  private static func create(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let subnets = options.list("subnet").flatMap { $0.split(separator: ",").map(String.init) }
    let gateways = options.list("gateway").flatMap { $0.split(separator: ",").map(String.init) }
    let ranges = options.list("ip-range").flatMap { $0.split(separator: ",").map(String.init) }
    guard gateways.count <= subnets.count, ranges.count <= subnets.count else {
      throw Failure("every ip-range or gateway must have a corresponding subnet")
    }
    for subnet in subnets + ranges {
      let parts = subnet.split(separator: "/", omittingEmptySubsequences: false)
      guard parts.count == 2, IPv4.isAddress(parts[0]), let length = Int(parts[1]), (0...32).contains(length) else {
        throw Failure("invalid subnet \(subnet): invalid CIDR address: \(subnet)")
      }
    }
    for gateway in gateways where !IPv4.isAddress(gateway) { throw Failure("invalid gateway address: \(gateway)") }
    let pools = subnets.enumerated().map { index, subnet in
      AddressPool(
        subnet: subnet, gateway: index < gateways.count ? gateways[index] : nil,
        range: index < ranges.count ? ranges[index] : nil)
    }
    var client = try Engine.connect(invocation.global)
    let network = try client.request(
      NetworkCreate(
        networkName: invocation.arguments[0], driver: options.string("driver"), pools: pools,
        options: KeyValues.dictionary(options.list("opt")), labels: KeyValues.dictionary(options.list("label")),
        isInternal: options.boolean("internal")))
    Console.line(network.id.text)
    return 0
  }

  private static let fields: [Listing.Column] = [
    .init("ID", "NETWORK ID"), .init("Name", "NAME"), .init("Driver", "DRIVER"), .init("Scope", "SCOPE"),
    .init("IPv4", "IPV4"), .init("IPv6", "IPV6"), .init("Internal", "INTERNAL"), .init("Labels", "LABELS"),
    .init("CreatedAt", "CREATED AT"),
  ]

  private static func list(_ invocation: borrowing Invocation) throws -> Int32 {
    let format = try OutputFormat(invocation.options.string("format"))
    var client = try Engine.connect(invocation.global)
    var networks = try client.request(NetworkList()).sorted { $0.name < $1.name }
    for text in invocation.options.list("filter") {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      switch pair[0] {
      case "name": networks.removeAll { !$0.name.holds(pair[1]) }
      case "id": networks.removeAll { !$0.id.text.hasPrefix(pair[1]) }
      case "driver": networks.removeAll { $0.driver != pair[1] }
      case "label": networks.removeAll { !ContainerFilter.has($0.labels, [pair[1]]) }
      case "scope": networks.removeAll { _ in pair[1] != "local" }
      case "type":
        guard pair[1] == "custom" || pair[1] == "builtin" else {
          throw EngineError(.invalidArgument, "invalid filter 'type=\(pair[1])'")
        }
        networks.removeAll { ["bridge", "host", "none"].contains($0.name) == (pair[1] == "custom") }
      default: throw EngineError(.invalidArgument, "invalid filter '\(pair[0])'")
      }
    }
    let truncates = !invocation.options.boolean("no-trunc")
    if invocation.options.boolean("quiet"), case .table = format {
      Console.out(networks.map { (truncates ? $0.id.short : $0.id.text) + "\n" }.joined())
      return 0
    }
    let listing = Listing(
      rowType: "networkContext", columns: ["ID", "Name", "Driver", "Scope"], fields: fields,
      rows: networks.map { network in
        let labels = network.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return [
          "ID": truncates ? network.id.short : network.id.text, "Name": network.name, "Driver": network.driver,
          "Scope": "local", "IPv4": "true", "IPv6": "false", "Internal": network.isInternal ? "true" : "false",
          "Labels": labels.joined(separator: ","), "CreatedAt": HumanText.exactLocalTime(network.created),
        ]
      })
    Console.out(try listing.text(format))
    return 0
  }
}
