/// A process that the shim starts: what the engine decided, with names resolved to the kernel's numbers. Only the user
/// is still a name, because it is looked up in the container's own files.
public struct ProcessPlan: Coded, Equatable {
  public struct Limit: Coded, Equatable {
    /// RLIMIT_* of getrlimit(2).
    public var resource: Int32 = 0
    public var soft: UInt64 = 0
    public var hard: UInt64 = 0

    public init() {}
    public init(resource: Int32, soft: UInt64, hard: UInt64) {
      self.resource = resource
      self.soft = soft
      self.hard = hard
    }

    public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
      try coder.integer(&resource)
      try coder.integer(&soft)
      try coder.integer(&hard)
    }
  }

  public var arguments: [String] = []
  public var environment: [String] = []
  public var workingDirectory = "/"
  /// `name`, `name:group` or numbers; empty is root.
  public var user = ""
  public var additionalGroups: [String] = []
  /// One bit a capability (capabilities(7)).
  public var capabilities: UInt64 = 0
  public var noNewPrivileges = false
  public var limits: [Limit] = []
  public var setsScore = false
  /// For /proc/self/oom_score_adj when `setsScore`.
  public var score: Int32 = 0
  public var terminal = false
  /// `struct sock_filter` after `struct sock_filter`, or empty for none.
  public var seccomp: [UInt8] = []

  public init() {}

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.array(&arguments)
    try coder.array(&environment)
    try coder.text(&workingDirectory)
    try coder.text(&user)
    try coder.array(&additionalGroups)
    try coder.integer(&capabilities)
    try coder.flag(&noNewPrivileges)
    try coder.array(&limits)
    try coder.flag(&setsScore)
    try coder.integer(&score)
    try coder.flag(&terminal)
    try coder.bytes(&seccomp)
  }
}

/// A client that is connected to a process's streams. Each of its descriptors travels beside the message, in the order
/// of the fields, when its flag is set.
public struct StreamPlan: Coded, Equatable {
  public var hasInput = false
  public var hasOutput = false
  public var hasError = false
  /// A pidfd of the client: when it ends, its streams are let go.
  public var hasClient = false
  public var keepsInputOpen = false
  /// The bytes of the keys that let go of a terminal; empty for none.
  public var detachKeys: [UInt8] = []
  /// The terminal's size; 0 for unknown.
  public var rows: UInt16 = 0
  public var columns: UInt16 = 0
  /// Repeated when the client lets go.
  public var client: UInt32 = 0

  public init() {}

  public var descriptorCount: Int { [hasInput, hasOutput, hasError, hasClient].count { $0 } }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.flag(&hasInput)
    try coder.flag(&hasOutput)
    try coder.flag(&hasError)
    try coder.flag(&hasClient)
    try coder.flag(&keepsInputOpen)
    try coder.bytes(&detachKeys)
    try coder.integer(&rows)
    try coder.integer(&columns)
    try coder.integer(&client)
  }
}

/// Where a namespace comes from.
public struct NamespacePlan: Coded, Equatable {
  /// `CLONE_NEW*` of clone(2).
  public var kind: UInt32 = 0
  /// The process whose namespace is joined; 0 keeps the host's.
  public var process: Int32 = 0

  public init() {}
  public init(kind: UInt32, process: Int32) {
    self.kind = kind
    self.process = process
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.integer(&kind)
    try coder.integer(&process)
  }
}

/// A key with a value: a sysctl and what it is set to, or a cgroup hierarchy's directory and its mount option.
public struct PairPlan: Coded, Equatable {
  public var key = ""
  public var value = ""

  public init() {}
  public init(_ key: String, _ value: String) {
    self.key = key
    self.value = value
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.text(&key)
    try coder.text(&value)
  }
}

/// A detached mount, which travels beside the plan, and where in the container it goes.
public struct MountPlan: Coded, Equatable {
  public var target = ""
  public var isDirectory = true

  public init() {}
  public init(target: String, isDirectory: Bool) {
    self.target = target
    self.isDirectory = isDirectory
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.text(&target)
    try coder.flag(&isDirectory)
  }
}

/// Everything the shim needs to start a container. Descriptors beside it, in this order: the root, the gate, the network
/// namespace, the unified cgroup (each of the two where its flag is set), the client's, the cgroup entries, the mounts.
///
/// The gate is the reading end of a pipe. The process that is set up waits there, before the command: a byte lets it
/// go on, and without one it ends when nobody holds the writing end any more.
public struct StartPlan: Coded, Equatable {
  public var process = ProcessPlan()
  public var streams = StreamPlan()
  public var hostname = ""
  public var domainname = ""
  /// Namespaces that are made (`CLONE_NEW*`), and those that are not.
  public var freshNamespaces: UInt32 = 0
  public var otherNamespaces: [NamespacePlan] = []
  public var hasNetwork = false
  public var hasUnifiedCgroup = false
  public var cgroupEntryCount: UInt16 = 0
  public var mounts: [MountPlan] = []
  public var maskedPaths: [String] = []
  public var readOnlyPaths: [String] = []
  public var systemControls: [PairPlan] = []
  /// Directory beneath /sys/fs/cgroup (empty for a unified hierarchy alone) to mount option (empty for cgroup2).
  public var cgroupMounts: [PairPlan] = []
  /// Bytes.
  public var sharedMemorySize: UInt64 = 0
  public var hasSharedMemory = true
  public var isRootReadOnly = false
  public var isPrivileged = false
  public var usesInit = false
  public var logPath = ""
  /// Bytes; 0 for no rotation.
  public var logMaximumSize: UInt64 = 0
  public var logMaximumFiles: UInt32 = 1
  /// Where the exit status is written when no engine lives.
  public var directory = ""
  /// The engine's executable and its root, for starting one when the container ends and none lives; empty for never.
  public var daemonPath = ""
  public var daemonRoot = ""

  public init() {}

  public var descriptorCount: Int {
    2 + (hasNetwork ? 1 : 0) + (hasUnifiedCgroup ? 1 : 0) + streams.descriptorCount + Int(cgroupEntryCount)
      + mounts.count
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.value(&process)
    try coder.value(&streams)
    try coder.text(&hostname)
    try coder.text(&domainname)
    try coder.integer(&freshNamespaces)
    try coder.array(&otherNamespaces)
    try coder.flag(&hasNetwork)
    try coder.flag(&hasUnifiedCgroup)
    try coder.integer(&cgroupEntryCount)
    try coder.array(&mounts)
    try coder.array(&maskedPaths)
    try coder.array(&readOnlyPaths)
    try coder.array(&systemControls)
    try coder.array(&cgroupMounts)
    try coder.integer(&sharedMemorySize)
    try coder.flag(&hasSharedMemory)
    try coder.flag(&isRootReadOnly)
    try coder.flag(&isPrivileged)
    try coder.flag(&usesInit)
    try coder.text(&logPath)
    try coder.integer(&logMaximumSize)
    try coder.integer(&logMaximumFiles)
    try coder.text(&directory)
    try coder.text(&daemonPath)
    try coder.text(&daemonRoot)
  }
}

/// One more process in a container that runs.
public struct ExecPlan: Coded, Equatable {
  /// The exec's identifier.
  public var name = ""
  public var process = ProcessPlan()
  public var streams = StreamPlan()

  public init() {}

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.text(&name)
    try coder.value(&process)
    try coder.value(&streams)
  }
}
