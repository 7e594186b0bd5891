import CLinux
import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  func exec(
    _ request: ContainerExec, _ call: Call, _ sink: Sink<ContainerExec.Element>
  ) async throws(EngineError) -> ExitStatus? {
    let found = try table.find(request.container)
    guard found.record.state.status != .restarting else {
      throw EngineError(.conflict, "Container \(found.id) is restarting, wait until the container is running")
    }
    let entry = try running(request.container)
    guard entry.record.state.status != .paused else {
      throw EngineError(.conflict, "Container \(entry.id) is paused, unpause the container before exec")
    }
    let (process, seccomp) = try SpecificationBuilder.execution(request, in: entry.record)
    let exec = ObjectID.random()
    entry.update { $0.execs[exec] = 0 }
    try await sink.yield(.created(exec))
    let line = request.command.joined(separator: " ")
    await tell("exec_create: \(line)", entry.record, ["execID": exec.text])
    let message = RuntimeExec(
      container: entry.id, exec: exec, process: process, seccomp: seccomp, streams: request.streams)
    // A process outlives the client that started it, so the runtime is asked in a task that nobody cancels.
    let told = Signal<Progress>()
    let ended = Signal<Result<ExitStatus, EngineError>>()
    let relay = Relay(sink)
    Task(executorPreference: bus.executor) { [self] in
      let result = await attempt { () async throws(EngineError) -> ExitStatus in
        try await ownCall.traced(at: call.tracePoint).stream(message) { (element) async throws(EngineError) in
          switch element {
          case .started(let pid):
            entry.update { if $0.execs[exec] != nil { $0.execs[exec] = pid } }
            await relay.send(.started)
            await self.tell("exec_start: \(line)", entry.record, ["execID": exec.text])
            if request.isDetached { told.resolve(.started) }
          case .detached:
            await relay.send(.detached)
            told.resolve(.detached)
          }
        }
      }
      entry.update { _ = $0.execs.removeValue(forKey: exec) }
      if case .success(let status) = result {
        await self.tell("exec_die", entry.record, ["execID": exec.text, "exitCode": "\(status.code)"])
      }
      ended.resolve(result)
      if case .failure(let error) = result { told.resolve(.failed(error)) } else { told.resolve(.ended) }
    }
    switch await told.wait() {
    case .started, .detached: return nil
    case .failed(let error): throw error
    case .ended: return try await ended.wait()?.get()
    case nil: throw EngineError(.cancelled, "the client went away; the command runs on")
    }
  }

  private enum Progress: Sendable {
    case started
    case detached
    case ended
    case failed(EngineError)
  }

  /// Tells a client that may have gone.
  private struct Relay: Sendable {
    let sink: Sink<ContainerExec.Element>
    init(_ sink: Sink<ContainerExec.Element>) { self.sink = sink }
    func send(_ element: ContainerExec.Element) async {
      do throws(EngineError) { try await sink.yield(element) } catch {}
    }
  }

  func signalExec(_ request: ContainerExecSignal, _ call: Call) async throws(EngineError) -> Done {
    let entry = try running(request.container)
    try knowsExec(request.exec, entry)
    return try await call.request(
      RuntimeSignal(container: entry.id, exec: request.exec, signal: request.signal))
  }

  func resize(_ request: ContainerResize, _ call: Call) async throws(EngineError) -> Done {
    let entry = try running(request.container)
    if let exec = request.exec { try knowsExec(exec, entry) }
    return try await call.request(
      RuntimeResize(container: entry.id, exec: request.exec, rows: request.rows, columns: request.columns))
  }

  private func knowsExec(_ exec: ObjectID, _ entry: ContainerEntry) throws(EngineError) {
    guard entry.update({ $0.execs[exec] }) != nil else {
      throw EngineError(.notFound, "No such exec instance: \(exec)")
    }
  }

  func logs(_ request: ContainerLogs, _ call: Call, _ sink: Sink<Done>) async throws(EngineError) -> Done {
    let entry = try table.find(request.container)
    let record = entry.record
    guard record.configuration.logDriver != "none" else {
      throw EngineError(.unsupported, "configured logging driver does not support reading")
    }
    var running: Descriptor?
    if record.state.status.hasProcesses, record.state.pid > 0 {
      // pidfd_open(2): readable once the first process has ended.
      let number = pidfd_open(record.state.pid, 0)
      if number >= 0 { running = Descriptor(adopting: number) }
    }
    let read = LogRead(
      container: entry.id, output: request.output, error: request.error, follow: request.follow, running: running,
      tail: request.tail, since: request.since, until: request.until, timestamps: request.timestamps)
    return try await call.stream(read, driver: logDriver(record.configuration)) {
      (element) async throws(EngineError) in try await sink.yield(element)
    }
  }
}
