import Contracts
import Glibc
import Wire

/// What the benchmarks found, as it is written to the results file. Times are microseconds, sizes kilobytes.
struct Results: Codable {
  struct Machine: Codable {
    var date: String
    var kernel: String
    var system: String
    var processor: String
    var cpus: Int
    var memoryMegabytes: Int
  }

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

extension Results.Machine {
  static func current() -> Self {
    var name = utsname()
    uname(&name)
    func text<Tuple>(_ field: Tuple) -> String {
      withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    func line(_ path: String, _ key: String, _ separator: Character) -> String {
      let lines = Processes.read(path).split(separator: "\n")
      guard let line = lines.first(where: { $0.hasPrefix(key) }) else { return "" }
      let value = line.split(separator: separator, maxSplits: 1).last ?? ""
      return String(value.drop { $0 == " " || $0 == "\"" || $0 == "\t" }.prefix { $0 != "\"" })
    }
    var now = time(nil)
    var parts = tm()
    gmtime_r(&now, &parts)
    var buffer = [CChar](repeating: 0, count: 32)
    let count = strftime(&buffer, buffer.count, "%Y-%m-%d", &parts)
    return Self(
      date: String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self),
      kernel: text(name.release), system: line("/etc/os-release", "PRETTY_NAME", "="),
      processor: line("/proc/cpuinfo", "model name", ":"), cpus: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
      memoryMegabytes: sysconf(Int32(_SC_PHYS_PAGES)) / 1024 * sysconf(Int32(_SC_PAGESIZE)) / 1024)
  }
}
