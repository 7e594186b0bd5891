import BenchmarkSupport

/// A figure that the engine is held to.
struct Target: Codable, Equatable {
  var what: String
  /// At most or at least this.
  var limit: String
  /// What was measured; nil where nothing was.
  var measured: String?
  var isMet: Bool?

  var verdict: String { isMet.map { $0 ? "met" : "not met" } ?? "not measured" }

  /// Every target with what the results say of it.
  static func all(_ results: Results) -> [Target] {
    var targets: [Target] = []
    func atMost(_ what: String, _ limit: Double, _ text: String, _ value: Double?, _ show: (Double) -> String) {
      targets.append(
        Target(what: what, limit: "at most \(text)", measured: value.map(show), isMet: value.map { $0 <= limit }))
    }
    func atLeast(_ what: String, _ limit: Double, _ text: String, _ value: Double?, _ show: (Double) -> String) {
      targets.append(
        Target(what: what, limit: "at least \(text)", measured: value.map(show), isMet: value.map { $0 >= limit }))
    }
    func ratio(_ value: Double) -> String {
      value < 1 ? "1/\(Text.decimal(1 / value, 1))" : Text.decimal(value, 2)
    }
    let modes = [("hot", results.modes.first), ("with pauses", results.modes.dropFirst().first)]
    for (name, mode) in modes {
      atMost(
        "run, bridge network, \(name)", 1.0 / 40, "1/40 of docker", mode?.ratio("engine run", "docker run"), ratio)
      atMost(
        "run, bridge network, \(name)", 3, "3 x the raw system calls",
        mode?.ratio("engine run", Names.floor), ratio)
      atMost(
        "run with ports, limits and a seccomp profile, \(name)", 1.0 / 35, "1/35 of docker",
        mode?.ratio("engine \(Names.everything)", "docker \(Names.everything)"), ratio)
      atMost(
        "run --network none, \(name)", 1.5, "1.5 x crun",
        mode?.ratio("engine run --network none", "crun run"), ratio)
      atMost("exec, \(name)", 1.0 / 10, "1/10 of docker", mode?.ratio("engine exec", "docker exec"), ratio)
      atMost(
        "200 published ports, \(name)", 1.3, "1.3 x one port",
        mode?.ratio("engine run -p 200 ports", "engine run -p 1 port"), ratio)
    }
    func rate(_ peer: String) -> Double? {
      results.throughput.first { $0.peer == peer && $0.concurrency == 16 }?.perSecond
    }
    atLeast(
      "containers a second, 16 at once", 30, "30 x docker", quotient(rate("engine"), rate("docker")),
      { Text.decimal($0, 1) })
    atMost(
      "memory of an idle container beyond its process", 0.3 * 1024, "0.3 MB",
      results.perContainer["engine"].map(Double.init), { "\(Text.decimal($0 / 1024, 2)) MB" })
    atMost(
      "engined idle, resident", 30 * 1024, "30 MB", results.idleResident["engine"].map(Double.init),
      { "\(Text.decimal($0 / 1024, 1)) MB" })
    func scale(_ peer: String, _ containers: Int) -> Results.Scale? {
      results.scaling.first { $0.peer == peer && $0.containers == containers }
    }
    func list(_ peer: String) -> Double? { scale(peer, 200).map { Double($0.list) } }
    atMost("ps with 200 containers", 0.5, "1/2 of docker", quotient(list("engine"), list("docker")), ratio)
    let link = results.attachment
    atMost(
      "attach of the 300th container, hot", 1.3, "1.3 x the first",
      quotient(link.map { Double($0.last) }, link.map { Double($0.first) }), ratio)
    atMost(
      "attach of the 300th container, with pauses", 1.3, "1.3 x the first",
      quotient(link.map { Double($0.lastAfterPause) }, link.map { Double($0.firstAfterPause) }), ratio)
    for path in [Results.Network.between, Results.Network.fromHost] {
      func speed(_ peer: String) -> Double? {
        results.network.first { $0.peer == peer && $0.path == path }.map { Double($0.megabitsPerSecond) }
      }
      // The way is the same, and two runs of the same differ by more than one per cent.
      atLeast(
        "iperf3, \(path)", 0.97, "docker within 3 %", quotient(speed("engine"), speed("docker")),
        { Text.decimal($0, 2) })
    }
    func message(_ group: String, _ name: String) -> Double? {
      results.messages.first { $0.group == group && $0.name == name }.map { Double($0.p50) / 1000 }
    }
    atMost(
      "bus request in process", 1, "1 µs", message("bus", "a request in process"), { "\(Text.decimal($0, 2)) µs" })
    atMost(
      "bus request over the wire, there and back", 60, "60 µs", message("wire", "a request over the engine's socket"),
      { "\(Text.decimal($0, 1)) µs" })
    return targets
  }

  private static func quotient(_ one: Double?, _ other: Double?) -> Double? {
    guard let one, let other, other > 0 else { return nil }
    return one / other
  }
}

/// Names of rows that several places know.
enum Names {
  static let floor = "raw system calls, bridge"
  static let raw = "raw system calls"
  static let everything = "run -p -m --cpus --security-opt"
}
