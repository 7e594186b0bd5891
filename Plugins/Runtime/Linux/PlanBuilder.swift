import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import ShimProtocol

/// Turns the runtime's messages into what a shim takes.
struct PlanBuilder: Sendable {
  let instance: Instance
  let filters: SeccompFilters
  /// The host's cgroup hierarchies, read once.
  let cgroupMounts: [PairPlan]

  init(instance: Instance, filters: SeccompFilters) {
    self.instance = instance
    self.filters = filters
    cgroupMounts = Self.hierarchies((try? Files.readText("/proc/self/mountinfo")) ?? "")
  }

  /// A plan with the descriptors that travel beside it.
  struct Creation {
    var plan: StartPlan
    var descriptors: [Descriptor]
    /// The writing end of the plan's gate.
    var gate: Descriptor
    /// The files that were written, by their path in the container.
    var files: [String: String] = [:]
  }

  func create(
    _ request: RuntimeCreate, directory: ContainerDirectory, client: Descriptor?
  ) throws(EngineError) -> Creation {
    let specification = request.specification
    var plan = StartPlan()
    plan.process = try process(specification.process, specification.seccomp, specification.isPrivileged)
    plan.streams = try streams(request.streams, client: client)
    plan.hostname = specification.hostname
    plan.domainname = specification.domainname
    for kind in RuntimeSpecification.Namespace.allCases where kind != .network {
      let flag = KernelNames.flag(kind)
      switch specification.namespaces[kind] ?? .fresh {
      case .fresh: plan.freshNamespaces |= flag
      case .host: plan.otherNamespaces.append(NamespacePlan(kind: flag, process: 0))
      case .process(let pid): plan.otherNamespaces.append(NamespacePlan(kind: flag, process: pid))
      }
    }
    guard specification.namespaces[.mount] ?? .fresh == .fresh else {
      throw EngineError(.unsupported, "a container always has a mount namespace of its own")
    }
    if request.networkNamespace == nil {
      switch specification.namespaces[.network] ?? .fresh {
      case .fresh: plan.freshNamespaces |= KernelNames.flag(.network)
      case .host: break
      case .process(let pid):
        plan.otherNamespaces.append(NamespacePlan(kind: KernelNames.flag(.network), process: pid))
      }
    }
    plan.hasNetwork = request.networkNamespace != nil
    plan.hasUnifiedCgroup = request.unifiedCgroup != nil
    plan.cgroupEntryCount = UInt16(truncatingIfNeeded: request.cgroupEntries.count)
    plan.maskedPaths = specification.maskedPaths
    plan.readOnlyPaths = specification.readOnlyPaths
    plan.systemControls = specification.systemControls.sorted { $0.key < $1.key }.map { PairPlan($0.key, $0.value) }
    plan.cgroupMounts = cgroupMounts
    plan.sharedMemorySize = UInt64(max(0, specification.sharedMemorySize))
    plan.hasSharedMemory = specification.hasSharedMemory
    plan.isRootReadOnly = specification.isRootReadOnly
    plan.isPrivileged = specification.isPrivileged
    plan.usesInit = specification.usesInit
    plan.logPath = request.logPath
    plan.logMaximumSize = UInt64(max(0, request.logMaximumSize))
    plan.logMaximumFiles = UInt32(max(1, request.logMaximumFiles))
    plan.directory = directory.path
    plan.daemonPath = instance.daemonPath
    plan.daemonRoot = instance.root

    var gate: [Int32] = [-1, -1]
    guard pipe2(&gate, O_CLOEXEC) == 0 else {
      throw EngineError(.internalFailure, "the container's gate cannot be made: pipe2: \(SystemCallError.text(errno))")
    }
    let opening = Descriptor(adopting: gate[1])
    var descriptors = [request.root, Descriptor(adopting: gate[0])]
    if let network = request.networkNamespace { descriptors.append(network) }
    if let unified = request.unifiedCgroup { descriptors.append(unified) }
    descriptors += clientDescriptors(request.streams, client: client)
    descriptors += request.cgroupEntries
    var files: [String: String] = [:]
    for (index, file) in specification.generatedFiles.sorted(by: { $0.key < $1.key }).enumerated() {
      plan.mounts.append(MountPlan(target: file.key, isDirectory: false))
      files[file.key] = "\(directory.path)/file-\(index)"
      do {
        descriptors.append(try directory.write("file-\(index)", file.value))
      } catch {
        throw EngineError(.internalFailure, "the container's \(file.key) cannot be written: \(error)")
      }
    }
    for mount in request.mounts {
      plan.mounts.append(MountPlan(target: mount.point.target, isDirectory: mount.isDirectory))
      descriptors.append(mount.mount)
    }
    guard descriptors.count <= 250 else {
      throw EngineError(.invalidArgument, "the container has \(descriptors.count) mounts; 250 is the limit")
    }
    return Creation(plan: plan, descriptors: descriptors, gate: opening, files: files)
  }

  func exec(
    _ request: RuntimeExec, client: Descriptor?
  ) throws(EngineError) -> (plan: ExecPlan, descriptors: [Descriptor]) {
    var plan = ExecPlan()
    plan.name = request.exec.text
    plan.process = try process(request.process, request.seccomp, false)
    plan.streams = try streams(request.streams, client: client)
    return (plan, clientDescriptors(request.streams, client: client))
  }

  func streams(_ streams: StandardStreams, client: Descriptor?) throws(EngineError) -> StreamPlan {
    var plan = StreamPlan()
    plan.hasInput = streams.input != nil
    plan.hasOutput = streams.output != nil
    plan.hasError = streams.error != nil
    plan.hasClient = client != nil
    plan.keepsInputOpen = streams.keepsInputOpen
    plan.detachKeys = try KernelNames.detachKeys(streams.detachKeys)
    plan.rows = streams.rows
    plan.columns = streams.columns
    plan.client = streams.client
    return plan
  }

  func clientDescriptors(_ streams: StandardStreams, client: Descriptor?) -> [Descriptor] {
    [streams.input, streams.output, streams.error, client].compactMap { $0 }
  }

  private func process(
    _ process: RuntimeSpecification.Process, _ seccomp: RuntimeSpecification.SeccompPolicy, _ isPrivileged: Bool
  ) throws(EngineError) -> ProcessPlan {
    var plan = ProcessPlan()
    plan.arguments = process.arguments
    plan.environment = process.environment
    plan.workingDirectory = process.workingDirectory.isEmpty ? "/" : process.workingDirectory
    guard plan.workingDirectory.hasPrefix("/") else {
      throw EngineError(
        .invalidArgument, "the working directory '\(plan.workingDirectory)' is invalid, it needs to be an absolute path"
      )
    }
    let texts = process.arguments + process.environment + [plan.workingDirectory, process.user]
    guard !texts.contains(where: { $0.utf8.contains(0) }) else {
      throw EngineError(.invalidArgument, "an argument or a variable of the container contains a null byte")
    }
    plan.user = process.user
    plan.additionalGroups = process.additionalGroups
    plan.capabilities = try KernelNames.capabilityMask(process.capabilities)
    plan.noNewPrivileges = process.noNewPrivileges
    for limit in process.resourceLimits {
      plan.limits.append(
        ProcessPlan.Limit(resource: try KernelNames.limit(limit.name), soft: limit.soft, hard: limit.hard))
    }
    if let score = process.outOfMemoryScoreAdjustment {
      plan.setsScore = true
      plan.score = Int32(clamping: score)
    }
    plan.terminal = process.terminal
    plan.seccomp = try filters.program(seccomp, capabilities: plan.capabilities, isPrivileged: isPrivileged)
    return plan
  }

  /// What a container sees beneath /sys/fs/cgroup: the host's own hierarchies (proc(5), mountinfo).
  static func hierarchies(_ mountInformation: String) -> [PairPlan] {
    var found: [PairPlan] = []
    for line in mountInformation.split(separator: "\n") {
      let halves = line.split(separator: " ", omittingEmptySubsequences: false)
      guard let dash = halves.firstIndex(of: "-"), halves.count > dash + 3, halves.count > 4 else { continue }
      let point = halves[4]
      let type = halves[dash + 1]
      if type == "cgroup2" && point == "/sys/fs/cgroup" { return [PairPlan("", "")] }
      guard point.hasPrefix("/sys/fs/cgroup/"), !point.contains("\\") else { continue }
      let name = String(point.dropFirst("/sys/fs/cgroup/".count))
      guard !name.contains("/"), !found.contains(where: { $0.key == name }) else { continue }
      if type == "cgroup2" { found.append(PairPlan(name, "")) }
      if type == "cgroup" {
        let options = halves[dash + 3].split(separator: ",").filter {
          !["rw", "ro", "xattr", "clone_children"].contains($0) && !$0.hasPrefix("release_agent=")
        }
        found.append(PairPlan(name, options.joined(separator: ",")))
      }
    }
    return found
  }
}
