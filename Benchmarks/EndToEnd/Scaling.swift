import BenchmarkSupport
import Glibc

/// What changes with the number of containers.
extension Suite {
  /// Containers made, run to their end and removed, one after the other and several at once.
  func throughput(_ peer: Peer?) throws {
    guard let peer else { return }
    let isEngine = peer.name == "engine"
    let containers = isEngine ? 100 : 40
    print("\n\(peer.name), \(containers) containers run to their end and removed")
    for concurrency in [1, 4, 16] {
      var rates: [Double] = []
      for _ in 0..<(isEngine ? 3 : 1) {
        let seconds = try Processes.many(
          containers, atOnce: concurrency, { _ in peer.client + ["run", "--rm", "bench", "true"] },
          environment: peer.environment)
        rates.append(Double(containers) / seconds)
      }
      let rate = rates.sorted()[rates.count / 2]
      results.throughput.append(
        Results.Throughput(peer: peer.name, containers: containers, concurrency: concurrency, perSecond: rate))
      print("\(concurrency) at once: \(Text.decimal(rate, 1)) a second")
    }
  }

  /// Memory, `ps` and the attaching of one more, with more and more idle containers.
  func scaling(_ peer: Peer?) throws {
    guard let peer else { return }
    let isEngine = peer.name == "engine"
    print("\n\(peer.name) with idle containers")
    print(Text.row("containers", "PSS MB", "RSS MB", "ps ms", "ps with pauses, attach, attach with pauses"))
    var count = 0
    for goal in isEngine ? [0, 50, 100, 200, 300] : [0, 50, 100] {
      try peer.fill(goal - count, atOnce: 4)
      count = goal
      // The links of what ended before are deleted in the background; nobody waits for that but these measurements.
      usleep(500_000)
      let sizes = peer.sizes
      var scale = Results.Scale(
        peer: peer.name, containers: count, proportionalSize: sizes.proportional, daemonResident: sizes.resident,
        list: Int(try median { try peer.time(["ps"]) }),
        listAfterPause: Int(try median(pause: options.pause) { try peer.time(["ps"]) }))
      if isEngine {
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
    let sizes = results.scaling.filter { $0.peer == peer.name }
    if let fifty = sizes.first(where: { $0.containers == 50 }),
      let hundred = sizes.first(where: { $0.containers == 100 })
    {
      let slope = (hundred.proportionalSize - fifty.proportionalSize) / 50
      results.perContainer[peer.name] = slope
      print("\(peer.name): \(slope) kB of PSS for each container")
    }
    try peer.empty()
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
