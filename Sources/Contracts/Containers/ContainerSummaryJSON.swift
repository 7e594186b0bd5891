// What a list of containers is read from, directly (see `DirectJSON.swift`).

extension ContainerSummary: DirectlyDecodable {
  public init?(json: JSONValue) {
    guard let id = json["id"]?.string.flatMap(ObjectID.init), let containerName = json["containerName"]?.string,
      let created = json["created"]?.string.flatMap(Timestamp.init), let image = json["image"]?.string,
      let imageID = json["imageID"]?.string.flatMap({ Digest($0) }),
      let layers = json["layers"]?.list({ $0.string.flatMap { Digest($0) } }), let path = json["path"]?.string,
      let arguments = json["arguments"]?.strings, let labels = json["labels"]?.dictionary,
      let exposedPorts = json["exposedPorts"]?.strings,
      let publishedPorts = json["publishedPorts"]?.list(PortRun.init(json:)),
      let mountPoints = json["mountPoints"]?.list(MountPoint.init(json:)),
      let networks = json["networks"]?.strings, let endpoints = json["endpoints"]?.list(Endpoint.init(json:)),
      let state = json["state"].flatMap(ContainerState.init(json:))
    else { return nil }
    self.id = id
    self.containerName = containerName
    self.created = created
    self.image = image
    self.imageID = imageID
    self.layers = layers
    self.path = path
    self.arguments = arguments
    self.labels = labels
    self.exposedPorts = exposedPorts
    self.mountPoints = mountPoints
    self.networks = networks
    self.endpoints = endpoints
    self.state = state
    self.publishedPorts = publishedPorts.flatMap(\.ports)
  }
}

extension PortRun {
  fileprivate init?(json: JSONValue) {
    guard let transport = json["transport"]?.string.flatMap(TransportProtocol.init),
      let hostAddress = json["hostAddress"]?.string, let hostPort = json["hostPort"]?.whole(UInt16.self),
      let hostPortEnd = json["hostPortEnd"]?.whole(UInt16.self),
      let containerPort = json["containerPort"]?.whole(UInt16.self)
    else { return nil }
    let first = PortBinding(
      transport: transport, hostAddress: hostAddress, hostPort: hostPort, hostPortEnd: hostPortEnd,
      containerPort: containerPort)
    guard let count = json["count"].map({ $0.whole(Int.self) }) ?? 1 else { return nil }
    self.init(first: first, count: count)
  }
}

extension MountPoint {
  fileprivate init?(json: JSONValue) {
    guard let kind = json["kind"]?.string.flatMap(MountRequest.Kind.init), let volume = json["volume"]?.string,
      let source = json["source"]?.string, let target = json["target"]?.string, let driver = json["driver"]?.string,
      let isReadOnly = json["isReadOnly"]?.boolean, let propagation = json["propagation"]?.string
    else { return nil }
    self.init(
      kind: kind, volume: volume, source: source, target: target, driver: driver, isReadOnly: isReadOnly,
      propagation: propagation)
  }
}

extension Endpoint {
  fileprivate init?(json: JSONValue) {
    guard let id = json["id"]?.string.flatMap(ObjectID.init),
      let networkID = json["networkID"]?.string.flatMap(ObjectID.init),
      let networkName = json["networkName"]?.string, let driver = json["driver"]?.string,
      let interface = json["interface"]?.string, let address = json["address"]?.string,
      let prefixLength = json["prefixLength"]?.whole(Int.self), let gateway = json["gateway"]?.string,
      let hardwareAddress = json["hardwareAddress"]?.string, let aliases = json["aliases"]?.strings
    else { return nil }
    self.init(
      id: id, networkID: networkID, networkName: networkName, driver: driver, interface: interface,
      address: address, prefixLength: prefixLength, gateway: gateway, hardwareAddress: hardwareAddress,
      aliases: aliases)
  }
}

extension ContainerState {
  fileprivate init?(json: JSONValue) {
    guard let status = json["status"]?.string.flatMap(ContainerStatus.init), let pid = json["pid"]?.whole(Int32.self),
      let shimPID = json["shimPID"]?.whole(Int32.self), let exitCode = json["exitCode"]?.whole(Int32.self),
      let wasKilledForMemory = json["wasKilledForMemory"]?.boolean, let error = json["error"]?.string,
      let started = json["started"]?.string.flatMap(Timestamp.init),
      let finished = json["finished"]?.string.flatMap(Timestamp.init),
      let wasStoppedByUser = json["wasStoppedByUser"]?.boolean,
      let restartCount = json["restartCount"]?.whole(Int.self)
    else { return nil }
    self.init()
    self.status = status
    self.pid = pid
    self.shimPID = shimPID
    self.exitCode = exitCode
    self.wasKilledForMemory = wasKilledForMemory
    self.error = error
    self.started = started
    self.finished = finished
    self.wasStoppedByUser = wasStoppedByUser
    self.restartCount = restartCount
  }
}
