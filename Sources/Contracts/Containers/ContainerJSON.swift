// The messages of `run`, `start`, `attach` and `exec`, directly as JSON (see `DirectJSON.swift`).

extension ContainerRun {
  public func json(_ descriptors: DescriptorTable) -> JSONValue? {
    .members([
      "containerName": containerName.map(JSONValue.string), "configuration": configuration.json,
      "isDetached": .boolean(isDetached), "streams": streams.json(descriptors),
    ])
  }
}

extension ContainerStart {
  public func json(_ descriptors: DescriptorTable) -> JSONValue? {
    .members([
      "container": .string(container), "isAttached": .boolean(isAttached), "streams": streams.json(descriptors),
    ])
  }
}

extension ContainerAttach {
  public func json(_ descriptors: DescriptorTable) -> JSONValue? {
    .members(["container": .string(container), "streams": streams.json(descriptors)])
  }
}

extension ContainerExec {
  public func json(_ descriptors: DescriptorTable) -> JSONValue? {
    .members([
      "container": .string(container), "command": .strings(command), "environment": .strings(environment),
      "workingDirectory": .string(workingDirectory), "user": .string(user), "hasTerminal": .boolean(hasTerminal),
      "isPrivileged": .boolean(isPrivileged), "isDetached": .boolean(isDetached),
      "streams": streams.json(descriptors),
    ])
  }
}

extension ContainerSummaries {
  public func json(_ descriptors: DescriptorTable) -> JSONValue? { .members(["all": .boolean(all)]) }
}

extension ContainerRunElement: DirectlyDecodable {
  public init?(json: JSONValue) {
    guard let choice = json.choice else { return nil }
    switch choice.key {
    case "created":
      guard let id = choice.value["_0"]?.string.flatMap(ObjectID.init),
        let warnings = choice.value["warnings"]?.strings
      else { return nil }
      self = .created(id, warnings: warnings)
    case "started": self = .started
    case "detached": self = .detached
    default: return nil
    }
  }
}

extension ContainerExec.Element: DirectlyDecodable {
  public init?(json: JSONValue) {
    guard let choice = json.choice else { return nil }
    switch choice.key {
    case "created":
      guard let id = choice.value["_0"]?.string.flatMap(ObjectID.init) else { return nil }
      self = .created(id)
    case "started": self = .started
    case "detached": self = .detached
    default: return nil
    }
  }
}

extension ExitStatus: DirectlyDecodable {
  public init?(json: JSONValue) {
    guard let code = json["code"]?.whole(Int32.self), let finished = json["finished"]?.string.flatMap(Timestamp.init),
      let reason = json["reason"]?.string
    else { return nil }
    self.init(code: code, finished: finished, reason: reason)
  }
}

extension StandardStreams {
  func json(_ descriptors: DescriptorTable) -> JSONValue {
    func index(_ descriptor: Descriptor?) -> JSONValue? { descriptor.map { .whole(descriptors.add($0)) } }
    return .members([
      "input": index(input), "output": index(output), "error": index(error),
      "keepsInputOpen": .boolean(keepsInputOpen), "detachKeys": .string(detachKeys), "rows": .whole(rows),
      "columns": .whole(columns), "client": .whole(client),
    ])
  }
}

extension ContainerConfiguration {
  var json: JSONValue {
    .members([
      "image": .string(image), "entrypoint": entrypoint.map(JSONValue.strings), "command": .strings(command),
      "environment": .strings(environment), "workingDirectory": .string(workingDirectory), "user": .string(user),
      "additionalGroups": .strings(additionalGroups), "hostname": .string(hostname),
      "domainname": .string(domainname), "labels": .dictionary(labels), "hasTerminal": .boolean(hasTerminal),
      "keepsInputOpen": .boolean(keepsInputOpen), "attachesInput": .boolean(attachesInput),
      "attachesOutput": .boolean(attachesOutput), "attachesError": .boolean(attachesError),
      "removesItself": .boolean(removesItself), "restart": restart.json, "mounts": .list(mounts) { $0.json },
      "volumesFrom": .strings(volumesFrom), "networks": .list(networks) { $0.json },
      "networkMode": .string(networkMode), "ports": .list(PortRun.fold(ports)) { $0.json },
      "publishesAllPorts": .boolean(publishesAllPorts), "exposedPorts": .strings(exposedPorts),
      "extraHosts": .strings(extraHosts), "dnsServers": .strings(dnsServers), "dnsSearch": .strings(dnsSearch),
      "dnsOptions": .strings(dnsOptions), "pidMode": pidMode.json, "ipcMode": ipcMode.json, "utsMode": utsMode.json,
      "cgroupNamespaceMode": cgroupNamespaceMode.json, "limits": limits.json,
      "sharedMemorySize": .integer(sharedMemorySize), "resourceLimits": .list(resourceLimits) { $0.json },
      "outOfMemoryScoreAdjustment": .whole(outOfMemoryScoreAdjustment),
      "isRootReadOnly": .boolean(isRootReadOnly), "isPrivileged": .boolean(isPrivileged),
      "addedCapabilities": .strings(addedCapabilities), "droppedCapabilities": .strings(droppedCapabilities),
      "securityOptions": .strings(securityOptions), "systemControls": .dictionary(systemControls),
      "usesInit": .boolean(usesInit), "stopSignal": .string(stopSignal),
      "stopTimeout": stopTimeout.map { .whole($0) }, "logDriver": logDriver.map(JSONValue.string),
      "logOptions": .dictionary(logOptions), "platform": platform.map(JSONValue.string),
    ])
  }
}

extension ContainerConfiguration.Restart {
  fileprivate var json: JSONValue {
    switch self {
    case .no: .choice("no")
    case .onFailure(let retries): .choice("onFailure", ["maximumRetries": .whole(retries)])
    case .always: .choice("always")
    case .unlessStopped: .choice("unlessStopped")
    }
  }
}

extension ContainerConfiguration.NamespaceMode {
  fileprivate var json: JSONValue {
    switch self {
    case .own: .choice("own")
    case .host: .choice("host")
    case .container(let other): .choice("container", ["_0": .string(other)])
    case .shareable: .choice("shareable")
    case .none: .choice("none")
    }
  }
}

extension MountRequest {
  fileprivate var json: JSONValue {
    .members([
      "kind": .string(kind.rawValue), "source": .string(source), "target": .string(target),
      "isReadOnly": .boolean(isReadOnly), "driver": driver.map(JSONValue.string),
      "driverOptions": .dictionary(driverOptions), "labels": .dictionary(labels),
      "createsSource": .boolean(createsSource), "copiesImage": .boolean(copiesImage), "subpath": .string(subpath),
      "propagation": .string(propagation), "isRecursive": .boolean(isRecursive),
      "tmpfsOptions": .strings(tmpfsOptions),
    ])
  }
}

extension EndpointRequest {
  fileprivate var json: JSONValue {
    .members([
      "network": .string(network), "address": address.map(JSONValue.string),
      "hardwareAddress": hardwareAddress.map(JSONValue.string), "aliases": .strings(aliases),
    ])
  }
}

extension PortRun {
  fileprivate var json: JSONValue {
    .members([
      "transport": .string(first.transport.rawValue), "hostAddress": .string(first.hostAddress),
      "hostPort": .whole(first.hostPort), "hostPortEnd": .whole(first.hostPortEnd),
      "containerPort": .whole(first.containerPort), "count": count > 1 ? .whole(count) : nil,
    ])
  }
}

extension ResourceLimits {
  fileprivate var json: JSONValue {
    .members([
      "nanoCPUs": .integer(nanoCPUs), "cpuPeriod": .whole(cpuPeriod), "cpuQuota": .integer(cpuQuota),
      "cpuShares": .whole(cpuShares), "cpusetCPUs": .string(cpusetCPUs),
      "cpusetMemoryNodes": .string(cpusetMemoryNodes), "memory": .integer(memory),
      "memoryReservation": .integer(memoryReservation), "memorySwap": .integer(memorySwap), "pids": .integer(pids),
      "blkioWeight": .whole(blkioWeight), "disablesOOMKill": .boolean(disablesOOMKill),
      "allowsAllDevices": .boolean(allowsAllDevices),
    ])
  }
}

extension RuntimeSpecification.Process.ResourceLimit {
  fileprivate var json: JSONValue {
    .members(["name": .string(name), "soft": .whole(soft), "hard": .whole(hard)])
  }
}
