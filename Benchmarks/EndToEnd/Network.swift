import BenchmarkSupport
import CLinux
import Contracts
import Glibc
import Wire

/// Through the network: from container to container, and from the host to a container.
extension Suite {
  /// So many that a median of them is finer than the three per cent of the target; as the time allows.
  private static let rounds = 15
  private static let port: UInt16 = 7000

  func network(_ daemons: [Peer], until deadline: Double) throws {
    if let missing = ["iperf3", "nsenter", "ldd"].first(where: { !Processes.isInstalled($0) }) {
      return omit("network: \(missing) is not installed; `make bench-peers` installs it")
    }
    try makeNetworkImage()
    var addresses: [String: String] = [:]
    for peer in daemons {
      try peer.run(["import", "\(peers.directory)/network.tar", "bench-network"])
      try peer.run(["run", "-d", "--name", "iperf", "bench-network", "/bin/iperf3", "-s"])
      try peer.run([
        "run", "-d", "--name", "pong", "bench-network", "/bin/engine-benchmarks", PingPong.server, "\(Self.port)",
      ])
      try peer.run(["run", "-d", "--name", "client", "bench-network", "sleep", "100000"])
      for name in ["iperf", "pong"] { addresses["\(peer.name) \(name)"] = try peer.address(of: name) }
    }
    // They listen when they have been loaded.
    usleep(500_000)
    var speeds: [String: [Double]] = [:]
    var trips: [String: [[Double]]] = [:]
    for round in 0..<Self.rounds where round < 3 || Processes.microseconds() < deadline {
      for path in [Results.Network.between, Results.Network.fromHost] {
        // Who comes first changes, so that what disturbs one disturbs all in the end.
        let turn = round % daemons.count
        for peer in daemons[turn...] + daemons[..<turn] {
          func run(_ program: String, _ arguments: [String]) throws -> String {
            if path == Results.Network.between {
              return try peer.output(["exec", "client", "/bin/\(program)"] + arguments)
            }
            let host = program == "iperf3" ? program : "/proc/\(getpid())/exe"
            return try Processes.output(peer.besideContainers([host] + arguments))
          }
          let key = "\(peer.name) \(path)"
          let speed = try run("iperf3", ["-c", addresses["\(peer.name) iperf"] ?? "", "-t", "1", "-J"])
          speeds[key, default: []].append(try Self.bitsPerSecond(speed))
          let trip = try run(
            "engine-benchmarks", [PingPong.client, addresses["\(peer.name) pong"] ?? "", "\(Self.port)"])
          trips[key, default: []].append(trip.split(separator: " ").compactMap { Double($0.filter { $0 != "\n" }) })
        }
      }
    }
    print("\nnetwork: gigabits a second (iperf3, one TCP connection), microseconds there and back")
    for path in [Results.Network.between, Results.Network.fromHost] {
      for peer in daemons {
        let key = "\(peer.name) \(path)"
        func trip(_ index: Int) -> Double {
          Samples((trips[key] ?? []).compactMap { $0.count == 3 ? $0[index] : nil }).median
        }
        let row = Results.Network(
          peer: peer.name, path: path, megabitsPerSecond: Int(Samples(speeds[key] ?? []).median / 1e6),
          roundTrip: trip(0), roundTrip90: trip(1), roundTrip99: trip(2))
        results.network.append(row)
        print(Text.row(key, Text.decimal(Double(row.megabitsPerSecond) / 1000, 1), Text.decimal(row.roundTrip, 1)))
      }
    }
    for peer in daemons { try peer.run(peer.removal + ["iperf", "pong", "client"]) }
  }

  /// iperf3's own report of what arrived.
  static func bitsPerSecond(_ text: String) throws -> Double {
    let report = try JSON.parse(Array(text.utf8))
    switch report["end"]?["sum_received"]?["bits_per_second"] {
    case .number(let number): return number
    case .integer(let number): return Double(number)
    default:
      if case .string(let problem) = report["error"] { throw Processes.Failure(description: "iperf3: \(problem)") }
      throw Processes.Failure(description: "iperf3 reports no bits_per_second")
    }
  }

  /// busybox, iperf3 and this program, with the libraries that they are linked with.
  private func makeNetworkImage() throws {
    let root = try peers.makeRootFileSystem("network")
    guard let iperf = Processes.installed("iperf3").first else { return }
    for (program, name) in [(iperf, "iperf3"), ("/proc/\(getpid())/exe", "engine-benchmarks")] {
      try Processes.run(["cp", "-L", program, "\(root)/bin/\(name)"])
      let libraries = Self.libraries(try Processes.output(["ldd", program]))
      if !libraries.isEmpty { try Processes.run(["cp", "-L", "--parents"] + libraries + [root]) }
    }
    try peers.archive("network")
  }

  /// The paths in what ldd(1) prints.
  static func libraries(_ text: String) -> [String] {
    text.split(separator: "\n").compactMap { line in
      line.split(whereSeparator: { $0.isWhitespace }).first { $0.hasPrefix("/") }.map(String.init)
    }
  }
}
