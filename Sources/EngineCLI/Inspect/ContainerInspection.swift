import Contracts

/// A container as `inspect` shows it, with Docker's keys in Docker's order (Engine API 1.50, ContainerInspect).
enum ContainerInspection {
  static func value(_ container: ContainerRecord, size: ContainerListing.Size? = nil) -> JSONValue {
    var members: [JSONValue.Member] = [
      .init("Id", .string(container.id.text)),
      .init("Created", .string(container.created.description)),
      .init("Path", .string(container.path)),
      .init("Args", .strings(container.arguments)),
      .init("State", state(container.state)),
      .init("Image", .string(container.imageID.description)),
      .init("ResolvConfPath", .string(container.generatedPaths?["/etc/resolv.conf"] ?? "")),
      .init("HostnamePath", .string(container.generatedPaths?["/etc/hostname"] ?? "")),
      .init("HostsPath", .string(container.generatedPaths?["/etc/hosts"] ?? "")),
      .init("LogPath", .string(container.logPath)),
      .init("Name", .string("/\(container.name)")),
      .init("RestartCount", .int(container.state.restartCount)),
      .init("Driver", "overlay2"),
      .init("Platform", "linux"),
      .init("MountLabel", ""),
      .init("ProcessLabel", ""),
      .init("AppArmorProfile", ""),
      .init("ExecIDs", .null),
      .init("HostConfig", HostConfigInspection.value(container)),
      .init("GraphDriver", ["Data": .null, "Name": "overlay2"]),
    ]
    if let size {
      members.append(.init("SizeRw", .integer(size.writable)))
      members.append(.init("SizeRootFs", .integer(size.virtual)))
    }
    members += [
      .init("Mounts", .array(container.mountPoints.map(mount))),
      .init("Config", configuration(container)),
      .init("NetworkSettings", networkSettings(container)),
    ]
    return .object(members)
  }

  private static func state(_ state: ContainerState) -> JSONValue {
    [
      "Status": .string(state.status.rawValue),
      "Running": .boolean(state.status == .running || state.status == .paused || state.status == .restarting),
      "Paused": .boolean(state.status == .paused),
      "Restarting": .boolean(state.status == .restarting),
      "OOMKilled": .boolean(state.wasKilledForMemory),
      "Dead": .boolean(state.status == .dead),
      "Pid": .int(state.pid),
      "ExitCode": .int(state.exitCode),
      "Error": .string(state.error),
      "StartedAt": .string(state.started.description),
      "FinishedAt": .string(state.finished.description),
    ]
  }

  private static func mount(_ point: MountPoint) -> JSONValue {
    var members: [JSONValue.Member] = [.init("Type", .string(point.kind.rawValue))]
    if !point.volume.isEmpty { members.append(.init("Name", .string(point.volume))) }
    members.append(.init("Source", .string(point.source)))
    members.append(.init("Destination", .string(point.target)))
    if !point.driver.isEmpty && point.kind == .volume { members.append(.init("Driver", .string(point.driver))) }
    members += [
      .init("Mode", .string(point.isReadOnly ? "ro" : point.kind == .volume ? "z" : "")),
      .init("RW", .boolean(!point.isReadOnly)),
      .init("Propagation", .string(point.kind == .bind && point.propagation.isEmpty ? "rprivate" : point.propagation)),
    ]
    return .object(members)
  }

  private static func configuration(_ container: ContainerRecord) -> JSONValue {
    let asked = container.configuration
    let exposed =
      container.exposedPorts + asked.exposedPorts
      + (asked.ports + container.publishedPorts).map { "\($0.containerPort)/\($0.transport.rawValue)" }
    let volumes = container.mounts.filter { $0.kind == .volume && $0.source.isEmpty }.map(\.target)
    let hostname = asked.hostname.isEmpty ? container.id.short : asked.hostname
    var members: [JSONValue.Member] = [
      .init("Hostname", .string(asked.networkMode.hasPrefix("container:") ? "" : hostname)),
      .init("Domainname", .string(asked.domainname)),
      .init("User", .string(container.user)),
      .init("AttachStdin", .boolean(asked.attachesInput)),
      .init("AttachStdout", .boolean(asked.attachesOutput)),
      .init("AttachStderr", .boolean(asked.attachesError)),
    ]
    if !exposed.isEmpty { members.append(.init("ExposedPorts", .set(Set(exposed)))) }
    members += [
      .init("Tty", .boolean(asked.hasTerminal)),
      .init("OpenStdin", .boolean(asked.keepsInputOpen)),
      .init("StdinOnce", .boolean(asked.keepsInputOpen && asked.attachesInput)),
      .init("Env", .strings(container.environment)),
      .init("Cmd", command(container)),
      .init("Image", .string(asked.image)),
      .init("Volumes", volumes.isEmpty ? .null : .set(volumes)),
      .init("WorkingDir", .string(container.workingDirectory)),
      .init("Entrypoint", asked.entrypoint.map { .stringsOrNull($0) } ?? .null),
      .init("OnBuild", .null),
      .init("Labels", .sorted(ContainerListing.labels(container))),
    ]
    if !container.stopSignal.isEmpty { members.append(.init("StopSignal", .string(container.stopSignal))) }
    if let timeout = asked.stopTimeout { members.append(.init("StopTimeout", .int(timeout))) }
    return .object(members)
  }

  /// What was given or, where nothing was, the whole command of the image.
  private static func command(_ container: ContainerRecord) -> JSONValue {
    let asked = container.configuration
    if !asked.command.isEmpty { return .strings(asked.command) }
    return asked.entrypoint == nil ? .stringsOrNull([container.path] + container.arguments) : .null
  }

  private static func networkSettings(_ container: ContainerRecord) -> JSONValue {
    let main = container.endpoints.first { $0.networkName == "bridge" }
    return [
      "Bridge": "",
      "SandboxID": "",
      "SandboxKey": "",
      "Ports": ports(container),
      "HairpinMode": false,
      "LinkLocalIPv6Address": "",
      "LinkLocalIPv6PrefixLen": 0,
      "SecondaryIPAddresses": .null,
      "SecondaryIPv6Addresses": .null,
      "EndpointID": .string(main?.id.text ?? ""),
      "Gateway": .string(main?.gateway ?? ""),
      "GlobalIPv6Address": "",
      "GlobalIPv6PrefixLen": 0,
      "IPAddress": .string(main?.address ?? ""),
      "IPPrefixLen": .int(main?.prefixLength ?? 0),
      "IPv6Gateway": "",
      "MacAddress": .string(main?.hardwareAddress ?? ""),
      "Networks": networks(container),
    ]
  }

  private static func ports(_ container: ContainerRecord) -> JSONValue {
    guard container.state.status == .running || container.state.status == .paused else { return .object([]) }
    var bindings: [String: [JSONValue]] = [:]
    for port in container.publishedPorts {
      bindings["\(port.containerPort)/\(port.transport.rawValue)", default: []].append([
        "HostIp": .string(port.hostAddress.isEmpty ? "0.0.0.0" : port.hostAddress),
        "HostPort": .string(String(port.hostPort)),
      ])
    }
    var members = bindings.map { JSONValue.Member($0.key, .array($0.value)) }
    for port in Set(container.exposedPorts + container.configuration.exposedPorts) where bindings[port] == nil {
      members.append(.init(port, .null))
    }
    return .object(members.sorted { $0.key < $1.key })
  }

  private static func networks(_ container: ContainerRecord) -> JSONValue {
    .object(
      container.endpoints.sorted { $0.networkName < $1.networkName }.map { endpoint in
        let asked = container.configuration.networks.first {
          $0.network == endpoint.networkName || endpoint.networkID.text.hasPrefix($0.network)
        }
        let names = endpoint.networkName == "bridge" ? [] : [container.name, container.id.short] + endpoint.aliases
        return .init(
          endpoint.networkName,
          [
            "IPAMConfig": asked?.address.map { ["IPv4Address": .string($0)] } ?? .null,
            "Links": .null,
            "Aliases": .stringsOrNull(endpoint.aliases),
            "MacAddress": .string(endpoint.hardwareAddress),
            "DriverOpts": .null,
            "GwPriority": 0,
            "NetworkID": .string(endpoint.networkID.text),
            "EndpointID": .string(endpoint.id.text),
            "Gateway": .string(endpoint.gateway),
            "IPAddress": .string(endpoint.address),
            "IPPrefixLen": .int(endpoint.prefixLength),
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": .stringsOrNull(names),
          ])
      })
  }
}
