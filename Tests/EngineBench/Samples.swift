import BenchmarkSupport

@testable import EngineBench

extension Machine {
  static let example = Machine(
    date: "2026-01-02", kernel: "6.1.0", system: "Debian <12> & more", processor: "\"fast\"", cpus: 2,
    memoryMegabytes: 1024)
}

extension Report {
  /// A report of two figures on a curve, one of a name that has to be escaped, and one start.
  static func example(scale: Int64 = 1) -> Report {
    func pair(_ base: Int64) -> Pair {
      Pair(engine: (1...100).map { base * scale + $0 }, raw: (1...100).map { base / 2 + $0 })
    }
    var report = Report(machine: .example, runs: 100, pauseMilliseconds: 30)
    report.figures = [
      Figure(
        name: "overlay, 1 layer", group: "overlay", floor: "fsopen", curve: "overlay", position: 1, hot: pair(2000),
        paused: pair(4000)),
      Figure(
        name: "overlay, 5 layers", group: "overlay", floor: "fsopen", curve: "overlay", position: 5,
        hot: pair(6000), paused: pair(8000)),
      Figure(name: "a <b> & \"c\"", group: "x", floor: "<script>", hot: pair(1000), paused: pair(2_000_000)),
    ]
    report.skipped = [Skipped(name: "namespace user", reason: "not <allowed>")]
    report.start = [
      Step(name: "attach network", place: "engine", begin: 0, duration: 1000),
      Step(name: "clone3", place: "shim", begin: 500, duration: 100),
    ]
    return report
  }
}
