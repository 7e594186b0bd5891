import Contracts

/// Builds what the runtime gets from a container's record.
enum SpecificationBuilder {
  static let defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

  /// Docker's: what a process in a container must not read.
  static let maskedPaths = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
  ]
  /// Docker's: what it must not write.
  static let readOnlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

  /// The namespaces that are not the container's own.
  struct Shared: Sendable {
    var namespaces: [RuntimeSpecification.Namespace: RuntimeSpecification.NamespaceSource] = [:]
    /// The container whose network, and so whose names, this one shares.
    var network: ContainerRecord?
  }

  static func build(_ record: ContainerRecord, shared: Shared) throws(EngineError) -> RuntimeSpecification {
    let configuration = record.configuration
    let security = try SecurityOptions(configuration.securityOptions)
    var specification = RuntimeSpecification(
      process: try process(record, security: security), hostname: configuration.hostname)
    specification.domainname = configuration.domainname
    specification.isRootReadOnly = configuration.isRootReadOnly
    specification.namespaces = shared.namespaces
    if !configuration.isPrivileged && !security.unmasksPaths {
      specification.maskedPaths = maskedPaths
      specification.readOnlyPaths = readOnlyPaths
    }
    specification.seccomp = configuration.isPrivileged ? .unconfined : security.seccomp
    specification.systemControls = configuration.systemControls
    specification.sharedMemorySize = configuration.sharedMemorySize
    specification.hasSharedMemory = configuration.ipcMode != .none
    specification.isPrivileged = configuration.isPrivileged
    specification.usesInit = configuration.usesInit
    // A container in another one's network has that one's names and resolver.
    var files = GeneratedFiles.make(shared.network?.configuration ?? configuration)
    // The user's own mount at the same place wins.
    for mount in record.mounts { files[mount.target] = nil }
    specification.generatedFiles = files
    return specification
  }

  /// What the generated files hold that were empty in the specification, now that the container has its addresses.
  static func files(
    _ record: ContainerRecord, endpoints: [Endpoint], shared: Shared
  ) throws(EngineError) -> [String: String] {
    if record.mounts.contains(where: { $0.target == GeneratedFiles.hostsPath }) { return [:] }
    let names = shared.network ?? record
    let text = try GeneratedFiles.hosts(
      of: names.configuration, endpoints: shared.network?.endpoints ?? endpoints)
    return [GeneratedFiles.hostsPath: text]
  }

  private static func process(
    _ record: ContainerRecord, security: SecurityOptions
  ) throws(EngineError) -> RuntimeSpecification.Process {
    let configuration = record.configuration
    var process = RuntimeSpecification.Process(arguments: [record.path] + record.arguments)
    process.terminal = configuration.hasTerminal
    process.user = record.user
    process.additionalGroups = configuration.additionalGroups
    process.environment = environment(record, hasTerminal: configuration.hasTerminal)
    process.workingDirectory = record.workingDirectory
    process.capabilities = try Capabilities.resolve(
      added: configuration.addedCapabilities, dropped: configuration.droppedCapabilities,
      isPrivileged: configuration.isPrivileged)
    process.noNewPrivileges = security.noNewPrivileges
    process.resourceLimits = configuration.resourceLimits
    if configuration.outOfMemoryScoreAdjustment != 0 {
      process.outOfMemoryScoreAdjustment = configuration.outOfMemoryScoreAdjustment
    }
    return process
  }

  /// The engine's own variables, each unless the image or the user set or removed it, then the container's, then
  /// `more`. HOME is the runtime's, which knows the user.
  static func environment(_ record: ContainerRecord, hasTerminal: Bool, more: [String] = []) -> [String] {
    var own = [defaultPath, "HOSTNAME=\(record.configuration.hostname)"]
    if hasTerminal { own.append("TERM=xterm") }
    let removed = record.configuration.environment.filter { !$0.contains("=") }
    let container = Merge.environment(record.environment + removed, image: own)
    // The engine's own stand first, as Docker prints them.
    let ordered =
      container.filter { variable in own.contains(variable) }
      + container.filter { variable in !own.contains(variable) }
    return more.isEmpty ? ordered : replaced(ordered, by: more)
  }

  private static func replaced(_ base: [String], by more: [String]) -> [String] {
    let keys = Set(more.map(Merge.key(of:)))
    return base.filter { !keys.contains(Merge.key(of: $0)) } + Merge.environment(more, image: [])
  }

  /// What `exec` runs: the container's environment, directory, user and capabilities unless told otherwise.
  static func execution(
    _ request: ContainerExec, in record: ContainerRecord
  ) throws(EngineError) -> (process: RuntimeSpecification.Process, seccomp: RuntimeSpecification.SeccompPolicy) {
    guard request.command.first?.isEmpty == false else {
      throw EngineError(.invalidArgument, "No exec command specified")
    }
    if !request.workingDirectory.isEmpty, !request.workingDirectory.hasPrefix("/") {
      throw EngineError(
        .invalidArgument,
        "the working directory '\(request.workingDirectory)' is invalid, it needs to be an absolute path")
    }
    let configuration = record.configuration
    let security = try SecurityOptions(configuration.securityOptions)
    var process = RuntimeSpecification.Process(arguments: request.command)
    process.terminal = request.hasTerminal
    process.user = request.user.isEmpty ? record.user : request.user
    if request.user.isEmpty { process.additionalGroups = configuration.additionalGroups }
    process.environment = environment(record, hasTerminal: request.hasTerminal, more: request.environment)
    process.workingDirectory = request.workingDirectory.isEmpty ? record.workingDirectory : request.workingDirectory
    let isPrivileged = request.isPrivileged || configuration.isPrivileged
    process.capabilities = try Capabilities.resolve(
      added: configuration.addedCapabilities, dropped: configuration.droppedCapabilities, isPrivileged: isPrivileged)
    process.noNewPrivileges = security.noNewPrivileges
    process.resourceLimits = configuration.resourceLimits
    return (process, isPrivileged ? .unconfined : security.seccomp)
  }
}
