import BenchmarkSupport
import Glibc

/// Whole commands, hot and with pauses.
extension Suite {
  func commands(_ daemons: [Peer], _ floor: RawFloorProcess?, until deadline: Double) throws {
    let profile = try profile()
    var candidates: [Candidate] = []
    for peer in daemons {
      // They run on; what starts and stops ends at once when it is told to.
      try peer.run(["run", "-d", "--name", "target", "bench", "sleep", "100000"])
      try peer.run(["create", "--name", "cycle", "--stop-signal", "KILL", "bench", "sleep", "100000"])
      candidates += commands(of: peer, profile: profile)
    }
    if let floor { candidates.append(Candidate(Names.floor, measure: floor.time)) }
    candidates += try peers.prepareRuntimes()
    for (mode, pause) in [("hot", UInt32(0)), ("with pauses of \(options.pause / 1000) ms", options.pause)] {
      let now = Processes.microseconds()
      let end = pause == 0 ? now + (deadline - now) / 2 : deadline
      results.modes.append(try measure(candidates, mode: mode, pause: pause, until: end))
    }
    for peer in daemons { try peer.run(peer.removal + ["target", "cycle"]) }
  }

  /// A seccomp profile of one's own: the distribution's, which has hundreds of rules, or one of a single rule.
  private func profile() throws -> String {
    let theirs = "/usr/share/containers/seccomp.json"
    if access(theirs, R_OK) == 0 { return theirs }
    let path = "\(peers.directory)/seccomp.json"
    let rule = "{\"names\":[\"kexec_load\"],\"action\":\"SCMP_ACT_ERRNO\"}"
    try Processes.write("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[\(rule)]}\n", to: path)
    return path
  }

  private func commands(of peer: Peer, profile: String) -> [Candidate] {
    func candidate(_ name: String, beside others: [String] = [], _ arguments: [String]) -> Candidate {
      let compared = peer.isEngine ? ["docker \(name)", "podman \(name)"] + others : []
      return Candidate("\(peer.name) \(name)", group: peer.name, comparedWith: compared) { try peer.time(arguments) }
    }
    func run(_ name: String, beside others: [String] = [], _ flags: [String]) -> Candidate {
      candidate(name, beside: others, ["run", "--rm"] + flags + ["bench", "true"])
    }
    let limits = ["-m", "64m", "--cpus", "1"]
    let seccomp = ["--security-opt", "seccomp=\(profile)"]
    var candidates = [
      run("run", beside: [Names.floor], []),
      run("run -p", ["-p", "80"]),
      run("run -m --cpus", limits),
      run("run --security-opt", seccomp),
      run(Names.everything, ["-p", "80"] + limits + seccomp),
      run("run --network none", beside: ["crun run", "runc run", "bubblewrap"], ["--network", "none"]),
      candidate("exec", ["exec", "target", "true"]), candidate("start", ["start", "cycle"]),
      candidate("stop", ["stop", "cycle"]), candidate("ps", ["ps"]),
    ]
    // Two hundred processes of docker-proxy a run would take minutes, so these are the engine's alone.
    if peer.isEngine {
      candidates.append(
        Candidate("engine run -p 1 port", group: peer.name) {
          try peer.time(["run", "--rm", "-p", "20000:20000", "bench", "true"])
        })
      candidates.append(
        Candidate("engine run -p 200 ports", group: peer.name, comparedWith: ["engine run -p 1 port"]) {
          try peer.time(["run", "--rm", "-p", "20000-20199:20000-20199", "bench", "true"])
        })
    }
    return candidates
  }

  /// So long nothing is asked of anybody before another engine's turn: most clean up after they have answered.
  private static let rest: UInt32 = 250_000

  /// The commands of each engine beginning with another one in each round: what an engine puts off until so many commands
  /// later would else always meet the same ones. A container is started before it is stopped.
  static func turned(_ candidates: [Candidate], _ round: Int) -> [Candidate] {
    var result: [Candidate] = []
    var rest = candidates[...]
    while let first = rest.first {
      let group = Array(rest.prefix { $0.group == first.group })
      rest = rest.dropFirst(group.count)
      let turns = group.indices.map { ($0 + round) % group.count }
      let begin = turns.first { !group[$0].name.hasSuffix(" start") && !group[$0].name.hasSuffix(" stop") } ?? 0
      result += group[begin...] + group[..<begin]
    }
    return result
  }

  /// Every candidate in turn, again and again, so that what disturbs the machine disturbs all of them. The commands of one
  /// engine follow each other, after one that is not measured: else the first would be measured on what another engine
  /// still does, and on what it left in the caches.
  private func measure(
    _ candidates: [Candidate], mode: String, pause: UInt32, until deadline: Double
  ) throws -> Results.Mode {
    var times: [String: [Double]] = [:]
    var runs = 0
    var broken: Set<String> = []
    for round in 0..<options.runs + 2 {
      var group: String?
      for candidate in Self.turned(candidates, round) where !broken.contains(candidate.name) {
        if candidate.group != group {
          group = candidate.group
          usleep(Self.rest)
          _ = try? candidate.measure()
        }
        if pause > 0 { usleep(pause) }
        do {
          let time = try candidate.measure()
          if round >= 2 { times[candidate.name, default: []].append(time) }
        } catch let failure as Processes.Failure {
          broken.insert(candidate.name)
          fail("\(candidate.name), \(mode), from run \(runs + 1) on: \(failure)")
        }
      }
      if round >= 2 { runs += 1 }
      if runs >= 3, Processes.microseconds() > deadline { break }
    }
    if runs < options.runs { omit("commands, \(mode): \(options.runs - runs) of \(options.runs) runs") }
    print("\n\(mode), \(runs) runs, milliseconds")
    print(Text.row("command", "p50", "p90", "min", "compared"))
    var rows: [Results.Row] = []
    for candidate in candidates {
      guard let samples = times[candidate.name].map(Samples.init) else { continue }
      var row = Results.Row(
        name: candidate.name, p50: Int(samples.median), p90: Int(samples.percentile(0.9)),
        p99: Int(samples.percentile(0.99)), min: Int(samples.percentile(0)))
      for other in candidate.comparedWith {
        guard let peer = times[other].map(Samples.init) else { continue }
        row.comparisons.append(Results.Comparison(name: other, ratio: samples.median / peer.median))
      }
      print(
        Text.row(
          candidate.name, Text.decimal(samples.median / 1000, 2), Text.decimal(samples.percentile(0.9) / 1000, 2),
          Text.decimal(samples.percentile(0) / 1000, 2),
          row.comparisons.map { Text.ratio($0.ratio, $0.name) }.joined(separator: ", ")))
      rows.append(row)
    }
    return Results.Mode(mode: mode, runs: runs, results: rows)
  }
}
