/// Where a process's input and output go.
public struct StandardStreams: Codable, Sendable {
  /// Nil reads as /dev/null. With a terminal, the caller's terminal, from which keys are read.
  public var input: Descriptor?
  /// Nil goes to the log only.
  public var output: Descriptor?
  public var error: Descriptor?
  /// Keeps a container's stdin open when nobody is attached (`-i`).
  public var keepsInputOpen: Bool
  /// Keys that let go of the terminal, for example `ctrl-p,ctrl-q`; empty for none.
  public var detachKeys: String
  /// The terminal's size on start; 0 for unknown.
  public var rows: UInt16
  public var columns: UInt16
  /// Tells the clients of one container apart; the lifecycle chooses it, and `RuntimeDetached` repeats it.
  public var client: UInt32 = 0

  public init(
    input: Descriptor? = nil, output: Descriptor? = nil, error: Descriptor? = nil, keepsInputOpen: Bool = false,
    detachKeys: String = "", rows: UInt16 = 0, columns: UInt16 = 0
  ) {
    self.input = input
    self.output = output
    self.error = error
    self.keepsInputOpen = keepsInputOpen
    self.detachKeys = detachKeys
    self.rows = rows
    self.columns = columns
  }
}

/// Starts the container's shim early, while the rest is still being prepared, so that its start-up is hidden. The
/// lease of the request ends it again when no `RuntimeCreate` follows.
public struct RuntimePrepare: Request {
  public static let name = "runtime.prepare"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}

/// Makes a container's first process, with everything around it but its command (`create` of the OCI runtime
/// specification, runtime.md): it returns when the shim has its plan, and the process then waits for `RuntimeStart`, which
/// also tells what failed meanwhile. What it takes long for can so be done beside what the network takes long for.
///
/// `RuntimeRemove` takes it away again.
public struct RuntimeCreate: Request {
  public static let name = "runtime.create"
  public struct Reply: Codable, Sendable {
    /// Where on the host the generated files are, by their path in the container.
    public var generatedPaths: [String: String]

    public init(generatedPaths: [String: String] = [:]) { self.generatedPaths = generatedPaths }
  }
  public var container: ObjectID
  public var specification: RuntimeSpecification
  /// A detached mount of the root file system.
  public var root: Descriptor
  /// Detached mounts, attached in this order beneath the root.
  public var mounts: [VolumeMount.Mounted]
  /// It need not have its interfaces yet.
  public var networkNamespace: Descriptor?
  /// See `ResourceCreate.Reply`.
  public var cgroupEntries: [Descriptor]
  public var unifiedCgroup: Descriptor?
  public var streams: StandardStreams
  /// The log's path, or empty for none; its rotation in bytes and number of files.
  public var logPath: String
  public var logMaximumSize: Int64
  public var logMaximumFiles: Int

  public init(
    container: ObjectID, specification: RuntimeSpecification, root: Descriptor, mounts: [VolumeMount.Mounted],
    networkNamespace: Descriptor?, cgroupEntries: [Descriptor], unifiedCgroup: Descriptor?, streams: StandardStreams,
    logPath: String, logMaximumSize: Int64, logMaximumFiles: Int
  ) {
    self.container = container
    self.specification = specification
    self.root = root
    self.mounts = mounts
    self.networkNamespace = networkNamespace
    self.cgroupEntries = cgroupEntries
    self.unifiedCgroup = unifiedCgroup
    self.streams = streams
    self.logPath = logPath
    self.logMaximumSize = logMaximumSize
    self.logMaximumFiles = logMaximumFiles
  }
}

/// Lets a container that was created execute its command: returns when that has been executed (execve(2) succeeded).
///
/// Throws `commandNotFound`, `notExecutable` (with runc's words after `exec: "x":`) or what else failed; nothing of the
/// process is left then.
public struct RuntimeStart: Request {
  public static let name = "runtime.start"
  public struct Reply: Codable, Sendable {
    /// The first process of the container, as a PID of the host.
    public var pid: Int32
    public var shimPID: Int32
    public var started: Timestamp
    public var warnings: [String]
    /// What the runtime measured of the creation and the start; may be empty.
    public var steps: [TimedStep]

    public init(pid: Int32, shimPID: Int32, started: Timestamp, warnings: [String], steps: [TimedStep] = []) {
      self.steps = steps
      self.pid = pid
      self.shimPID = shimPID
      self.started = started
      self.warnings = warnings
    }
  }
  public var container: ObjectID
  /// What generated files hold that were empty when the container was created, by their path in it.
  public var files: [String: String]
  /// Held by the shim as long as the container lives.
  public var portReservations: [Descriptor]

  public init(container: ObjectID, files: [String: String] = [:], portReservations: [Descriptor] = []) {
    self.container = container
    self.files = files
    self.portReservations = portReservations
  }
}

/// How a process ended.
public struct ExitStatus: Codable, Sendable, Equatable {
  /// 0 to 255; 128 and the signal's number for a process that a signal ended; 137 where the shim was killed.
  public var code: Int32
  public var finished: Timestamp
  /// Why the status is not the process's own, for example `the container's shim was killed`; empty normally.
  public var reason: String

  public init(code: Int32, finished: Timestamp, reason: String = "") {
    self.code = code
    self.finished = finished
    self.reason = reason
  }
}

/// Told once for each started container, also for one that ended while no engine was running.
public struct RuntimeExited: Event {
  public static let name = "runtime.exited"
  public var container: ObjectID
  public var status: ExitStatus

  public init(container: ObjectID, status: ExitStatus) {
    self.container = container
    self.status = status
  }
}

/// Told when the user pressed the detach keys, or the attached client went away.
public struct RuntimeDetached: Event {
  public static let name = "runtime.detached"
  public var container: ObjectID
  /// The exec it was, or nil for the container itself.
  public var exec: ObjectID?
  /// Which client of the container it was: see `StandardStreams`.
  public var client: UInt32

  public init(container: ObjectID, exec: ObjectID?, client: UInt32 = 0) {
    self.container = container
    self.exec = exec
    self.client = client
  }
}

/// Finds the shims of containers that ran before this engine started. The reply holds, for each container asked for,
/// its first process if it runs; those that ended are told with `RuntimeExited` after the reply.
public struct RuntimeAdopt: Request {
  public static let name = "runtime.adopt"
  public typealias Reply = [ObjectID: Int32]
  public var containers: [ObjectID]

  public init(containers: [ObjectID]) { self.containers = containers }
}

/// Sends a signal to the container's first process (pidfd_send_signal(2)).
public struct RuntimeSignal: Request {
  public static let name = "runtime.signal"
  public typealias Reply = Done
  public var container: ObjectID
  /// The exec whose process is meant, or nil for the container.
  public var exec: ObjectID?
  public var signal: Int32

  public init(container: ObjectID, exec: ObjectID? = nil, signal: Int32) {
    self.container = container
    self.exec = exec
    self.signal = signal
  }
}

/// Sets the size of the terminal of the container or of one of its execs (TIOCSWINSZ).
public struct RuntimeResize: Request {
  public static let name = "runtime.resize"
  public typealias Reply = Done
  public var container: ObjectID
  public var exec: ObjectID?
  public var rows: UInt16
  public var columns: UInt16

  public init(container: ObjectID, exec: ObjectID?, rows: UInt16, columns: UInt16) {
    self.container = container
    self.exec = exec
    self.rows = rows
    self.columns = columns
  }
}

/// Connects a client to a running container's streams.
public struct RuntimeAttach: Request {
  public static let name = "runtime.attach"
  public typealias Reply = Done
  public var container: ObjectID
  public var streams: StandardStreams

  public init(container: ObjectID, streams: StandardStreams) {
    self.container = container
    self.streams = streams
  }
}

/// Runs one more process in a container: elements tell that it started, the reply how it ended.
public struct RuntimeExec: StreamRequest {
  public static let name = "runtime.exec"
  public enum Element: Codable, Sendable, Equatable {
    case started(pid: Int32)
    /// The user let go of it; the process runs on and its reply comes when it ends.
    case detached
  }
  public typealias Reply = ExitStatus
  public var container: ObjectID
  public var exec: ObjectID
  public var process: RuntimeSpecification.Process
  public var seccomp: RuntimeSpecification.SeccompPolicy
  public var streams: StandardStreams

  public init(
    container: ObjectID, exec: ObjectID, process: RuntimeSpecification.Process,
    seccomp: RuntimeSpecification.SeccompPolicy, streams: StandardStreams
  ) {
    self.container = container
    self.exec = exec
    self.process = process
    self.seccomp = seccomp
    self.streams = streams
  }
}

/// Ends a container's shim and removes its runtime directory. One that is not there is done already.
public struct RuntimeRemove: Request {
  public static let name = "runtime.remove"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}
