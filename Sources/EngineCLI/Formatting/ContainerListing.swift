import Contracts

/// The rows of `ps`.
enum ContainerListing {
  static let fields: [Listing.Column] = [
    .init("ID", "CONTAINER ID"), .init("Image", "IMAGE"), .init("Command", "COMMAND"),
    .init("CreatedAt", "CREATED AT"), .init("RunningFor", "CREATED"), .init("Status", "STATUS"),
    .init("Ports", "PORTS"), .init("Names", "NAMES"), .init("Size", "SIZE"), .init("Labels", "LABELS"),
    .init("Mounts", "MOUNTS"), .init("LocalVolumes", "LOCAL VOLUMES"), .init("Networks", "NETWORKS"),
    .init("State", "STATE"),
  ]

  /// Bytes of a container's own layer and of everything.
  struct Size {
    var writable: Int64
    var virtual: Int64
  }

  /// - Parameter asTable: for the plain table alone, which shows no local times: they take reading /etc/localtime.
  static func make(
    _ containers: [ContainerRecord], sizes: [ObjectID: Size]? = nil, truncates: Bool = true, asTable: Bool = false,
    now: Timestamp = .now
  ) -> Listing {
    var columns = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
    if sizes != nil { columns.append("Size") }
    return Listing(
      rowType: "ContainerContext", columns: columns, fields: fields,
      rows: containers.map { row($0, size: sizes?[$0.id], truncates: truncates, asTable: asTable, now: now) })
  }

  private static func row(
    _ container: ContainerRecord, size: Size?, truncates: Bool, asTable: Bool, now: Timestamp
  ) -> [String: String] {
    // Docker's engine quotes the arguments that have spaces.
    let arguments = container.arguments.map { $0.contains(" ") ? "'\($0)'" : $0 }
    let command = ([container.path] + arguments).joined(separator: " ")
    let mounts = container.mountPoints.map { $0.volume.isEmpty ? $0.source : $0.volume }.filter { !$0.isEmpty }
    return [
      "ID": truncates ? container.id.short : container.id.text,
      "Image": imageName(container, truncates: truncates),
      "Command": HumanText.quoted(truncates ? HumanText.ellipsis(command, 20) : command),
      "CreatedAt": asTable ? "" : HumanText.localTime(container.created),
      "RunningFor": HumanText.ago(container.created, now: now),
      "Status": status(container.state, now: now),
      "Ports": PortText.text(PortText.ports(of: container)),
      "Names": container.name,
      "Size": size.map { "\(HumanText.size($0.writable)) (virtual \(HumanText.size($0.virtual)))" } ?? "0B",
      "Labels": labels(container).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
      "Mounts": mounts.map { truncates ? HumanText.ellipsis($0, 15) : $0 }.joined(separator: ","),
      "LocalVolumes": String(container.mountPoints.filter { $0.driver == "local" }.count),
      "Networks": networks(container).joined(separator: ","),
      "State": container.state.status.rawValue,
    ]
  }

  private static func imageName(_ container: ContainerRecord, truncates: Bool) -> String {
    let name = container.configuration.image
    guard truncates, let digest = Digest(name) ?? Digest(hex: name) else { return name }
    return digest.short
  }

  static func labels(_ container: ContainerRecord) -> [String: String] {
    container.imageLabels.merging(container.configuration.labels) { _, own in own }
  }

  static func networks(_ container: ContainerRecord) -> [String] {
    let attached = container.endpoints.map(\.networkName).filter { !$0.isEmpty }
    if !attached.isEmpty { return attached }
    let asked = container.configuration.networks.map(\.network)
    return asked.isEmpty ? ["bridge"] : asked
  }

  /// `Up 3 minutes`, `Exited (0) 2 hours ago`.
  static func status(_ state: ContainerState, now: Timestamp) -> String {
    func span(_ time: Timestamp) -> String {
      HumanText.duration(nanoseconds: time == .never ? 0 : now.nanoseconds - time.nanoseconds)
    }
    return switch state.status {
    case .created: "Created"
    case .running: "Up \(span(state.started))"
    case .paused: "Up \(span(state.started)) (Paused)"
    case .restarting: "Restarting (\(state.exitCode)) \(span(state.finished)) ago"
    case .removing: "Removal In Progress"
    case .exited: "Exited (\(state.exitCode)) \(span(state.finished)) ago"
    case .dead: "Dead"
    }
  }
}
