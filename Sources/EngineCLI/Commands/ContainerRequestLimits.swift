import Contracts

/// The flags of resources and of networks.
extension ContainerRequest {
  static let minimumMemory: Int64 = 6 << 20

  mutating func readResources(_ options: Options, _ surroundings: Surroundings) throws(EngineError) {
    func size(_ name: String) throws(EngineError) -> Int64 {
      guard let text = options.string(name) else { return 0 }
      return try ByteSize(parsing: text).bytes
    }
    func unsigned(_ name: String) throws(EngineError) -> UInt64 {
      guard let text = options.string(name) else { return 0 }
      do { return try Integer.parse(text, as: UInt64.self) } catch {
        throw EngineError(.invalidArgument, "invalid --\(name) \(text): it cannot be negative")
      }
    }
    var limits = ResourceLimits()
    if let text = options.string("cpus") {
      let cpus = try CPUCount(parsing: text)
      try cpus.check(available: surroundings.availableCPUs())
      limits.nanoCPUs = cpus.billionths
    }
    limits.cpuPeriod = try unsigned("cpu-period")
    limits.cpuQuota = Int64(options.integer("cpu-quota") ?? 0)
    limits.cpuShares = try unsigned("cpu-shares")
    if limits.nanoCPUs > 0, limits.cpuPeriod != 0 || limits.cpuQuota != 0 {
      let other = limits.cpuPeriod != 0 ? "Period" : "Quota"
      throw EngineError(
        .invalidArgument, "Conflicting options: Nano CPUs and CPU \(other) cannot both be set")
    }
    guard limits.cpuPeriod == 0 || (1000...1_000_000).contains(limits.cpuPeriod) else {
      throw EngineError(
        .invalidArgument, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    }
    guard limits.cpuQuota <= 0 || limits.cpuQuota >= 1000 else {
      throw EngineError(.invalidArgument, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
    }
    limits.cpusetCPUs = options.string("cpuset-cpus") ?? ""
    limits.cpusetMemoryNodes = options.string("cpuset-mems") ?? ""
    try readMemory(options, &limits, size)
    limits.pids = Int64(options.integer("pids-limit") ?? 0)
    if let text = options.string("blkio-weight") {
      limits.blkioWeight = try Integer.parse(text, as: UInt16.self)
      guard limits.blkioWeight == 0 || (10...1000).contains(limits.blkioWeight) else {
        throw EngineError(.invalidArgument, "Range of blkio weight is from 10 to 1000")
      }
    }
    limits.disablesOOMKill = options.boolean("oom-kill-disable")
    if limits.disablesOOMKill, limits.memory == 0 {
      warnings.append(
        "Disabling the OOM killer on containers without setting a '-m/--memory' limit may be dangerous.")
    }
    configuration.limits = limits
    let adjustment = options.integer("oom-score-adj") ?? 0
    guard (-1000...1000).contains(adjustment) else {
      throw EngineError(
        .invalidArgument, "Invalid value \(adjustment), range for oom score adj is [-1000, 1000]")
    }
    configuration.outOfMemoryScoreAdjustment = adjustment
    for text in options.list("ulimit") {
      let limit = try Ulimit.parse(text)
      configuration.resourceLimits.removeAll { $0.name == limit.name }
      configuration.resourceLimits.append(limit)
    }
    if options.isSet("shm-size") {
      let size = try size("shm-size")
      guard size > 0 else { throw EngineError(.invalidArgument, "SHM size can not be less than 0") }
      configuration.sharedMemorySize = size
    }
  }

  private mutating func readMemory(
    _ options: Options, _ limits: inout ResourceLimits, _ size: (String) throws(EngineError) -> Int64
  ) throws(EngineError) {
    limits.memory = try size("memory")
    limits.memoryReservation = try size("memory-reservation")
    if let text = options.string("memory-swap") { limits.memorySwap = try ByteSize.parseAllowingUnlimited(text) }
    guard limits.memory == 0 || limits.memory >= Self.minimumMemory else {
      throw EngineError(.invalidArgument, "Minimum memory limit allowed is 6MB")
    }
    guard isUpdate || limits.memorySwap <= 0 || limits.memory > 0 else {
      throw EngineError(
        .invalidArgument, "You should always set the Memory limit when using Memoryswap limit, see usage")
    }
    guard limits.memorySwap <= 0 || limits.memorySwap >= limits.memory else {
      throw EngineError(
        .invalidArgument, "Minimum memoryswap limit should be larger than memory limit, see usage")
    }
    guard limits.memoryReservation == 0 || limits.memoryReservation >= Self.minimumMemory else {
      throw EngineError(.invalidArgument, "Minimum memory reservation allowed is 6MB")
    }
    guard limits.memory == 0 || limits.memoryReservation <= limits.memory else {
      throw EngineError(
        .invalidArgument, "Minimum memory limit can not be less than memory reservation limit, see usage")
    }
    if options.isSet("kernel-memory") {
      warnings.append("Specifying a kernel memory limit is deprecated and has no effect.")
    }
  }

  mutating func readNetwork(_ options: Options) throws(EngineError) {
    for text in options.list("network") {
      let request = try NetworkSpecification.parse(text)
      guard !request.network.isEmpty else { throw EngineError(.invalidArgument, "no name set for network") }
      configuration.networks.append(request)
    }
    configuration.networkMode = configuration.networks.first?.network ?? "default"
    try readEndpoint(options)
    for text in options.list("publish") { configuration.ports += try PortSpecification.parse(text) }
    for text in options.list("expose") {
      for port in try PortSpecification.parseExposed(text) where !configuration.exposedPorts.contains(port) {
        configuration.exposedPorts.append(port)
      }
    }
    configuration.publishesAllPorts = options.boolean("publish-all")
    configuration.hostname = options.string("hostname") ?? ""
    guard Self.isHostname(configuration.hostname) else {
      throw EngineError(.invalidArgument, "invalid hostname format: \(configuration.hostname)")
    }
    configuration.domainname = options.string("domainname") ?? ""
    for text in options.list("add-host") {
      configuration.extraHosts.append(try NetworkSpecification.extraHost(text))
    }
    configuration.dnsServers = options.list("dns")
    configuration.dnsSearch = options.list("dns-search")
    configuration.dnsOptions = options.list("dns-option")
    try checkNetworkMode(options)
  }

  /// `--network-alias`, `--ip` and `--mac-address` mean the first network.
  private mutating func readEndpoint(_ options: Options) throws(EngineError) {
    let aliases = options.list("network-alias")
    let address = options.string("ip")
    let hardwareAddress = options.string("mac-address")
    guard !aliases.isEmpty || address != nil || hardwareAddress != nil else { return }
    if configuration.networks.isEmpty { configuration.networks.append(EndpointRequest(network: "bridge")) }
    configuration.networks[0].aliases += aliases
    if let address { configuration.networks[0].address = try NetworkSpecification.address(address) }
    if let hardwareAddress {
      configuration.networks[0].hardwareAddress = try NetworkSpecification.hardwareAddress(hardwareAddress)
    }
  }

  private mutating func checkNetworkMode(_ options: Options) throws(EngineError) {
    let mode = configuration.networkMode
    guard mode.hasPrefix("container:") else { return }
    let conflicts: [(Bool, String)] = [
      (!configuration.hostname.isEmpty, "hostname and the network mode"),
      (!configuration.dnsServers.isEmpty, "dns and the network mode"),
      (!configuration.extraHosts.isEmpty, "custom host-to-IP mapping and the network mode"),
      (
        !configuration.ports.isEmpty || configuration.publishesAllPorts,
        "port publishing and the container type network mode"
      ),
      (!options.list("expose").isEmpty, "port exposing and the container type network mode"),
    ]
    if let conflict = conflicts.first(where: \.0) {
      throw EngineError(.invalidArgument, "conflicting options: \(conflict.1)")
    }
  }

  private static func isHostname(_ text: String) -> Bool {
    text.utf8.count <= 64 && text.first != "-"
      && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-._".contains($0)) }
  }
}
