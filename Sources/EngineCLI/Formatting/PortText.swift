import Contracts

/// The ports of a container as `ps` shows them, neighbours merged into ranges (docker/cli, formatter.DisplayablePorts).
enum PortText {
  struct Port: Equatable {
    /// Empty for a port that is only declared.
    var address: String
    var hostPort: UInt16
    var containerPort: UInt16
    var transport: String
  }

  /// What is published now and what is declared beside it; nothing for a container that does not run and publishes
  /// nothing.
  static func ports(of container: ContainerRecord) -> [Port] {
    let published = container.publishedPorts.map {
      Port(
        address: $0.hostAddress.isEmpty ? "0.0.0.0" : $0.hostAddress, hostPort: $0.hostPort,
        containerPort: $0.containerPort, transport: $0.transport.rawValue)
    }
    guard container.state.status == .running || container.state.status == .paused else { return [] }
    let declared = Set(container.exposedPorts + container.configuration.exposedPorts).compactMap { text -> Port? in
      let parts = text.split(separator: "/")
      guard let number = parts.first.flatMap({ UInt16($0) }) else { return nil }
      let transport = parts.count == 2 ? String(parts[1]) : "tcp"
      if published.contains(where: { $0.containerPort == number && $0.transport == transport }) { return nil }
      return Port(address: "", hostPort: 0, containerPort: number, transport: transport)
    }
    return published + declared
  }

  static func text(_ ports: [Port]) -> String {
    struct Group {
      var first: UInt16
      var last: UInt16
    }
    var groups: [(key: String, address: String, transport: String, group: Group)] = []
    var result: [String] = []
    var mappings: [String] = []
    func show(_ address: String, _ transport: String, _ group: Group) -> String {
      let range = group.first == group.last ? "\(group.first)" : "\(group.first)-\(group.last)"
      return (address.isEmpty ? range : "\(bracketed(address)):\(range)->\(range)") + "/\(transport)"
    }
    for port in ports.sorted(by: precedes) {
      if !port.address.isEmpty, port.hostPort != port.containerPort {
        mappings.append("\(bracketed(port.address)):\(port.hostPort)->\(port.containerPort)/\(port.transport)")
        continue
      }
      let key = "\(port.address)/\(port.transport)"
      guard let index = groups.firstIndex(where: { $0.key == key }) else {
        let group = Group(first: port.containerPort, last: port.containerPort)
        groups.append((key, port.address, port.transport, group))
        continue
      }
      if port.containerPort == groups[index].group.last &+ 1 {
        groups[index].group.last = port.containerPort
      } else {
        result.append(show(port.address, port.transport, groups[index].group))
        groups[index].group = Group(first: port.containerPort, last: port.containerPort)
      }
    }
    result += groups.map { show($0.address, $0.transport, $0.group) }
    return (result + mappings).joined(separator: ", ")
  }

  private static func bracketed(_ address: String) -> String { address.contains(":") ? "[\(address)]" : address }

  private static func precedes(_ left: Port, _ right: Port) -> Bool {
    (left.containerPort, left.address, left.hostPort, left.transport)
      < (right.containerPort, right.address, right.hostPort, right.transport)
  }
}
