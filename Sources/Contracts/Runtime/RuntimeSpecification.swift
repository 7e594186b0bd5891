/// What a container is, for the runtime: the part of the OCI runtime specification (config.md, config-linux.md) that
/// the engine uses, as a typed value. Names are Swift's; the meaning of each field is the specification's.
public struct RuntimeSpecification: Codable, Sendable, Equatable {
  public struct Process: Codable, Sendable, Equatable {
    public struct ResourceLimit: Codable, Sendable, Equatable {
      /// `nofile`, `core`, ... (getrlimit(2) without `RLIMIT_`, in lower case).
      public var name: String
      public var soft: UInt64
      public var hard: UInt64

      public init(name: String, soft: UInt64, hard: UInt64) {
        self.name = name
        self.soft = soft
        self.hard = hard
      }
    }

    public var terminal = false
    /// `name`, `name:group`, `1000`, `1000:1000`; looked up in the container's own /etc/passwd and /etc/group.
    public var user = ""
    public var additionalGroups: [String] = []
    public var arguments: [String]
    public var environment: [String] = []
    public var workingDirectory = "/"
    /// Names such as `CAP_CHOWN`; bounding, effective, permitted and, for root, inheritable are these.
    public var capabilities: [String] = []
    public var noNewPrivileges = false
    public var resourceLimits: [ResourceLimit] = []
    public var outOfMemoryScoreAdjustment: Int?

    public init(arguments: [String]) { self.arguments = arguments }
  }

  public enum Namespace: String, Codable, CodingKeyRepresentable, Sendable, CaseIterable {
    case mount
    case pid
    case uts
    case ipc
    case cgroup
    case network
  }

  /// What a namespace of the container is.
  public enum NamespaceSource: Codable, Sendable, Equatable {
    case fresh
    case host
    /// That of another container, by the PID of its first process on the host.
    case process(Int32)
  }

  public enum SeccompPolicy: Codable, Sendable, Equatable {
    /// Docker's default rules for the container's capabilities.
    case standard
    case unconfined
    /// A profile in Docker's JSON form.
    case profile(String)
  }

  public var process: Process
  public var hostname: String
  public var domainname = ""
  public var isRootReadOnly = false
  /// Missing kinds are fresh. `network` here is only for joining; a fresh one comes as a descriptor.
  public var namespaces: [Namespace: NamespaceSource] = [:]
  public var maskedPaths: [String] = []
  public var readOnlyPaths: [String] = []
  public var seccomp = SeccompPolicy.standard
  public var systemControls: [String: String] = [:]
  /// Bytes of /dev/shm.
  public var sharedMemorySize: Int64 = 64 << 20
  /// Whether there is a /dev/shm at all.
  public var hasSharedMemory = true
  /// Every device, nothing masked, /sys writable.
  public var isPrivileged = false
  /// Runs the shim's own init as PID 1 in front of the command (`--init`).
  public var usesInit = false
  /// Contents that the engine writes: path in the container to text (`/etc/hosts`, `/etc/hostname`,
  /// `/etc/resolv.conf`), mounted from files in the container's state directory.
  public var generatedFiles: [String: String] = [:]

  public init(process: Process, hostname: String) {
    self.process = process
    self.hostname = hostname
  }
}
