import BenchmarkSupport
import Contracts

/// What `engine bench` found, as `--json` writes it and `--compare` reads it. Times are nanoseconds.
package struct Report: Codable, Equatable {
  /// The times of one side of a figure in one mode.
  package struct Distribution: Codable, Equatable {
    package var runs: Int
    package var p50: Int64
    package var p90: Int64
    package var p99: Int64
    package var min: Int64
    package var max: Int64
    /// From the smallest to the largest in steps of a twentieth: what the page draws.
    package var quantiles: [Int64]

    /// - Parameter times: in the order they were taken; at least one.
    package init(_ times: [Int64]) {
      let samples = Samples(times.map(Double.init))
      func value(_ share: Double) -> Int64 { Int64(samples.percentile(share)) }
      runs = times.count
      p50 = value(0.5)
      p90 = value(0.9)
      p99 = value(0.99)
      min = times.min() ?? 0
      max = times.max() ?? 0
      quantiles = (0...20).map { value(Double($0) / 20) }
    }
  }

  /// A step of the engine beside the raw system calls, in one mode.
  package struct Pair: Codable, Equatable {
    package var engine: Distribution
    package var raw: Distribution
    /// The engine's median divided by the raw one.
    package var ratio: Double

    package init(engine: [Int64], raw: [Int64]) {
      self.engine = Distribution(engine)
      self.raw = Distribution(raw)
      ratio = (Double(self.engine.p50) / Double(Swift.max(1, self.raw.p50)) * 10_000).rounded() / 10_000
    }
  }

  package struct Figure: Codable, Equatable {
    package var name: String
    package var group: String
    /// What the raw side of it is.
    package var floor: String
    /// The curve that it is a point of, and where on it; empty for one that is not.
    package var curve: String
    package var position: Int
    package var hot: Pair
    package var paused: Pair

    package init(
      name: String, group: String, floor: String, curve: String = "", position: Int = 0, hot: Pair, paused: Pair
    ) {
      self.name = name
      self.group = group
      self.floor = floor
      self.curve = curve
      self.position = position
      self.hot = hot
      self.paused = paused
    }
  }

  /// What this machine does not let be measured.
  package struct Skipped: Codable, Equatable {
    package var name: String
    package var reason: String

    package init(name: String, reason: String) {
      self.name = name
      self.reason = reason
    }
  }

  /// One step of a start, from the request on.
  package struct Step: Codable, Equatable {
    package var name: String
    package var place: String
    package var begin: Int64
    package var duration: Int64

    package init(name: String, place: String, begin: Int64, duration: Int64) {
      self.name = name
      self.place = place
      self.begin = begin
      self.duration = duration
    }
  }

  package static let currentFormat = 1

  package var format = Report.currentFormat
  package var machine: Machine
  package var unit = "nanoseconds"
  package var runs: Int
  package var pauseMilliseconds: Int
  package var figures: [Figure] = []
  package var skipped: [Skipped] = []
  /// One start of a container, after a pause.
  package var start: [Step] = []

  package init(machine: Machine, runs: Int, pauseMilliseconds: Int) {
    self.machine = machine
    self.runs = runs
    self.pauseMilliseconds = pauseMilliseconds
  }

  package func figure(_ name: String) -> Figure? { figures.first { $0.name == name } }
}
