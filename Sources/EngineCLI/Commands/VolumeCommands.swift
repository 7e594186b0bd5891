import Contracts
import Wire

/// `volume ls`, `volume create`, `volume rm`.
enum VolumeCommands {
  static let all: [Command] = [
    Command(
      "volume ls", "volume list", usage: "[OPTIONS]", summary: "List volumes", arguments: .exactly(0),
      flags: {
        [
          ListCommands.filterFlag("Provide filter values (e.g. \"dangling=true\")"),
          .string("format", nil, ListCommands.formatHelp),
          .boolean("quiet", "q", "Only display volume names"),
        ]
      }, run: list),
    Command(
      "volume create", usage: "[OPTIONS] [VOLUME]", summary: "Create a volume", arguments: 0...1,
      flags: {
        [
          .string("driver", "d", "Specify volume driver name (default \"local\")"),
          .list("label", nil, "Set metadata for a volume", check: KeyValues.checkLabel),
          .list("opt", "o", "Set driver specific options (default map[])", type: "map"),
          .string("name", nil, "Specify volume name"),
        ]
      }, run: create),
    Command(
      "volume rm", "volume remove", usage: "[OPTIONS] VOLUME [VOLUME...]",
      summary: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
      arguments: .atLeast(1), flags: { [.boolean("force", "f", "Force the removal of one or more volumes")] },
      run: { invocation in
        guard invocation.options.boolean("force") else {
          return try ContainerCommands.forEach(invocation) { VolumeRemove(volume: $0, force: false) }
        }
        return try ContainerCommands.forEach(
          invocation,
          show: { name, reply in
            for warning in reply.warnings { Console.error("WARNING: \(warning)") }
            return name
          }
        ) { VolumeForget(volume: $0) }
      }),
  ]

  private static func create(_ invocation: borrowing Invocation) throws -> Int32 {
    let options = invocation.options
    let name = invocation.arguments.first ?? options.string("name")
    if let name, !ObjectName.isValid(name) {
      throw EngineError(
        .invalidArgument,
        "create \(name): \"\(name)\" includes invalid characters for a local volume name, only "
          + "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path")
    }
    var client = try Engine.connect(invocation.global)
    let volume = try client.request(
      VolumeCreate(
        volumeName: name, driver: options.string("driver"), options: KeyValues.dictionary(options.list("opt")),
        labels: KeyValues.dictionary(options.list("label"))))
    Console.line(volume.name)
    return 0
  }

  private static let fields: [Listing.Column] = [
    .init("Driver", "DRIVER"), .init("Name", "VOLUME NAME"), .init("Scope", "SCOPE"),
    .init("Mountpoint", "MOUNTPOINT"), .init("Labels", "LABELS"), .init("Links", "LINKS"), .init("Size", "SIZE"),
    .init("Availability", "AVAILABILITY"), .init("Group", "GROUP"), .init("Status", "STATUS"),
  ]

  private static func list(_ invocation: borrowing Invocation) throws -> Int32 {
    let format = try OutputFormat(invocation.options.string("format"))
    var client = try Engine.connect(invocation.global)
    var volumes = try client.request(VolumeList()).sorted { $0.name < $1.name }
    for text in invocation.options.list("filter") {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      switch pair[0] {
      case "name": volumes.removeAll { !$0.name.holds(pair[1]) }
      case "driver": volumes.removeAll { $0.driver != pair[1] }
      case "label": volumes.removeAll { !ContainerFilter.has($0.labels, [pair[1]]) }
      case "dangling":
        let wants = try Truth.parse(pair[1])
        let containers = try client.request(ContainerList(all: true))
        let used = Set(containers.flatMap { $0.mountPoints.map(\.volume) })
        volumes.removeAll { used.contains($0.name) == wants }
      default: throw EngineError(.invalidArgument, "invalid filter '\(pair[0])'")
      }
    }
    if invocation.options.boolean("quiet"), case .table = format {
      Console.out(volumes.map { $0.name + "\n" }.joined())
      return 0
    }
    let listing = Listing(
      rowType: "volumeContext", columns: ["Driver", "Name"], fields: fields,
      rows: volumes.map { volume in
        let labels = volume.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        return [
          "Driver": volume.driver, "Name": volume.name, "Scope": "local", "Mountpoint": volume.mountpoint,
          "Labels": labels.joined(separator: ","), "Links": "N/A", "Size": "N/A", "Availability": "N/A",
          "Group": "N/A", "Status": "N/A",
        ]
      })
    Console.out(try listing.text(format))
    return 0
  }
}
