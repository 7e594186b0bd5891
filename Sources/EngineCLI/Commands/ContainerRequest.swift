import Contracts
import Glibc
import LinuxSystem
import Wire

/// What the flags of `run` and `create` ask for, as the engine takes it.
struct ContainerRequest {
  var name: String?
  var configuration: ContainerConfiguration
  /// What to tell the user beside the engine's own warnings.
  var warnings: [String] = []
  /// What is not named stays as it is, so that no limit can be missing for another one.
  var isUpdate = false

  /// What the flags are read beside: the client's own surroundings.
  struct Surroundings {
    var environment: (String) -> String?
    /// Both cost system calls, which few requests need.
    var currentDirectory: () -> String
    var availableCPUs: () -> Int
    var readFile: (String) throws(EngineError) -> [UInt8]

    static var real: Surroundings {
      Surroundings(
        environment: { name in getenv(name).map { String(cString: $0) } },
        currentDirectory: { WorkingDirectory.current },
        availableCPUs: { sysconf(Int32(_SC_NPROCESSORS_ONLN)) },
        readFile: HostFile.read)
    }
  }

  /// - Throws: `invalidArgument` in Docker's words, where Docker has words.
  init(options: Options, arguments: [String], surroundings: Surroundings = .real) throws(EngineError) {
    name = options.string("name").flatMap { $0.isEmpty ? nil : $0 }
    if let name { try ObjectName.checkContainer(name) }
    let image = arguments.first ?? ""
    if !Self.isImageID(image) { _ = try ImageReference(parsing: image) }
    configuration = ContainerConfiguration(image: image)
    configuration.command = Array(arguments.dropFirst())
    try readProcess(options, surroundings)
    try readLabels(options, surroundings)
    try readResources(options, surroundings)
    try readStorage(options, surroundings)
    try readNetwork(options)
    try readSecurity(options, surroundings)
    try readPolicies(options)
  }

  /// The limits of `update`.
  init(updating options: Options, surroundings: Surroundings = .real) throws(EngineError) {
    configuration = ContainerConfiguration(image: "")
    isUpdate = true
    try readResources(options, surroundings)
  }

  /// A digest or a (part of a) hexadecimal ID cannot be told from a name; only the long form has its own grammar.
  static func isImageID(_ text: String) -> Bool { Digest(text) != nil || Digest(hex: text) != nil }

  private mutating func readProcess(_ options: Options, _ surroundings: Surroundings) throws(EngineError) {
    configuration.hasTerminal = options.boolean("tty")
    configuration.keepsInputOpen = options.boolean("interactive")
    var environment: [String] = []
    for path in options.list("env-file") {
      environment += try KeyValues.parseFile(
        try surroundings.readFile(path), path: path, environment: surroundings.environment)
    }
    environment += KeyValues.resolve(options.list("env"), from: surroundings.environment)
    configuration.environment = environment
    configuration.entrypoint = options.string("entrypoint").map { $0.isEmpty ? [] : [$0] }
    configuration.workingDirectory = options.string("workdir") ?? ""
    guard configuration.workingDirectory.isEmpty || configuration.workingDirectory.hasPrefix("/") else {
      throw EngineError(
        .invalidArgument,
        "the working directory '\(configuration.workingDirectory)' is invalid, it needs to be an absolute path")
    }
    configuration.user = options.string("user") ?? ""
    configuration.additionalGroups = options.list("group-add")
    configuration.usesInit = options.boolean("init")
    configuration.stopSignal = options.string("stop-signal") ?? ""
    configuration.stopTimeout = options.integer("stop-timeout")
    configuration.pidMode = try Self.namespace(options.string("pid"), refusal: "--pid: invalid PID mode")
    switch options.string("ipc") {
    case "shareable": configuration.ipcMode = .shareable
    case "none": configuration.ipcMode = .none
    case let text:
      configuration.ipcMode = try Self.namespace(text, own: ["private"], refusal: "--ipc: invalid IPC mode")
    }
    configuration.utsMode = try Self.namespace(
      options.string("uts"), joinable: false, refusal: "--uts: invalid UTS mode")
    configuration.cgroupNamespaceMode = try Self.namespace(
      options.string("cgroupns"), own: ["private"], joinable: false, refusal: "--cgroupns: invalid CGROUP mode")
    attach(options)
  }

  /// Without `-a`, a foreground container's output and, with `-i`, input are attached.
  private mutating func attach(_ options: Options) {
    let named = options.list("attach").map { $0.lowercased() }
    let isDetached = options.boolean("detach")
    let isDefault = named.isEmpty && !isDetached
    configuration.attachesOutput = isDefault || named.contains("stdout")
    configuration.attachesError = isDefault || named.contains("stderr")
    configuration.attachesInput = (isDefault && configuration.keepsInputOpen) || named.contains("stdin")
  }

  private static func namespace(
    _ text: String?, own: [String] = [], joinable: Bool = true, refusal: String
  ) throws(EngineError) -> ContainerConfiguration.NamespaceMode {
    switch text {
    case nil, "": return .own
    case let text? where own.contains(text): return .own
    case "host": return .host
    case let text? where joinable && text.hasPrefix("container:") && text.utf8.count > 10:
      return .container(String(text.dropFirst(10)))
    default: throw EngineError(.invalidArgument, refusal)
    }
  }

  private mutating func readLabels(_ options: Options, _ surroundings: Surroundings) throws(EngineError) {
    var texts: [String] = []
    for path in options.list("label-file") {
      texts += try KeyValues.parseFile(try surroundings.readFile(path), path: path, environment: nil)
    }
    configuration.labels = KeyValues.dictionary(texts + options.list("label"))
  }

  private mutating func readStorage(_ options: Options, _ surroundings: Surroundings) throws(EngineError) {
    let driver = options.string("volume-driver")
    for text in options.list("volume") {
      var mount = try VolumeSpecification.parse(text, currentDirectory: surroundings.currentDirectory())
      if mount.kind == .volume, let driver { mount.driver = driver }
      configuration.mounts.append(mount)
    }
    for text in options.list("mount") { configuration.mounts.append(try MountSpecification.parse(text)) }
    for text in options.list("tmpfs") { configuration.mounts.append(try TmpfsSpecification.parse(text)) }
    var targets: Set<String> = []
    for mount in configuration.mounts where !targets.insert(HostPath.normalized(mount.target)).inserted {
      throw EngineError(.invalidArgument, "Duplicate mount point: \(mount.target)")
    }
    configuration.volumesFrom = options.list("volumes-from")
    configuration.isRootReadOnly = options.boolean("read-only")
  }

  private mutating func readSecurity(_ options: Options, _ surroundings: Surroundings) throws(EngineError) {
    configuration.isPrivileged = options.boolean("privileged")
    configuration.addedCapabilities = options.list("cap-add")
    configuration.droppedCapabilities = options.list("cap-drop")
    configuration.systemControls = KeyValues.dictionary(options.list("sysctl"))
    for option in options.list("security-opt") {
      let separator = option.firstIndex(of: "=") ?? option.firstIndex(of: ":")
      guard let separator else {
        guard option == "no-new-privileges" else {
          throw EngineError(.invalidArgument, "Invalid --security-opt: \"\(option)\"")
        }
        configuration.securityOptions.append(option)
        continue
      }
      let (key, value) = (String(option[..<separator]), String(option[option.index(after: separator)...]))
      guard key == "seccomp", value != "unconfined", value != "builtin" else {
        configuration.securityOptions.append("\(key)=\(value)")
        continue
      }
      configuration.securityOptions.append("seccomp=\(try Self.profile(value, surroundings))")
    }
  }

  /// A seccomp profile's text without the blanks between its words, as Docker sends it.
  private static func profile(_ path: String, _ surroundings: Surroundings) throws(EngineError) -> String {
    let bytes: [UInt8]
    do {
      bytes = try surroundings.readFile(path)
    } catch {
      throw EngineError(.invalidArgument, "opening seccomp profile (\(path)) failed: \(error.message)")
    }
    do {
      return try JSON.write(try JSON.parse(bytes))
    } catch {
      throw EngineError(.invalidArgument, "compacting json for seccomp profile (\(path)) failed: \(error.message)")
    }
  }

  private mutating func readPolicies(_ options: Options) throws(EngineError) {
    configuration.removesItself = options.boolean("rm")
    configuration.restart = try RestartPolicy.parse(options.string("restart") ?? "")
    guard configuration.restart == .no || !configuration.removesItself else {
      throw EngineError(.invalidArgument, "conflicting options: cannot specify both --restart and --rm")
    }
    configuration.logDriver = options.string("log-driver")
    configuration.logOptions = KeyValues.dictionary(options.list("log-opt"))
    let pull = options.string("pull") ?? "missing"
    guard ["missing", "never", "always", ""].contains(pull) else {
      throw EngineError(
        .invalidArgument,
        "invalid pull option: '\(pull)': must be one of \"always\", \"missing\" or \"never\"")
    }
    if let platform = options.string("platform"), !platform.isEmpty {
      _ = try ImagePlatform(parsing: platform, host: .host)
      configuration.platform = platform
    }
  }
}
