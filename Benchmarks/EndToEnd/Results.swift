import BenchmarkSupport
import Contracts
import Glibc
import Wire

/// What the benchmarks found, as it is written to the results file. Times are microseconds, sizes kilobytes.
struct Results: Codable {
  /// One command in one mode.
  struct Row: Codable {
    var name: String
    var p50: Int
    var p90: Int
    var p99: Int
    var min: Int
    /// The ones beside which it is shown.
    var comparisons: [Comparison] = []
  }

  struct Comparison: Codable {
    var name: String
    /// This one's median divided by that one's.
    var ratio: Double
  }

  struct Mode: Codable {
    var mode: String
    var results: [Row]
  }

  /// Containers made, run to their end and removed.
  struct Throughput: Codable {
    var peer: String
    var containers: Int
    var concurrency: Int
    var perSecond: Double
  }

  /// With so many idle containers.
  struct Scale: Codable {
    var peer: String
    var containers: Int
    /// PSS of everything but the payload, and RSS of the daemon or daemons.
    var proportionalSize: Int
    var daemonResident: Int
    var list: Int
    var listAfterPause: Int
    /// Attaching one more to the bridge.
    var attach: Int?
    var attachAfterPause: Int?
  }

  struct Step: Codable {
    var Name: String
    var Place: String
    var Start: Int64
    var Duration: Int64
  }

  /// A start step by step, in nanoseconds.
  struct Start: Codable {
    var Duration: Int64
    var Steps: [Step]
  }

  var machine: Machine
  var unit = "microseconds"
  var runs: Int
  var pauseMilliseconds: Int
  var modes: [Mode] = []
  var throughput: [Throughput] = []
  var scaling: [Scale] = []
  /// Kilobytes of PSS for each container, by peer: the slope between 50 and 100.
  var perContainer: [String: Int] = [:]
  var start: Start?
  /// What engine-micro-benchmarks printed.
  var messages: JSONValue?

  init(runs: Int, pauseMilliseconds: Int) {
    machine = Machine.current()
    self.runs = runs
    self.pauseMilliseconds = pauseMilliseconds
  }
}
