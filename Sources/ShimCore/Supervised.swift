import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// A process that the shim started and watches: the container's first one, or an exec.
final class Supervised {
  enum Outcome {
    case started(pid: Int32, warnings: [String], steps: [StepPlan])
    case failed(FailureKind, String)
  }

  /// Milliseconds that a client may take for the last output before the exit is told all the same.
  private static let patience: UInt64 = 2000
  private let loop: EventLoop
  let streams: Streams
  /// Empty for the container's first process.
  let name: String
  private(set) var pid: Int32 = 0
  private(set) var pidfd: Int32 = -1
  private var status: Int32 = -1
  private var warnings: [String] = []
  /// The steps of the start, in the shim and then in the process.
  private var steps = StepLog(isInProcess: false, begin: 0)
  private var ownSteps: [StepPlan] = []
  private var isReady = false
  private var failure: (FailureKind, String)?
  private var isAnnounced = false
  /// The process's exit status once it has been reaped.
  private(set) var exit: (code: Int32, time: Int64)?
  private(set) var isOver = false
  /// Called once, when execve(2) has succeeded or everything of a failed start is gone.
  var onStart: (Outcome) -> Void = { _ in }
  /// Called once, when a process that had started has ended and all its output was taken.
  var onExit: (Int32, Int64) -> Void = { _, _ in }

  init(name: String, streams: Streams, loop: EventLoop) {
    self.name = name
    self.streams = streams
    self.loop = loop
  }

  /// Clones the process; `body` runs in it and does not return.
  ///
  /// - Parameters:
  ///   - pidNamespace: A process whose PID namespace the new one joins; -1 for none.
  ///   - begin: When the engine's plan was received, nanoseconds of CLOCK_MONOTONIC.
  func start(
    begin: Int64, plan: StreamPlan, flags: UInt64, cgroup: Int32, pidNamespace: Int32, descriptors: ChildDescriptors,
    body: (ChildDescriptors) -> Never
  ) throws(SystemCallError) {
    var descriptors = descriptors
    descriptors.standard = try streams.makeEnds(plan)
    defer { for number in descriptors.standard where number >= 0 { close(number) } }
    var pair = try socketPair()
    descriptors.status = pair.second
    // A child enters the PID namespace that its parent has chosen for its children, so the choice is made and undone
    // around the clone: one process instead of two (pid_namespaces(7)).
    var own: OwnedDescriptor?
    if pidNamespace >= 0 {
      own = try Files.open("/proc/self/ns/pid", O_RDONLY)
      try SystemCallError.check("setns") { setns(pidNamespace, CLONE_NEWPID) }
    }
    defer { if let number = own?.number { _ = setns(number, CLONE_NEWPID) } }
    steps = StepLog(isInProcess: false, begin: begin)
    steps.finish("read plan", now: MonotonicClock.now)
    (pid, pidfd) = try clone(flags: flags, cgroup: cgroup)
    if pid == 0 { body(descriptors) }
    steps.finish("clone3", now: MonotonicClock.now)
    status = pair.takeFirst()
    loop.watch(status, EventLoop.readable) { [unowned self] _ in self.readStatus() }
    loop.watch(pidfd, EventLoop.readable) { [unowned self] _ in self.reap() }
  }

  private func readStatus() {
    var buffer = [UInt8](repeating: 0, count: 4200)
    var numbers: [Int32] = [-1, -1]
    var count: Int32 = 2
    var truncated: Int32 = 0
    let received = linux_receive_with_descriptors(
      status, &buffer, buffer.count, &numbers, &count, &truncated, Int32(MSG_DONTWAIT))
    if received < 0 && (errno == EAGAIN || errno == EINTR) { return }
    guard received > 0 else {
      loop.forget(status)
      close(status)
      status = -1
      if isReady && failure == nil && !isAnnounced {
        isAnnounced = true
        if let ready = ownSteps.last?.end {
          // Seen from the shim, because the process is somebody else's by now.
          ownSteps.append(StepPlan("execve", isInProcess: true, begin: ready, end: MonotonicClock.now))
        }
        onStart(.started(pid: pid, warnings: warnings, steps: steps.steps + ownSteps))
      }
      settle()
      return
    }
    switch StatusReport(buffer[..<received]) {
    case .warning(let text): warnings.append(text)
    case .terminal where count == 2: streams.takeTerminal(master: numbers[0], slave: numbers[1])
    case .ready(let steps):
      isReady = true
      ownSteps = steps
    case .failure(let kind, let text): failure = (kind, text)
    case .terminal, nil: for number in numbers[..<Int(count)] { close(number) }
    }
  }

  private func reap() {
    var status: Int32 = 0
    guard wait4(pid, &status, WNOHANG | Int32(bitPattern: UInt32(__WALL)), nil) == pid else { return }
    exit = (exitCode(status), wallClock())
    loop.forget(pidfd)
    close(pidfd)
    pidfd = -1
    // A report of what failed may still be unread; with `--init` the other end may even live on for a moment.
    while self.status >= 0 && isReadable(self.status) { readStatus() }
    settle()
  }

  /// Goes on when both the status socket and the process have come to their end.
  private func settle() {
    guard let exit, !isOver else { return }
    if !isAnnounced {
      guard status < 0 else { return }
      isOver = true
      isAnnounced = true
      streams.close()
      let (kind, text) =
        failure ?? (.internalFailure, "the container's first process ended while it was set up (status \(exit.code))")
      onStart(.failed(kind, text))
      return
    }
    isOver = true
    streams.onDone = { [weak self] in self?.tell() }
    streams.finish()
    if !isTold { loop.setAlarm(milliseconds: Self.patience) { [weak self] in self?.tell() } }
  }

  private var isTold = false

  /// Tells the exit though a client has not taken everything.
  func tell() {
    guard !isTold, let exit else { return }
    isTold = true
    onExit(exit.code, exit.time)
  }
}
