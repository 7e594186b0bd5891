import BenchmarkSupport
import CLinux
import Contracts
import Glibc
import Wire

/// One thing to be timed, and the ones it is compared with.
struct Candidate {
  var name: String
  /// What runs before and after it in a round: the commands of one engine.
  var group: String
  /// The names of the candidates whose medians this one's is a ratio of.
  var comparedWith: [String]
  /// Microseconds.
  var measure: () throws -> Double

  init(
    _ name: String, group: String? = nil, comparedWith: [String] = [], measure: @escaping () throws -> Double
  ) {
    self.name = name
    self.group = group ?? name
    self.comparedWith = comparedWith
    self.measure = measure
  }
}

/// The benchmarks, one section after the other. This file is their table of contents.
final class Suite {
  let options: Options
  let peers: Peers
  var results: Results
  private let end: Double
  /// Something that should have been measured was not.
  private(set) var hasFailed = false
  private var left: [(name: String, share: Double)]

  init(_ options: Options) throws {
    self.options = options
    peers = try Peers(options)
    results = Results(runs: options.runs, pauseMilliseconds: Int(options.pause / 1000))
    end = Processes.microseconds() + options.minutes * 60e6
    left = Options.sections.filter { options.only.contains($0.name) }
  }

  func tearDown() { peers.tearDown() }

  func run() throws {
    guard geteuid() == 0 else { throw Processes.Failure(description: "the benchmarks need root") }
    Processes.heedInterruption()
    try section("messages") { try messages(until: $0) }
    if left.isEmpty { return try write() }
    peers.keepRunInMemory()
    try peers.makeRootFileSystem()
    let engine = try peers.startEngine()
    let daemons = try [engine] + [peers.startDocker(), peers.startPodman()].compactMap { $0 }
    let floor = try peers.startRawFloor()
    for peer in daemons { try peer.run(["run", "--rm", "bench", "true"]) }
    // Idle is who has had nothing to do for a while.
    usleep(5_000_000)
    for peer in daemons { results.idleResident[peer.name] = peer.sizes.resident }
    try section("images") { try images(daemons, until: $0) }
    try section("logs") { try logs(daemons, until: $0) }
    try section("network") { try network(daemons, until: $0) }
    try section("commands") {
      try commands(daemons, floor, until: $0)
      results.start = try start(of: engine)
    }
    try section("throughput") { try throughput(daemons, floor, until: $0) }
    try section("scaling") {
      results.attachment = try attachment(directory: peers.directory)
      try scaling(daemons, until: $0)
    }
    try write()
  }

  /// Gives a section its share of the time that is left. What it does not need, the next ones have.
  private func section(_ name: String, _ body: (_ deadline: Double) throws -> Void) throws {
    guard let index = left.firstIndex(where: { $0.name == name }) else { return }
    let now = Processes.microseconds()
    let share = left[index].share / left.map(\.share).reduce(0, +)
    left.remove(at: index)
    do {
      try body(now + max(0, end - now) * share)
    } catch let interruption as Processes.Interruption {
      throw interruption
    } catch {
      fail("\(name), from here on: \(error)")
    }
    // Also where the output is a file or a pipe, one sees how far it is.
    fflush(nil)
  }

  func fail(_ what: String) {
    hasFailed = true
    omit(what)
  }

  func omit(_ what: String) {
    results.omissions.append(what)
    print("not measured: \(what)")
  }

  /// What one message costs, and what else is work without a system call.
  private func messages(until deadline: Double) throws {
    guard access(options.micro, X_OK) == 0 else {
      return omit("messages: \(options.micro) is not there; `make bench` builds it")
    }
    let seconds = max(0.05, min(1, (deadline - Processes.microseconds()) / 1e6 / 40))
    do {
      let text = try Processes.output([options.micro, "--json", "--seconds=\(Text.decimal(seconds, 2))"])
      results.messages = try JSON.decode([Results.Message].self, Array(text.utf8))
    } catch let interruption as Processes.Interruption {
      throw interruption
    } catch {
      return omit("messages: \(error)")
    }
    print("\nmicro benchmarks, nanoseconds")
    print(Text.row("", "p50", "p90", "p99", "of one"))
    for message in results.messages {
      print(
        Text.row(
          "\(message.group): \(message.name)", "\(message.p50)", "\(message.p90)", "\(message.p99)", message.per))
    }
  }

  /// One start, step by step.
  private func start(of engine: Peer) throws -> Results.Start? {
    for _ in 0..<5 { try engine.run(["run", "--rm", "--name", "steps", "bench", "true"]) }
    let text = try engine.output(["inspect", "--timings", "--format", "json", "steps"])
    return try JSON.decode([Results.Start].self, Array(text.utf8)).first
  }

  // MARK: Writing

  private func write() throws {
    results.peers = peers.found
    if options.merges {
      results = results.merged(into: try Files.read(options.output), sections: options.only)
    }
    results.targets = Target.all(results)
    print("")
    for target in results.targets {
      print(Text.row("\(target.what): \(target.limit)", "") + "  \(target.measured ?? "-")  \(target.verdict)")
    }
    if let slash = options.output.lastIndex(of: "/") {
      try Processes.run(["mkdir", "-p", String(options.output[..<slash])])
    }
    try Files.write(results, to: options.output)
  }

  /// The results file and the page beside it.
  enum Files {
    static func read(_ path: String) throws -> Results {
      let text = Processes.read(path)
      if text.isEmpty { throw Processes.Failure(description: "\(path) cannot be read") }
      return try JSON.decode(Results.self, Array(text.utf8))
    }

    static func page(of path: String) -> String {
      (path.hasSuffix(".json") ? String(path.dropLast(5)) : path) + ".html"
    }

    static func write(_ results: Results, to path: String) throws {
      let text = String(decoding: try JSON.encode(results, pretty: true), as: UTF8.self)
      try Processes.write(text + "\n", to: path)
      try Processes.write(Page.html(results), to: page(of: path))
      print("written to \(path) and \(page(of: path))")
    }
  }
}
