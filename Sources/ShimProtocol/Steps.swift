/// What a shim without a container is called in the list of processes: as long as the short ID that takes its place.
public let standbyLabel = "standby     "

/// One step of the start of a process, as the shim or the process itself measured it.
public struct StepPlan: Coded, Equatable {
  public var name = ""
  /// In the new process, before execve(2); otherwise in the shim.
  public var isInProcess = false
  /// Nanoseconds of CLOCK_MONOTONIC.
  public var begin: Int64 = 0
  public var end: Int64 = 0

  public init() {}
  public init(_ name: String, isInProcess: Bool = false, begin: Int64, end: Int64) {
    self.name = name
    self.isInProcess = isInProcess
    self.begin = begin
    self.end = end
  }

  public mutating func code(_ coder: inout some Coder) throws(ProtocolError) {
    try coder.text(&name)
    try coder.flag(&isInProcess)
    try coder.integer(&begin)
    try coder.integer(&end)
  }
}

/// Takes the time of one step after the other.
public struct StepLog: Sendable {
  public private(set) var steps: [StepPlan] = []
  private let isInProcess: Bool
  private var last: Int64

  /// - Parameter begin: nanoseconds of CLOCK_MONOTONIC at which the first step begins.
  public init(isInProcess: Bool, begin: Int64) {
    self.isInProcess = isInProcess
    last = begin
    steps.reserveCapacity(24)
  }

  /// The step that ends at `now` began where the one before it ended.
  public mutating func finish(_ name: String, now: Int64) {
    steps.append(StepPlan(name, isInProcess: isInProcess, begin: last, end: now))
    last = now
  }
}
