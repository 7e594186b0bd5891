import BenchmarkSupport
import CLinux
import Contracts
import Glibc
import Wire

/// One thing to be timed, and the one it is compared with.
struct Candidate {
  var name: String
  /// The names of the candidates whose medians this one's is a ratio of.
  var comparedWith: [String]
  /// Microseconds.
  var measure: () throws -> Double

  init(_ name: String, comparedWith: String..., measure: @escaping () throws -> Double) {
    self.name = name
    self.comparedWith = comparedWith
    self.measure = measure
  }
}

/// The benchmarks, one section after the other. This file is their table of contents.
final class Suite {
  let options: Options
  let peers: Peers
  var results: Results

  init(_ options: Options) throws {
    self.options = options
    peers = try Peers(options)
    results = Results(runs: options.runs, pauseMilliseconds: Int(options.pause / 1000))
  }

  func tearDown() { peers.tearDown() }

  func run() throws {
    guard geteuid() == 0 else { throw Processes.Failure(description: "the benchmarks need root") }
    if options.only.contains("messages") { messages() }
    try peers.makeRootFileSystem()
    let engine = try peers.startEngine()
    let docker = try peers.startDocker()
    let floor = try peers.startRawFloor()
    if options.only.contains("commands") {
      try commands(engine, docker, floor)
      results.start = try start(of: engine)
    }
    if options.only.contains("throughput") { for peer in [engine, docker] { try throughput(peer) } }
    if options.only.contains("scaling") { for peer in [engine, docker] { try scaling(peer) } }
    try write()
  }

  // MARK: Sections

  /// What one message costs.
  private func messages() {
    guard let text = try? Processes.output([options.binaries + "/engine-micro-benchmarks", "--json"]) else { return }
    results.messages = try? JSON.parse(Array(text.utf8))
    print("messages, nanoseconds: \(text)")
  }

  /// Whole commands, hot and with pauses.
  private func commands(_ engine: Peer, _ docker: Peer?, _ floor: (() throws -> Double)?) throws {
    var candidates: [Candidate] = []
    for peer in [engine, docker].compactMap({ $0 }) {
      // They run on; what starts and stops ends at once when it is told to.
      try peer.run(["run", "-d", "--name", "target", "bench", "sleep", "100000"])
      try peer.run(["create", "--name", "cycle", "--stop-signal", "KILL", "bench", "sleep", "100000"])
      candidates += commands(of: peer)
    }
    if let floor { candidates.append(Candidate("raw system calls, bridge", measure: floor)) }
    candidates += try peers.prepareRuntimes()
    for (mode, pause) in [("hot", UInt32(0)), ("with pauses of \(options.pause / 1000) ms", options.pause)] {
      results.modes.append(Results.Mode(mode: mode, results: try measure(candidates, mode: mode, pause: pause)))
    }
    for peer in [engine, docker].compactMap({ $0 }) { try peer.run(["rm", "-f", "target", "cycle"]) }
  }

  private func commands(of peer: Peer) -> [Candidate] {
    let isEngine = peer.name == "engine"
    func candidate(_ name: String, _ others: [String] = [], _ arguments: String...) -> Candidate {
      var candidate = Candidate("\(peer.name) \(name)") { try peer.time(arguments) }
      candidate.comparedWith = isEngine ? ["docker \(name)"] + others : []
      return candidate
    }
    let everything = ["run", "--rm", "-p", "80", "-m", "64m", "--cpus", "1", "bench", "true"]
    var ports = ["run", "--rm"]
    ports += ["-p", "20000-20199:20000-20199", "bench", "true"]
    var candidates = [
      candidate("run", ["raw system calls, bridge"], "run", "--rm", "bench", "true"),
      Candidate("\(peer.name) run -p -m --cpus") { try peer.time(everything) },
      candidate("exec", [], "exec", "target", "true"), candidate("start", [], "start", "cycle"),
      candidate("stop", [], "stop", "cycle"), candidate("ps", [], "ps"),
    ]
    if isEngine {
      candidates[1].comparedWith = ["docker run -p -m --cpus"]
      var none = Candidate("engine run --network none") {
        try peer.time(["run", "--rm", "--network", "none", "bench", "true"])
      }
      none.comparedWith = ["crun run", "runc run"]
      // Two hundred docker-proxy processes a run would take minutes, so this is the engine's alone.
      let one = Candidate("engine run -p 1 port") {
        try peer.time(["run", "--rm", "-p", "20000:20000", "bench", "true"])
      }
      let many = Candidate("engine run -p 200 ports", comparedWith: "engine run -p 1 port") { try peer.time(ports) }
      candidates += [none, one, many]
    }
    return candidates
  }

  /// Every candidate in turn, again and again, so that what disturbs the machine disturbs all of them.
  private func measure(_ candidates: [Candidate], mode: String, pause: UInt32) throws -> [Results.Row] {
    var times: [String: [Double]] = [:]
    for round in 0..<options.runs + 3 {
      for candidate in candidates {
        if pause > 0 { usleep(pause) }
        let time = try candidate.measure()
        if round >= 3 { times[candidate.name, default: []].append(time) }
      }
    }
    print("\n\(mode), \(options.runs) runs, milliseconds")
    print(Text.row("command", "p50", "p90", "min", "compared"))
    var rows: [Results.Row] = []
    for candidate in candidates {
      guard let samples = times[candidate.name].map(Samples.init) else { continue }
      var row = Results.Row(
        name: candidate.name, p50: Int(samples.median), p90: Int(samples.percentile(0.9)),
        p99: Int(samples.percentile(0.99)), min: Int(samples.percentile(0)))
      var comparisons: [String] = []
      for other in candidate.comparedWith {
        guard let peer = times[other].map(Samples.init) else { continue }
        let ratio = samples.median / peer.median
        comparisons.append(Text.ratio(ratio, other))
        row.comparisons.append(Results.Comparison(name: other, ratio: ratio))
      }
      print(
        Text.row(
          candidate.name, Text.decimal(samples.median / 1000, 2), Text.decimal(samples.percentile(0.9) / 1000, 2),
          Text.decimal(samples.percentile(0) / 1000, 2), comparisons.joined(separator: ", ")))
      rows.append(row)
    }
    return rows
  }

  /// One start, step by step.
  private func start(of engine: Peer) throws -> Results.Start? {
    for _ in 0..<5 { try engine.run(["run", "--rm", "--name", "steps", "bench", "true"]) }
    let text = try engine.output(["inspect", "--timings", "--format", "json", "steps"])
    return try JSON.decode([Results.Start].self, Array(text.utf8)).first
  }

  // MARK: Writing

  private func write() throws {
    if let slash = options.output.lastIndex(of: "/") {
      try Processes.run(["mkdir", "-p", String(options.output[..<slash])])
    }
    try write(try JSON.encode(results, pretty: true) + [10], to: options.output)
    let page = options.output.hasSuffix(".json") ? String(options.output.dropLast(5)) : options.output
    try write(Array(Page.html(results).utf8), to: page + ".html")
  }

  private func write(_ bytes: [UInt8], to path: String) throws {
    let file = linux_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard file >= 0 else { throw Processes.Failure(description: "\(path) cannot be written") }
    defer { close(file) }
    var offset = 0
    while offset < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.write(file, $0.baseAddress?.advanced(by: offset), bytes.count - offset)
      }
      guard count > 0 else { throw Processes.Failure(description: "\(path) cannot be written") }
      offset += count
    }
    print("written to \(path)")
  }
}
