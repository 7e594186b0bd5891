import BenchmarkSupport
import Contracts
import Glibc
import Wire

/// What changes with the number of containers.
extension Suite {
  /// Containers made, run to their end and removed, one after the other and several at once.
  ///
  /// A hundred of each, or as many as fit into the peer's part of the time. The raw system calls are made by as many
  /// processes as are to be made at once.
  func throughput(_ daemons: [Peer], _ floor: RawFloorProcess?, until deadline: Double) throws {
    print("\ncontainers run to their end and removed, a second")
    var left = daemons.count * 3
    var floors = [floor].compactMap { $0 }
    defer { for other in floors.dropFirst() { other.end() } }
    for concurrency in [16, 4, 1] {
      for peer in daemons {
        let now = Processes.microseconds()
        let end = now + max(0, deadline - now) / Double(left)
        left -= 1
        var count = 0
        var rates: [Double] = []
        do {
          for _ in 0..<(peer.isEngine ? 5 : 1) where rates.isEmpty || Processes.microseconds() < end {
            let run = try Processes.many(
              100, atOnce: concurrency, until: end, { _ in peer.client + ["run", "--rm", "bench", "true"] },
              environment: peer.environment)
            rates.append(Double(run.count) / run.seconds)
            count = max(count, run.count)
          }
        } catch let failure as Processes.Failure {
          fail("\(peer.name), \(concurrency) containers at once: \(failure)")
          continue
        }
        add(peer.name, count, concurrency, rates)
      }
      guard floor != nil else { continue }
      do {
        while floors.count < concurrency { floors.append(try peers.makeRawFloor(floors.count)) }
        let chosen = Array(floors.prefix(concurrency))
        // The first ones make their bridges.
        _ = try RawFloorProcess.rate(concurrency, of: chosen)
        var rates: [Double] = []
        for _ in 0..<5 { rates.append(try RawFloorProcess.rate(100, of: chosen)) }
        add(Names.raw, 100, concurrency, rates)
      } catch let failure as Processes.Failure {
        fail("\(Names.raw), \(concurrency) containers at once: \(failure)")
      }
    }
  }

  private func add(_ peer: String, _ count: Int, _ concurrency: Int, _ rates: [Double]) {
    let rate = Samples(rates).median
    results.throughput.append(
      Results.Throughput(peer: peer, containers: count, concurrency: concurrency, perSecond: rate))
    print(Text.row("\(peer), \(concurrency) at once, \(count)", Text.decimal(rate, 1)))
  }

  /// Memory, `ps` and the attaching of one more, with more and more idle containers.
  func scaling(_ daemons: [Peer], until deadline: Double) throws {
    for (index, peer) in daemons.enumerated() {
      let now = Processes.microseconds()
      do {
        try scaling(peer, until: now + max(0, deadline - now) / Double(daemons.count - index))
      } catch let failure as Processes.Failure {
        fail("\(peer.name) with idle containers, from here on: \(failure)")
      }
    }
  }

  /// The first and the 300th link on a bridge, out of `engine bench`: there nothing else is done at the same time.
  func attachment(directory: String) throws -> Results.Attachment? {
    struct Report: Decodable {
      struct Figure: Decodable {
        struct Mode: Decodable {
          var engine: Quantiles
        }
        struct Quantiles: Decodable {
          var p50: Int
        }
        var name: String
        var hot: Mode
        var paused: Mode
      }
      var figures: [Figure]
    }
    let path = "\(directory)/attachment.json"
    let command = ["\(options.binaries)/engine", "bench", "--only", "network", "--runs", "60", "--json", path]
    _ = try Processes.output(command)
    let figures = try JSON.decode(Report.self, Array(try Processes.output(["cat", path]).utf8)).figures
    func total(_ ordinal: String, _ mode: (Report.Figure) -> Report.Figure.Mode) throws -> Int {
      let parts = figures.filter { $0.name.hasSuffix(ordinal) }.map { mode($0).engine.p50 }
      guard parts.count == 2 else {
        throw Processes.Failure(description: "engine bench measured \(parts.count) steps of the \(ordinal) link")
      }
      return (parts[0] + parts[1]) / 1000
    }
    let found = Results.Attachment(
      first: try total(", 1st", \.hot), last: try total(", 300th", \.hot),
      firstAfterPause: try total(", 1st", \.paused), lastAfterPause: try total(", 300th", \.paused))
    print(
      "\none link on a bridge: the first \(found.first) us, the 300th \(found.last) us; after pauses "
        + "\(found.firstAfterPause) us, \(found.lastAfterPause) us")
    return found
  }

  private func scaling(_ peer: Peer, until deadline: Double) throws {
    print("\n\(peer.name) with idle containers")
    print(Text.row("containers", "PSS MB", "RSS MB", "ps ms", "ps with pauses, attach, attach with pauses"))
    var count = 0
    for goal in peer.crowds {
      if goal > 0, Processes.microseconds() > deadline {
        omit("\(peer.name) with \(goal) idle containers: no time was left")
        continue
      }
      try peer.fill(goal - count, atOnce: 4)
      count = goal
      // The links of what ended before are deleted in the background; nobody waits for that but these measurements.
      usleep(500_000)
      let sizes = peer.sizes
      var scale = Results.Scale(
        peer: peer.name, containers: count, proportionalSize: sizes.proportional, daemonResident: sizes.resident,
        list: Int(try median { try peer.time(["ps"]) }),
        listAfterPause: Int(try median(pause: options.pause) { try peer.time(["ps"]) }))
      if peer.isEngine {
        scale.attach = Int(try median { try attach(peer) })
        scale.attachAfterPause = Int(try median(pause: options.pause) { try attach(peer) })
      }
      results.scaling.append(scale)
      var texts = [Text.decimal(Double(scale.listAfterPause) / 1000, 2)]
      for time in [scale.attach, scale.attachAfterPause] { if let time { texts.append("\(time) us") } }
      print(
        Text.row(
          "\(count)", Text.decimal(Double(sizes.proportional) / 1024, 1),
          Text.decimal(Double(sizes.resident) / 1024, 1),
          Text.decimal(Double(scale.list) / 1000, 2), texts.joined(separator: ", ")))
    }
    if let slope = Self.slope(results.scaling.filter { $0.peer == peer.name }) {
      results.perContainer[peer.name] = slope
      print("\(peer.name): \(slope) kB of PSS for each container")
    }
    try peer.empty()
  }

  /// Kilobytes of PSS for each container: between 50 and 100, or between the most that there are and one.
  static func slope(_ sizes: [Results.Scale]) -> Int? {
    func size(_ containers: Int) -> Int? { sizes.first { $0.containers == containers }?.proportionalSize }
    if let fifty = size(50), let hundred = size(100) { return (hundred - fifty) / 50 }
    guard let most = sizes.map(\.containers).max(), most > 1, let all = size(most), let one = size(1) else {
      return nil
    }
    return (all - one) / (most - 1)
  }

  /// Microseconds of the step that attaches a container to its networks, as the engine measured it.
  private func attach(_ engine: Peer) throws -> Double {
    try engine.run(["run", "--rm", "--name", "probe", "bench", "true"])
    let format = "{{range .Steps}}{{if eq .Name \"attach network\"}}{{.Duration}}{{end}}{{end}}"
    let text = try engine.output(["inspect", "--timings", "--format", format, "probe"])
    guard let nanoseconds = Double(text.filter { $0.isNumber }) else {
      throw Processes.Failure(description: "no step \"attach network\" in \(text)")
    }
    return nanoseconds / 1000
  }

  private func median(pause: UInt32 = 0, _ measure: () throws -> Double) throws -> Double {
    var times: [Double] = []
    for round in 0..<min(options.runs, 25) + 2 {
      if pause > 0 { usleep(pause) }
      let time = try measure()
      if round >= 2 { times.append(time) }
    }
    return Samples(times).median
  }
}
