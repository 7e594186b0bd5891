import BenchmarkSupport
import Contracts
import Glibc
import Wire

/// What the benchmarks found, as it is written to the results file. Times are microseconds, sizes kilobytes.
struct Results: Codable, Equatable {
  /// One command in one mode.
  struct Row: Codable, Equatable {
    var name: String
    var p50: Int
    var p90: Int
    var p99: Int
    var min: Int
    /// The ones beside which it is shown.
    var comparisons: [Comparison] = []
  }

  struct Comparison: Codable, Equatable {
    var name: String
    /// This one's median divided by that one's.
    var ratio: Double
  }

  struct Mode: Codable, Equatable {
    var mode: String
    /// How often each was run.
    var runs: Int
    var results: [Row]

    func row(_ name: String) -> Row? { results.first { $0.name == name } }

    /// The ratio of one's median to another's.
    func ratio(_ name: String, _ other: String) -> Double? {
      guard let one = row(name), let other = row(other), other.p50 > 0 else { return nil }
      return Double(one.p50) / Double(other.p50)
    }
  }

  /// Something that is compared, or why it is not.
  struct Peer: Codable, Equatable {
    var name: String
    var version: String?
    /// Why it is not among the figures; nil where it is.
    var absence: String?
  }

  /// Containers made, run to their end and removed.
  struct Throughput: Codable, Equatable {
    var peer: String
    var containers: Int
    var concurrency: Int
    var perSecond: Double
  }

  /// A link on a bridge with address and route, made by the driver's own code and nothing else (`engine bench`).
  struct Attachment: Codable, Equatable {
    /// The median of the first link on the bridge and of the 300th.
    var first: Int
    var last: Int
    var firstAfterPause: Int
    var lastAfterPause: Int
  }

  /// With so many idle containers.
  struct Scale: Codable, Equatable {
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

  /// An image pulled from a registry on the loopback interface and unpacked.
  struct Image: Codable, Equatable {
    var peer: String
    var layers: Int
    /// Bytes as the registry has them, and unpacked.
    var packed: Int
    var unpacked: Int
    var pull: Int
    var pullRange: [Int]
  }

  /// A container that writes lines as fast as it can.
  struct Log: Codable, Equatable {
    var peer: String
    var lines: Int
    var bytes: Int
    /// From the start of the container to its end, and `logs` of all of it.
    var write: Int
    var read: Int
  }

  /// iperf3 over TCP, and a byte sent there and back.
  struct Network: Codable, Equatable {
    static let between = "container to container"
    static let fromHost = "host to container"

    var peer: String
    var path: String
    var megabitsPerSecond: Int
    var roundTrip: Double
    var roundTrip90: Double
    var roundTrip99: Double
  }

  struct Step: Codable, Equatable {
    var Name: String
    var Place: String
    var Start: Int64
    var Duration: Int64
  }

  /// A start step by step, in nanoseconds.
  struct Start: Codable, Equatable {
    var Duration: Int64
    var Steps: [Step]
  }

  /// What the micro benchmarks printed of one of theirs, in nanoseconds.
  struct Message: Codable, Equatable {
    var group: String
    var name: String
    /// Of what it is the time of one.
    var per: String
    var runs: Int
    var p50: Int
    var p90: Int
    var p99: Int
  }

  var machine: Machine
  var unit = "microseconds"
  var runs: Int
  var pauseMilliseconds: Int
  var peers: [Peer] = []
  var modes: [Mode] = []
  var throughput: [Throughput] = []
  var scaling: [Scale] = []
  var attachment: Attachment?
  /// Kilobytes of PSS for each container, by peer: the slope between 50 and 100.
  var perContainer: [String: Int] = [:]
  /// Kilobytes of RSS of the daemons, by peer, after one container and before any other.
  var idleResident: [String: Int] = [:]
  var images: [Image] = []
  var logs: [Log] = []
  var network: [Network] = []
  var start: Start?
  var messages: [Message] = []
  /// What was not measured, and why.
  var omissions: [String] = []
  var targets: [Target] = []

  init(machine: Machine = .current(), runs: Int, pauseMilliseconds: Int) {
    self.machine = machine
    self.runs = runs
    self.pauseMilliseconds = pauseMilliseconds
  }

  /// These with what earlier ones have beside the sections that were measured now.
  func merged(into earlier: Results, sections: Set<String>) -> Results {
    var merged = self
    func keep<Value>(_ section: String, _ figure: WritableKeyPath<Results, Value>) {
      if !sections.contains(section) { merged[keyPath: figure] = earlier[keyPath: figure] }
    }
    keep("messages", \.messages)
    keep("commands", \.modes)
    keep("commands", \.start)
    keep("throughput", \.throughput)
    keep("scaling", \.scaling)
    keep("scaling", \.attachment)
    keep("scaling", \.perContainer)
    keep("images", \.images)
    keep("logs", \.logs)
    keep("network", \.network)
    if sections.isSubset(of: ["messages"]) { merged.idleResident = earlier.idleResident }
    let names = Set(peers.map(\.name))
    merged.peers += earlier.peers.filter { !names.contains($0.name) }
    return merged
  }

  func version(_ peer: String) -> String { peers.first { $0.name == peer }?.version ?? "" }
}
