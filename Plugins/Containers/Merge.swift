import Contracts

/// What a container is once the image's defaults and the user's wishes are put together (Docker's rules).
struct MergedConfiguration: Sendable, Equatable {
  /// Entry point and command: what is executed.
  var arguments: [String]
  var environment: [String]
  var workingDirectory: String
  var user: String
  var exposedPorts: [String]
  /// With those of `--publish-all`.
  var ports: [PortBinding]
  var stopSignal: String
  var imageLabels: [String: String]
  /// Shallow targets first, so that a mount never hides one that lies beneath it.
  var mounts: [MountRequest]
  var warnings: [String] = []
}

enum Merge {
  /// - Parameter inherited: mounts of `--volumes-from`, already made concrete.
  /// - Throws: `invalidArgument` for what contradicts itself, `unsupported` for what this engine does not do.
  static func merge(
    _ user: ContainerConfiguration, image: ImageConfiguration.Execution, inherited: [MountRequest] = []
  ) throws(EngineError) -> MergedConfiguration {
    try Limits.validate(user)
    let exposed = try Ports.exposed(image: image, user: user)
    let mode = NetworkMode(user)
    var ports = user.ports
    if user.publishesAllPorts { ports += try Ports.published(exposed, except: ports) }
    var warnings: [String] = []
    switch mode {
    case .host where !ports.isEmpty || user.publishesAllPorts:
      // They stay in the configuration, where `inspect` shows them.
      warnings.append("Published ports are discarded when using host network mode")
    case .container: try mode.refuseConflicts(user)
    default: break
    }
    let directory = user.workingDirectory.isEmpty ? image.workingDirectory ?? "" : user.workingDirectory
    if !user.workingDirectory.isEmpty, !user.workingDirectory.hasPrefix("/") {
      throw EngineError(
        .invalidArgument, "the working directory '\(user.workingDirectory)' is invalid, it needs to be an absolute path"
      )
    }
    let stopSignal = user.stopSignal.isEmpty ? image.stopSignal ?? "" : user.stopSignal
    if !stopSignal.isEmpty { _ = try Signals.parse(stopSignal) }
    return MergedConfiguration(
      arguments: try arguments(user, image: image),
      environment: environment(user.environment, image: image.environment ?? []),
      workingDirectory: directory.isEmpty ? "/" : directory.hasPrefix("/") ? directory : "/\(directory)",
      user: user.user.isEmpty ? image.user ?? "" : user.user,
      exposedPorts: exposed, ports: ports, stopSignal: stopSignal, imageLabels: image.labels ?? [:],
      mounts: try mounts(user.mounts, inherited: inherited, image: image.volumes.map { Array($0.keys) } ?? []),
      warnings: warnings)
  }

  /// Setting an entry point clears the image's command; `--entrypoint ""` clears both.
  static func arguments(
    _ user: ContainerConfiguration, image: ImageConfiguration.Execution
  ) throws(EngineError) -> [String] {
    var arguments: [String]
    if let entrypoint = user.entrypoint {
      arguments = (entrypoint == [""] ? [] : entrypoint) + user.command
    } else {
      arguments = (image.entrypoint ?? []) + (user.command.isEmpty ? image.command ?? [] : user.command)
    }
    if arguments.first == "" && arguments.count == 1 { arguments = [] }
    guard !arguments.isEmpty else { throw EngineError(.invalidArgument, "No command specified") }
    return arguments
  }

  /// The user's variables, then the image's that the user did not name. `KEY` alone takes the image's away.
  static func environment(_ user: [String], image: [String]) -> [String] {
    var result: [String] = []
    var positions: [Substring: Int] = [:]
    for variable in user {
      let key = key(of: variable)
      if let position = positions[key] {
        result[position] = variable
      } else {
        positions[key] = result.count
        result.append(variable)
      }
    }
    for variable in image where positions[key(of: variable)] == nil { result.append(variable) }
    return result.filter { $0.contains("=") }
  }

  static func key(of variable: String) -> Substring { variable.prefix { $0 != "=" } }

  /// The user's mounts, then those of other containers, then anonymous volumes for the image's, each only where the
  /// target is not taken.
  static func mounts(
    _ user: [MountRequest], inherited: [MountRequest], image: [String]
  ) throws(EngineError) -> [MountRequest] {
    var result: [MountRequest] = []
    var targets: Set<String> = []
    for var mount in user {
      mount.target = try target(mount.target)
      guard targets.insert(mount.target).inserted else {
        throw EngineError(.invalidArgument, "Duplicate mount point: \(mount.target)")
      }
      result.append(mount)
    }
    for mount in inherited where targets.insert(mount.target).inserted { result.append(mount) }
    for path in image.sorted() {
      let target = try target(path)
      if targets.insert(target).inserted { result.append(MountRequest(kind: .volume, source: "", target: target)) }
    }
    let depths = result.map { $0.target.utf8.count { $0 == 47 } }
    return result.indices.sorted { (depths[$0], $0) < (depths[$1], $1) }.map { result[$0] }
  }

  /// A mount's target without `.`, `..` and doubled slashes.
  private static func target(_ path: String) throws(EngineError) -> String {
    guard path.hasPrefix("/") else {
      throw EngineError(.invalidArgument, "invalid mount path: '\(path)' mount path must be absolute")
    }
    var parts: [Substring] = []
    for part in path.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    guard !parts.isEmpty else {
      throw EngineError(.invalidArgument, "invalid volume specification: destination can't be '/'")
    }
    return "/" + parts.joined(separator: "/")
  }
}

/// What `--network` says, as far as the lifecycle treats it differently.
enum NetworkMode: Equatable {
  case attached
  case host
  case none
  /// By name or ID.
  case container(String)

  init(_ configuration: ContainerConfiguration) {
    let mode =
      configuration.networkMode == "default"
      ? configuration.networks.first?.network ?? "bridge" : configuration.networkMode
    switch mode {
    case "host": self = .host
    case "none": self = .none
    case _ where mode.hasPrefix("container:"): self = .container(String(mode.dropFirst(10)))
    default: self = .attached
    }
  }

  /// What the network plugins are asked for.
  static func endpoints(_ configuration: ContainerConfiguration) -> [EndpointRequest] {
    switch NetworkMode(configuration) {
    case .host: return [EndpointRequest(network: "host")]
    case .none: return [EndpointRequest(network: "none")]
    case .container: return []
    case .attached:
      if !configuration.networks.isEmpty {
        return configuration.networks.map {
          var endpoint = $0
          if endpoint.network == "default" { endpoint.network = "bridge" }
          return endpoint
        }
      }
      let mode = configuration.networkMode
      return [EndpointRequest(network: mode == "default" || mode.isEmpty ? "bridge" : mode)]
    }
  }

  /// What makes no sense in another container's network (Docker's words).
  func refuseConflicts(_ user: ContainerConfiguration) throws(EngineError) {
    func refuse(_ what: String) -> EngineError { EngineError(.invalidArgument, "conflicting options: \(what)") }
    if !user.hostname.isEmpty { throw refuse("hostname and the network mode") }
    if !user.dnsServers.isEmpty { throw refuse("dns and the network mode") }
    if !user.extraHosts.isEmpty { throw refuse("custom host-to-IP mapping and the network mode") }
    if user.networks.contains(where: { $0.hardwareAddress != nil }) { throw refuse("mac-address and the network mode") }
    if !user.ports.isEmpty || user.publishesAllPorts {
      throw refuse("port publishing and the container type network mode")
    }
    if !user.exposedPorts.isEmpty { throw refuse("port exposing and the container type network mode") }
  }
}

/// Ports that are exposed, and published because they are (`-P`).
enum Ports {
  /// Those of the image, of `--expose` and of `-p`, as `80/tcp`, without doubles, in numerical order.
  static func exposed(
    image: ImageConfiguration.Execution, user: ContainerConfiguration
  ) throws(EngineError) -> [String] {
    var found: Set<Key> = []
    for text in (image.exposedPorts.map { Array($0.keys) } ?? []) + user.exposedPorts {
      for key in try parse(text) { found.insert(key) }
    }
    for port in user.ports { found.insert(Key(port: port.containerPort, transport: port.transport.rawValue)) }
    return found.sorted().map(\.description)
  }

  /// A free host port for every exposed one that is not published already.
  static func published(_ exposed: [String], except ports: [PortBinding]) throws(EngineError) -> [PortBinding] {
    var result: [PortBinding] = []
    for text in exposed {
      for key in try parse(text) {
        guard let transport = TransportProtocol(rawValue: key.transport) else { continue }
        if ports.contains(where: { $0.containerPort == key.port && $0.transport == transport }) { continue }
        result.append(PortBinding(transport: transport, hostAddress: "", hostPort: 0, containerPort: key.port))
      }
    }
    return result
  }

  private struct Key: Hashable, Comparable, CustomStringConvertible {
    var port: UInt16
    var transport: String
    var description: String { "\(port)/\(transport)" }
    static func < (left: Key, right: Key) -> Bool {
      (left.port, left.transport) < (right.port, right.transport)
    }
  }

  /// `80`, `80/udp`, `8000-8010/tcp`.
  private static func parse(_ text: String) throws(EngineError) -> [Key] {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let transport = parts.count == 2 ? parts[1].lowercased() : "tcp"
    let bounds = parts[0].split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map { UInt16($0) }
    guard ["tcp", "udp", "sctp"].contains(transport), let first = bounds.first, let first, let last = bounds.last,
      let last, first > 0, first <= last
    else { throw EngineError(.invalidArgument, "invalid range format for --expose: \(text)") }
    return (first...last).map { Key(port: $0, transport: transport) }
  }
}

/// What can be refused before anything is made.
enum Limits {
  static func validate(_ user: ContainerConfiguration) throws(EngineError) {
    func refuse(_ text: String) -> EngineError { EngineError(.invalidArgument, text) }
    if user.restart != .no, user.removesItself {
      throw refuse("can't create 'AutoRemove' container with restart policy")
    }
    if case .onFailure(let retries) = user.restart, retries < 0 {
      throw refuse("invalid restart policy: maximum retry count cannot be negative")
    }
    let limits = user.limits
    if limits.memory > 0, limits.memory < 6 << 20 { throw refuse("Minimum memory limit allowed is 6MB") }
    if limits.memorySwap > 0, limits.memory == 0 {
      throw refuse("You should always set the Memory limit when using Memoryswap limit, see usage")
    }
    if limits.memorySwap > 0, limits.memorySwap < limits.memory {
      throw refuse("Minimum memoryswap limit should be larger than memory limit, see usage")
    }
    if limits.memoryReservation > 0, limits.memory > 0, limits.memory < limits.memoryReservation {
      throw refuse("Minimum memory limit can not be less than memory reservation limit, see usage")
    }
    if limits.nanoCPUs > 0, limits.cpuPeriod > 0 {
      throw refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
    }
    if limits.nanoCPUs > 0, limits.cpuQuota > 0 {
      throw refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    }
    if user.sharedMemorySize < 0 { throw refuse("SHM size can not be less than 0") }
    if !(-1000...1000).contains(user.outOfMemoryScoreAdjustment) {
      throw refuse(
        "Invalid value \(user.outOfMemoryScoreAdjustment), range for oom score adj is [-1000, 1000]")
    }
    if user.utsMode == .host, !user.hostname.isEmpty {
      throw refuse("conflicting options: hostname and the UTS mode")
    }
    if user.hostname.utf8.count > 64 { throw refuse("invalid hostname: \(user.hostname): longer than 64 bytes") }
    if let bad = user.hostname.utf8.first(where: { $0 <= 32 || $0 == 47 || $0 >= 127 }) {
      throw refuse("invalid hostname: \"\(user.hostname)\" has the byte \(bad)")
    }
    if let timeout = user.stopTimeout, timeout < -1 { throw refuse("invalid stop timeout: \(timeout)") }
    for variable in user.environment where variable.isEmpty || variable.hasPrefix("=") {
      throw refuse("invalid environment variable: \(variable)")
    }
    for host in user.extraHosts { _ = try GeneratedFiles.ExtraHost(host) }
    for server in user.dnsServers where !GeneratedFiles.isAddress(server) {
      throw refuse("\(server) is not an ip address")
    }
    _ = try Capabilities.resolve(
      added: user.addedCapabilities, dropped: user.droppedCapabilities, isPrivileged: user.isPrivileged)
    _ = try SecurityOptions(user.securityOptions)
    try SystemControls.validate(user)
  }
}
