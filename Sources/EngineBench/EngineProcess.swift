import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// An engine of the benchmarks' own: the installed daemon, with a root in the benchmarks' directory.
final class EngineProcess {
  private let client: String
  private let root: String
  /// What commands say on their standard error.
  private let errors: OwnedDescriptor

  /// Starts the daemon, from the main thread, with which it dies, and gives it the image `bench`.
  init(sandbox: Sandbox, image archive: String, cleanup: Cleanup) throws(EngineError) {
    let instance = try sandbox.instance("engine")
    root = instance.root
    do {
      errors = OwnedDescriptor(
        adopting: try SystemCallError.check("memfd_create") { linux_memfd_create("errors", UInt32(MFD_CLOEXEC)) })
    } catch {
      throw EngineError(.unavailable, "\(error)")
    }
    client = "\(sandbox.ground.binaries)/engine"
    do {
      var ends: [Int32] = [-1, -1]
      try SystemCallError.check("pipe2") { pipe2(&ends, O_CLOEXEC) }
      let reading = OwnedDescriptor(adopting: ends[0])
      let writing = OwnedDescriptor(adopting: ends[1])
      let log = try Files.open("\(sandbox.directory)/engined.log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
      // It must not leave while other steps are measured for long.
      let configuration = "\(sandbox.directory)/engine.toml"
      try Files.replace(configuration, with: Array("[engine]\nidle_seconds = 864000\n".utf8), durable: false)
      let process = try Program.spawn(
        instance.daemonPath, ["engined", "--root", root, "--config", configuration, "--ready-fd", "3"],
        error: log.number, connection: writing.number)
      cleanup.add { Self.end(process) }
      close(writing.release())
      let answer = String(decoding: try Files.readAll(reading.number), as: UTF8.self)
      guard answer == "ok\n" else {
        throw EngineError(.unavailable, "the engine for the benchmarks does not start: \(answer)")
      }
    } catch let error as SystemCallError {
      throw EngineError(.unavailable, "the engine for the benchmarks cannot be started: \(error)")
    } catch {
      throw EngineError(wrapping: error)
    }
    try run(["import", archive, "bench"])
    cleanup.add { [self] in try? removeAll() }
  }

  private static func end(_ process: pid_t) {
    kill(process, SIGTERM)
    for _ in 0..<500 {
      if waitpid(process, nil, WNOHANG) != 0 { return }
      usleep(10_000)
    }
    kill(process, SIGKILL)
    Program.wait(process)
  }

  private func removeAll() throws(EngineError) {
    let all = try output(["ps", "-aq"]).split(separator: "\n").map(String.init)
    if !all.isEmpty { try run(["rm", "-f"] + all) }
  }

  /// Starts the container that processes are executed in.
  ///
  /// - Returns: its first process.
  func startTarget() throws(EngineError) -> Int32 {
    try run(["run", "-d", "--name", "target", "bench", "/bin/wait"])
    let text = try output(["inspect", "--format", "{{.State.Pid}}", "target"])
    guard let pid = Int32(text.prefix { $0 != "\n" }) else {
      throw EngineError(.internalFailure, "the engine does not say which process its container is: \(text)")
    }
    return pid
  }

  /// A start after a pause, step by step: on the bridge, or without a network where the machine has no bridges.
  ///
  /// - Returns: nothing where no container starts at all.
  func lastStart() throws -> [Report.Step] {
    let isStarted = try ["bridge", "none"].contains { network in
      try Interruption.sleep(milliseconds: 50)
      return (try? run(["run", "--rm", "--name", "steps", "--network", network, "bench", "/bin/true"])) != nil
    }
    guard isStarted else { return [] }
    let text = try output(["inspect", "--timings", "--format", "json", "steps"])
    return try JSON.decode([Start].self, Array(text.utf8)).first?.steps ?? []
  }

  private struct Start: Decodable {
    struct Step: Decodable {
      var Name: String
      var Place: String
      var Start: Int64
      var Duration: Int64
    }
    var Steps: [Step]

    var steps: [Report.Step] {
      Steps.map { Report.Step(name: $0.Name, place: $0.Place, begin: $0.Start, duration: $0.Duration) }
    }
  }

  /// Runs a command.
  ///
  /// - Returns: the nanoseconds from before its start until it has ended.
  /// - Throws: `internalFailure` when it fails.
  @discardableResult
  func run(_ arguments: [String]) throws(EngineError) -> Int64 {
    forgetErrors()
    let begin = MonotonicClock.now
    try end(of: try spawn(arguments), arguments)
    return MonotonicClock.now - begin
  }

  private func forgetErrors() {
    lseek(errors.number, 0, SEEK_SET)
    ftruncate(errors.number, 0)
  }

  private func output(_ arguments: [String]) throws(EngineError) -> String {
    forgetErrors()
    do {
      let memory = OwnedDescriptor(
        adopting: try SystemCallError.check("memfd_create") { linux_memfd_create("output", UInt32(MFD_CLOEXEC)) })
      try end(of: try spawn(arguments, output: memory.number), arguments)
      try SystemCallError.check("lseek") { lseek(memory.number, 0, SEEK_SET) }
      return String(decoding: try Files.readAll(memory.number), as: UTF8.self)
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  /// The daemon is the one that was started here: no command may start another one.
  private func spawn(_ arguments: [String], output: Int32 = -1) throws(EngineError) -> pid_t {
    do {
      return try Program.spawn(
        client, ["engine", "--root", root] + arguments, environment: ["ENGINE_DAEMON=/bin/false"], output: output,
        error: errors.number, diesWithThread: false)
    } catch {
      throw EngineError(.unavailable, "\(error)")
    }
  }

  private func end(of process: pid_t, _ arguments: [String]) throws(EngineError) {
    let status = Program.wait(process)
    guard status == 0 else {
      lseek(errors.number, 0, SEEK_SET)
      let text = String(decoding: (try? Files.readAll(errors.number)) ?? [], as: UTF8.self)
      let line = text.split(separator: "\n").first.map { ": \($0)" } ?? ""
      throw EngineError(
        .internalFailure, "engine \(arguments.joined(separator: " ")) ended with \(status)\(line)")
    }
  }
}
