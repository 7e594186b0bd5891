import BenchmarkSupport
import BridgeNetworkPlugin
import Contracts
import LinuxSystem

/// Publishing ports: elements of the table's maps.
enum PortProbes: ProbeGroup {
  static let name = "ports"
  private static let counts = [1, 10, 200]
  private static let loads = [0, 1000, 10_000]
  /// The first port that is published; those that are there already lie below.
  private static let first: UInt16 = 20_000

  private static func figure(_ count: Int, _ load: Int) -> FigureName {
    FigureName(
      name: "publish \(count) port\(count == 1 ? "" : "s"), \(load) there",
      floor: "send and recv of one transaction that was built before", curve: "publish, \(load) there", position: count)
  }

  static let figures = loads.flatMap { load in counts.map { figure($0, load) } }

  static func probes(_ names: Set<String>, _ stage: Stage) async throws -> [Probe] {
    var probes: [Probe] = []
    for load in loads {
      let wanted = counts.filter { names.contains(figure($0, load).name) }
      if wanted.isEmpty { continue }
      probes += try await stage.attempt(counts.map { figure($0, load) }) {
        let tables = try Tables(load, stage)
        return wanted.map { count in
          let ports = first...(first + UInt16(count) - 1)
          let transaction = Netfilter.publishing(ports, table: tables.raw.table, map: "published")
          return Probe(.ports, figure(count, load)) { try tables.publish($0, ports, transaction) }
        }
      }
    }
    return probes
  }

  /// Two equal tables, one for each side.
  private final class Tables {
    let engine: BridgeSteps
    let raw: BridgeSteps
    private let socket: SocketBox

    init(_ load: Int, _ stage: Stage) throws {
      func make(_ side: Side) throws -> BridgeSteps {
        let host = try stage.sandbox.host(
          BridgeNetworkPlugin.manifest, "ports-\(side.rawValue)-\(load)", bus: stage.bus)
        let steps = try BridgeSteps(host: host)
        try steps.makeTable()
        if load > 0 { try steps.publish(1...UInt16(load)) }
        return steps
      }
      engine = try make(.engine)
      raw = try make(.raw)
      guard let socket = Netfilter() else { throw EngineError(.unavailable, "the kernel has no nf_tables") }
      self.socket = SocketBox(socket)
    }

    func publish(_ side: Side, _ ports: ClosedRange<UInt16>, _ transaction: [UInt8]) throws -> Int64 {
      let begin = MonotonicClock.now
      let time: Int64
      switch side {
      case .engine:
        try engine.publish(ports)
        time = MonotonicClock.now - begin
        try engine.unpublish(ports)
      case .raw:
        let failure = socket.netfilter.commit(transaction)
        time = MonotonicClock.now - begin
        guard failure == 0 else {
          throw EngineError(.internalFailure, "the raw transaction failed: \(SystemCallError.text(failure))")
        }
        try raw.unpublish(ports)
      }
      return time
    }
  }

  private final class SocketBox {
    let netfilter: Netfilter
    init(_ netfilter: consuming Netfilter) { self.netfilter = netfilter }
  }
}
