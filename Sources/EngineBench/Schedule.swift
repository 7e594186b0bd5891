import Contracts
import Glibc
import LinuxSystem

/// Runs probes: step, raw, step, raw, so that what disturbs the machine disturbs both.
final class Schedule {
  let options: BenchOptions
  /// Says what goes on: a text, and how much of everything is done.
  let progress: (String, Double) -> Void

  init(options: BenchOptions, progress: @escaping (String, Double) -> Void) {
    self.options = options
    self.progress = progress
  }

  /// Runs that are made before any counts.
  private static let warmup = 3
  /// Where the user did not say how many runs, everything shall take a minute: with pauses there are as many runs as fit
  /// into what is left of it, but not fewer than the least.
  private static let budget: Int64 = 60_000_000_000
  private static let leastPausedRuns = 10
  private let begin = MonotonicClock.now

  /// Figures whose measuring failed, with the reason: they are not measured any more.
  private(set) var failures: [String: String] = [:]

  /// Times by figure, then by side.
  typealias Times = [String: [Side: [Int64]]]

  func hot(_ probes: [Probe]) async throws -> Times {
    var times = Times()
    for (index, probe) in probes.enumerated() {
      progress("hot: \(probe.figures[0].name)", Double(index) / Double(probes.count))
      for run in -Self.warmup..<options.runs {
        for side in sides(run) { try await measure(probe, side, into: &times, counts: run >= 0) }
      }
    }
    return times
  }

  func paused(_ probes: [Probe]) async throws -> Times {
    var times = Times()
    for run in 0..<options.runs {
      let elapsed = MonotonicClock.now - begin
      if options.isBounded, run >= Self.leastPausedRuns, elapsed > Self.budget { break }
      let share = Double(elapsed) / Double(Self.budget)
      progress(
        "after pauses of \(options.pause) ms, run \(run + 1)",
        options.isBounded ? min(1, share) : Double(run) / Double(options.runs))
      for bundle in Self.bundles(probes, run: run) {
        try Interruption.sleep(milliseconds: options.pause)
        for (probe, side) in bundle { try await measure(probe, side, into: &times, counts: true) }
      }
    }
    return times
  }

  /// Which side comes first changes with every run.
  private func sides(_ run: Int) -> [Side] { run % 2 == 0 ? [.engine, .raw] : [.raw, .engine] }

  private func measure(_ probe: Probe, _ side: Side, into times: inout Times, counts: Bool) async throws {
    try Interruption.check()
    if failures[probe.figures[0].name] != nil { return }
    let measured: [Int64]
    do {
      measured = try await probe.measure(side)
    } catch let interrupted as Interrupted {
      throw interrupted
    } catch {
      for figure in probe.figures { failures[figure.name] = "\(EngineError(wrapping: error))" }
      return
    }
    guard counts else { return }
    for (figure, time) in zip(probe.figures, measured) {
      times[figure.name, default: [:]][side, default: []].append(time)
    }
  }

  /// What is measured after each pause of one run: at most one of each lane, so that everything has rested for a pause at
  /// least; and who comes first, and so wakes the processor, changes.
  static func bundles(_ probes: [Probe], run: Int) -> [[(Probe, Side)]] {
    var bundles: [[(Probe, Side)]] = []
    for lane in Probe.Lane.allCases {
      let members = probes.filter { $0.lane == lane }.flatMap { probe in
        (run % 2 == 0 ? Side.allCases : Side.allCases.reversed()).map { (probe, $0) }
      }
      if lane == .containers {
        bundles += members.map { [$0] }
        continue
      }
      for (index, member) in members.enumerated() {
        if index < bundles.count { bundles[index].append(member) } else { bundles.append([member]) }
      }
    }
    return bundles.map { bundle in
      let first = run % bundle.count
      return Array(bundle[first...] + bundle[..<first])
    }
  }
}
