import BenchmarkSupport
import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// `engine bench`: what each step of the engine costs on this machine, beside the same system calls with nothing around
/// them.
package enum Bench {
  /// - Returns: the exit status.
  package static func main(_ arguments: [String]) -> Int32 {
    if arguments.first == Worker.argument { return Worker.serve(Array(arguments.dropFirst())) }
    Interruption.block()
    do {
      let options = try BenchOptions(arguments)
      if options.listsOnly {
        write(1, Catalogue.figures.map { "\($0.figure.name)\n" }.joined())
        return 0
      }
      let names = Set(
        Catalogue.figures.filter { options.selects($0.figure.name, group: $0.group) }.map(\.figure.name))
      guard !names.isEmpty else {
        throw EngineError(
          .invalidArgument, "no step matches \(options.only.joined(separator: ",")); --list prints their names")
      }
      for path in [options.json, options.html] { if let path { try ReportFile.expectWritable(path) } }
      let former = try options.compare.map { try ReportFile.read($0) }
      let ground = try Ground()
      defer { ground.clear() }
      return try Guardian.run { measureAndPublish(options, names, former, ground) }
    } catch {
      write(2, "engine: \(EngineError(wrapping: error))\n")
      return 1
    }
  }

  /// - Returns: the exit status.
  private static func measureAndPublish(
    _ options: BenchOptions, _ names: Set<String>, _ former: Report?, _ ground: Ground
  ) -> Int32 {
    let cleanup = Cleanup()
    do {
      defer { cleanup.run() }
      try publish(try measure(options, names, ground, cleanup), former, options)
      return 0
    } catch let interrupted as Interrupted {
      Progress.clear()
      return 128 + interrupted.signal
    } catch {
      Progress.clear()
      write(2, "engine: \(EngineError(wrapping: error))\n")
      return 1
    }
  }

  private static func measure(
    _ options: BenchOptions, _ names: Set<String>, _ ground: Ground, _ cleanup: Cleanup
  ) throws -> Report {
    let sandbox = try Sandbox(ground, cleanup: cleanup)
    // Everything that dies with this thread is started by it, and before there are others.
    let root = try RootFileSystem(at: "\(sandbox.directory)/floor")
    let worker = try WorkerLink(
      [root.tree, root.directory, ground.groupName] + sandbox.cgroups.forContainers, cleanup: cleanup)
    let engine =
      ContainerProbes.figures.contains { names.contains($0.name) }
      ? try EngineProcess(sandbox: sandbox, image: root.archive, cleanup: cleanup) : nil
    let outcome = Once<Result<Report, any Error>>()
    // Nothing of this is touched here again before the task has ended.
    nonisolated(unsafe) let parts = (sandbox, worker, engine)
    let bus = Bus()
    let done = try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }
    defer { close(done) }
    Task(executorPreference: bus.executor) {
      do {
        let stage = Stage(sandbox: parts.0, worker: parts.1, bus: bus, engine: parts.2)
        outcome.resolve(.success(try await run(options, names, stage)))
      } catch {
        outcome.resolve(.failure(error))
      }
      eventfd_write(done, 1)
    }
    // Asleep: a thread that looked again and again would leave the machine no pause.
    var count: eventfd_t = 0
    while eventfd_read(done, &count) != 0 {}
    guard let result = outcome.resolved else { throw EngineError(.internalFailure, "there is no result") }
    return try result.get()
  }

  private static func run(_ options: BenchOptions, _ names: Set<String>, _ stage: Stage) async throws -> Report {
    var report = Report(machine: Machine.current(), runs: options.runs, pauseMilliseconds: options.pause)
    let schedule = Schedule(options: options) { Progress.show($0, $1) }
    var probes: [Probe] = []
    for group in Catalogue.groups {
      let own = Set(group.figures.map(\.name).filter(names.contains))
      if own.isEmpty { continue }
      try Interruption.check()
      Progress.show("preparing \(group.name)", 0)
      let wanted = group.figures.filter { own.contains($0.name) }
      for probe in try await stage.attempt(wanted, { try await group.probes(own, stage) }) {
        if let reason = try await refusal(of: probe) {
          stage.skip(probe.figures, reason)
        } else {
          probes.append(probe)
        }
      }
    }
    guard !probes.isEmpty else {
      throw EngineError(.unavailable, stage.skipped.first?.reason ?? "nothing can be measured here")
    }
    let hot = try await schedule.hot(probes)
    let paused = try await schedule.paused(probes)
    for group in Catalogue.groups {
      for figure in group.figures {
        if let reason = schedule.failures[figure.name] {
          stage.skip([figure], reason)
          continue
        }
        guard let first = pair(hot[figure.name]), let second = pair(paused[figure.name]) else { continue }
        report.figures.append(
          Report.Figure(
            name: figure.name, group: group.name, floor: figure.floor, curve: figure.curve, position: figure.position,
            hot: first, paused: second))
      }
    }
    report.skipped = stage.skipped.filter { names.contains($0.name) }
    if let engine = stage.engine { report.start = try engine.lastStart() }
    Progress.clear()
    return report
  }

  private static func pair(_ times: [Side: [Int64]]?) -> Report.Pair? {
    guard let engine = times?[.engine], let raw = times?[.raw] else { return nil }
    return Report.Pair(engine: engine, raw: raw)
  }

  /// Why a probe does not work on this machine: what it is tried once for.
  private static func refusal(of probe: Probe) async throws -> String? {
    do {
      for side in Side.allCases { _ = try await probe.measure(side) }
      return nil
    } catch let interrupted as Interrupted {
      throw interrupted
    } catch {
      return "\(EngineError(wrapping: error))"
    }
  }

  private static func publish(_ report: Report, _ former: Report?, _ options: BenchOptions) throws {
    if options.json != "-" { write(1, ReportTable.text(report, former: former)) }
    if let path = options.json { try ReportFile.write(try ReportFile.text(report), to: path) }
    if let path = options.html { try ReportFile.write(ReportPage.html(report, former: former), to: path) }
  }

  static func write(_ descriptor: Int32, _ text: String) { try? Files.writeAll(descriptor, Array(text.utf8)) }
}

/// One line on the terminal that says what goes on; nothing where there is none.
enum Progress {
  private static let isTerminal = isatty(2) == 1

  static func show(_ text: String, _ share: Double) {
    if isTerminal { Bench.write(2, "\r\u{1B}[K\(Text.decimal(share * 100, 0)) %  \(text)") }
  }

  static func clear() {
    if isTerminal { Bench.write(2, "\r\u{1B}[K") }
  }
}
