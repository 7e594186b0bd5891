import Contracts

/// The `HostConfig` of a container: what it was asked to have of the host.
enum HostConfigInspection {
  static func value(_ container: ContainerRecord) -> JSONValue {
    let asked = container.configuration
    var members = general(container) + security(asked) + resources(asked.limits, asked)
    let mounts = asked.mounts.filter { !isBind($0) && $0.kind != .tmpfs }
    if !mounts.isEmpty { members.append(.init("Mounts", .array(mounts.map(mount)))) }
    let tmpfs = asked.mounts.filter { $0.kind == .tmpfs }
    if !tmpfs.isEmpty {
      let entries = tmpfs.map { JSONValue.Member($0.target, .string($0.tmpfsOptions.joined(separator: ","))) }
      members.append(.init("Tmpfs", .object(entries)))
    }
    if !asked.systemControls.isEmpty { members.append(.init("Sysctls", .sorted(asked.systemControls))) }
    if asked.usesInit { members.append(.init("Init", true)) }
    members.append(.init("MaskedPaths", asked.isPrivileged ? .null : .strings(maskedPaths)))
    members.append(.init("ReadonlyPaths", asked.isPrivileged ? .null : .strings(readOnlyPaths)))
    return .object(members)
  }

  /// What `-v` can say; the rest needs `--mount`.
  private static func isBind(_ mount: MountRequest) -> Bool {
    guard mount.kind != .tmpfs, mount.subpath.isEmpty, mount.driverOptions.isEmpty else { return false }
    return mount.kind == .bind ? mount.createsSource : !mount.source.isEmpty
  }

  private static func bind(_ mount: MountRequest) -> JSONValue {
    var options: [String] = []
    if mount.isReadOnly { options.append("ro") }
    if !mount.copiesImage { options.append("nocopy") }
    if !mount.propagation.isEmpty { options.append(mount.propagation) }
    let suffix = options.isEmpty ? "" : ":" + options.joined(separator: ",")
    return .string("\(mount.source):\(mount.target)\(suffix)")
  }

  private static func mount(_ mount: MountRequest) -> JSONValue {
    var members: [JSONValue.Member] = [.init("Type", .string(mount.kind.rawValue))]
    if !mount.source.isEmpty { members.append(.init("Source", .string(mount.source))) }
    members.append(.init("Target", .string(mount.target)))
    if mount.isReadOnly { members.append(.init("ReadOnly", true)) }
    return .object(members)
  }

  private static func general(_ container: ContainerRecord) -> [JSONValue.Member] {
    let asked = container.configuration
    let binds = asked.mounts.filter(isBind).map(bind)
    return [
      .init("Binds", binds.isEmpty ? .null : .array(binds)),
      .init("ContainerIDFile", ""),
      .init("LogConfig", ["Type": .string(asked.logDriver ?? "json-file"), "Config": .sorted(asked.logOptions)]),
      .init("NetworkMode", .string(asked.networkMode == "default" ? "bridge" : asked.networkMode)),
      .init("PortBindings", portBindings(asked.ports)),
      .init("RestartPolicy", restart(asked.restart)),
      .init("AutoRemove", .boolean(asked.removesItself)),
      .init("VolumeDriver", ""),
      .init("VolumesFrom", .stringsOrNull(asked.volumesFrom)),
      .init("ConsoleSize", [0, 0]),
      .init("CapAdd", .stringsOrNull(asked.addedCapabilities)),
      .init("CapDrop", .stringsOrNull(asked.droppedCapabilities)),
      .init("CgroupnsMode", .string(mode(asked.cgroupNamespaceMode, own: "private"))),
      .init("Dns", .strings(asked.dnsServers)),
      .init("DnsOptions", .strings(asked.dnsOptions)),
      .init("DnsSearch", .strings(asked.dnsSearch)),
      .init("ExtraHosts", .stringsOrNull(asked.extraHosts)),
      .init("GroupAdd", .stringsOrNull(asked.additionalGroups)),
      .init("IpcMode", .string(mode(asked.ipcMode, own: "private"))),
      .init("Cgroup", ""),
      .init("Links", .null),
      .init("OomScoreAdj", .int(asked.outOfMemoryScoreAdjustment)),
      .init("PidMode", .string(mode(asked.pidMode, own: ""))),
      .init("Privileged", .boolean(asked.isPrivileged)),
      .init("PublishAllPorts", .boolean(asked.publishesAllPorts)),
    ]
  }

  private static func security(_ asked: ContainerConfiguration) -> [JSONValue.Member] {
    [
      .init("ReadonlyRootfs", .boolean(asked.isRootReadOnly)),
      .init("SecurityOpt", .stringsOrNull(asked.securityOptions)),
      .init("UTSMode", .string(mode(asked.utsMode, own: ""))),
      .init("UsernsMode", ""),
      .init("ShmSize", .integer(asked.sharedMemorySize)),
      .init("Runtime", "engine"),
      .init("Isolation", ""),
    ]
  }

  private static func resources(_ limits: ResourceLimits, _ asked: ContainerConfiguration) -> [JSONValue.Member] {
    let swap = limits.memorySwap == 0 && limits.memory > 0 ? limits.memory * 2 : limits.memorySwap
    let ulimits = asked.resourceLimits.map { limit -> JSONValue in
      [
        "Name": .string(limit.name), "Hard": limit.hard == .max ? -1 : .int(limit.hard),
        "Soft": limit.soft == .max ? -1 : .int(limit.soft),
      ]
    }
    return [
      .init("CpuShares", .int(limits.cpuShares)),
      .init("Memory", .integer(limits.memory)),
      .init("NanoCpus", .integer(limits.nanoCPUs)),
      .init("CgroupParent", ""),
      .init("BlkioWeight", .int(limits.blkioWeight)),
      .init("BlkioWeightDevice", []),
      .init("BlkioDeviceReadBps", []),
      .init("BlkioDeviceWriteBps", []),
      .init("BlkioDeviceReadIOps", []),
      .init("BlkioDeviceWriteIOps", []),
      .init("CpuPeriod", .int(limits.cpuPeriod)),
      .init("CpuQuota", .integer(limits.cpuQuota)),
      .init("CpuRealtimePeriod", 0),
      .init("CpuRealtimeRuntime", 0),
      .init("CpusetCpus", .string(limits.cpusetCPUs)),
      .init("CpusetMems", .string(limits.cpusetMemoryNodes)),
      .init("Devices", []),
      .init("DeviceCgroupRules", .null),
      .init("DeviceRequests", .null),
      .init("MemoryReservation", .integer(limits.memoryReservation)),
      .init("MemorySwap", .integer(swap)),
      .init("MemorySwappiness", .null),
      .init("OomKillDisable", .boolean(limits.disablesOOMKill)),
      .init("PidsLimit", limits.pids == 0 ? .null : .integer(limits.pids)),
      .init("Ulimits", .array(ulimits)),
      .init("CpuCount", 0),
      .init("CpuPercent", 0),
      .init("IOMaximumIOps", 0),
      .init("IOMaximumBandwidth", 0),
    ]
  }

  private static func portBindings(_ ports: [PortBinding]) -> JSONValue {
    var bindings: [String: [JSONValue]] = [:]
    for port in ports {
      let range = port.hostPort == port.hostPortEnd ? "\(port.hostPort)" : "\(port.hostPort)-\(port.hostPortEnd)"
      bindings["\(port.containerPort)/\(port.transport.rawValue)", default: []].append([
        "HostIp": .string(port.hostAddress), "HostPort": .string(port.hostPort == 0 ? "" : range),
      ])
    }
    return .object(bindings.sorted { $0.key < $1.key }.map { .init($0.key, .array($0.value)) })
  }

  private static func restart(_ policy: ContainerConfiguration.Restart) -> JSONValue {
    switch policy {
    case .no: ["Name": "no", "MaximumRetryCount": 0]
    case .onFailure(let retries): ["Name": "on-failure", "MaximumRetryCount": .int(retries)]
    case .always: ["Name": "always", "MaximumRetryCount": 0]
    case .unlessStopped: ["Name": "unless-stopped", "MaximumRetryCount": 0]
    }
  }

  private static func mode(_ mode: ContainerConfiguration.NamespaceMode, own: String) -> String {
    switch mode {
    case .own: own
    case .host: "host"
    case .container(let name): "container:\(name)"
    case .shareable: "shareable"
    case .none: "none"
    }
  }

  private static let maskedPaths = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
  ]
  private static let readOnlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
}
