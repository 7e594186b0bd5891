import Contracts

/// An image as `inspect` shows it, with Docker's keys.
enum ImageInspection {
  static func value(_ image: ImageDescription) -> JSONValue {
    let configuration = image.configuration
    var members: [JSONValue.Member] = [
      .init("Id", .string(image.id.description)),
      .init("RepoTags", .strings(image.references)),
      .init("RepoDigests", .strings(image.repositoryDigests.sorted())),
      .init("Parent", ""),
      .init("Comment", .string(configuration.history?.last?.comment ?? "")),
      .init("Created", .string((configuration.created ?? .never).description)),
      .init("DockerVersion", ""),
      .init("Author", .string(configuration.author ?? "")),
      .init("Config", execution(configuration.config)),
      .init("Architecture", .string(configuration.architecture)),
    ]
    if let variant = configuration.variant { members.append(.init("Variant", .string(variant))) }
    members += [
      .init("Os", .string(configuration.os)),
      .init("Size", .integer(image.size)),
      .init("GraphDriver", ["Data": .null, "Name": "overlay2"]),
      .init(
        "RootFS", ["Type": "layers", "Layers": .strings(configuration.rootfs.differenceIDs.map(\.description))]),
      .init("Metadata", ["LastTagTime": .string(image.stored.description)]),
    ]
    return .object(members)
  }

  private static func execution(_ config: ImageConfiguration.Execution?) -> JSONValue {
    let config = config ?? ImageConfiguration.Execution()
    func strings(_ texts: [String]?) -> JSONValue { texts.map { .strings($0) } ?? .null }
    var members: [JSONValue.Member] = [
      .init("Hostname", ""),
      .init("Domainname", ""),
      .init("User", .string(config.user ?? "")),
      .init("AttachStdin", false),
      .init("AttachStdout", false),
      .init("AttachStderr", false),
    ]
    if let ports = config.exposedPorts { members.append(.init("ExposedPorts", .set(ports.keys))) }
    members += [
      .init("Tty", false),
      .init("OpenStdin", false),
      .init("StdinOnce", false),
      .init("Env", strings(config.environment)),
      .init("Cmd", strings(config.command)),
      .init("Image", ""),
      .init("Volumes", config.volumes.map { .set($0.keys) } ?? .null),
      .init("WorkingDir", .string(config.workingDirectory ?? "")),
      .init("Entrypoint", strings(config.entrypoint)),
      .init("OnBuild", config.onBuild.map { .strings($0) } ?? .null),
      .init("Labels", config.labels.map { .sorted($0) } ?? .null),
    ]
    if let signal = config.stopSignal { members.append(.init("StopSignal", .string(signal))) }
    if let shell = config.shell { members.append(.init("Shell", .strings(shell))) }
    return .object(members)
  }
}

/// A volume as `inspect` shows it.
enum VolumeInspection {
  static func value(_ volume: Volume) -> JSONValue {
    [
      "CreatedAt": .string(volume.created.description),
      "Driver": .string(volume.driver),
      "Labels": labels(volume),
      "Mountpoint": .string(volume.mountpoint),
      "Name": .string(volume.name),
      "Options": volume.options.isEmpty ? .null : .sorted(volume.options),
      "Scope": "local",
    ]
  }

  /// Docker marks what nobody named.
  private static func labels(_ volume: Volume) -> JSONValue {
    var labels = volume.labels
    if volume.isAnonymous { labels["com.docker.volume.anonymous"] = "" }
    return labels.isEmpty ? .null : .sorted(labels)
  }
}

/// A network as `inspect` shows it.
enum NetworkInspectionText {
  static func value(_ network: NetworkInspection, names: [ObjectID: String]) -> JSONValue {
    let definition = network.definition
    let pools = definition.pools.map { pool -> JSONValue in
      var members: [JSONValue.Member] = [.init("Subnet", .string(pool.subnet))]
      if let range = pool.range { members.append(.init("IPRange", .string(range))) }
      if let gateway = pool.gateway { members.append(.init("Gateway", .string(gateway))) }
      return .object(members)
    }
    let containers = network.endpoints.sorted { $0.key < $1.key }.map { container, endpoint in
      JSONValue.Member(
        container.text,
        [
          "Name": .string(names[container] ?? container.short),
          "EndpointID": .string(endpoint.id.text),
          "MacAddress": .string(endpoint.hardwareAddress),
          "IPv4Address": .string(endpoint.address.isEmpty ? "" : "\(endpoint.address)/\(endpoint.prefixLength)"),
          "IPv6Address": "",
        ])
    }
    return [
      "Name": .string(definition.name),
      "Id": .string(definition.id.text),
      "Created": .string(definition.created.description),
      "Scope": "local",
      "Driver": .string(definition.driver),
      "EnableIPv4": true,
      "EnableIPv6": false,
      "IPAM": ["Driver": "default", "Options": .null, "Config": .array(pools)],
      "Internal": .boolean(definition.isInternal),
      "Attachable": false,
      "Ingress": false,
      "ConfigFrom": ["Network": ""],
      "ConfigOnly": false,
      "Containers": .object(containers),
      "Options": .sorted(definition.options),
      "Labels": .sorted(definition.labels),
    ]
  }
}
