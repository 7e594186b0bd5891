import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

// What one message costs: in process, and over the engine's socket. Every figure is per message; a batch is timed as a
// whole, because reading the clock costs as much as a message.
//
// usage: engine-micro-benchmarks [--json]

struct Echo: Request {
  static let name = "benchmark.echo"
  typealias Reply = Echo
  var text: String
}

struct Relay: Request {
  static let name = "benchmark.relay"
  typealias Reply = Int
  var count: Int
}

struct Figure {
  var name: String
  /// Nanoseconds a message, one for each batch, sorted.
  var samples: [Double]

  func percentile(_ share: Double) -> Double { samples[min(samples.count - 1, Int(Double(samples.count) * share))] }
}

enum Micro {
  static let batches = 200

  static func bus() throws -> Bus {
    let bus = Bus()
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "benchmark", role: "benchmark"))
    try registrar.answer(Echo.self) { (request, _) async throws(EngineError) in request }
    // Within one root request, as plugins ask each other.
    try registrar.answer(Relay.self) { (request, call) async throws(EngineError) in
      let message = Echo(text: "a text of thirty-two characters.")
      let begin = MonotonicClock.now
      for _ in 0..<request.count { _ = try await call.request(message) }
      return Int(MonotonicClock.now - begin)
    }
    return bus
  }

  static func inProcess(_ bus: Bus) async throws -> Figure {
    var samples: [Double] = []
    for batch in 0..<batches + 5 {
      let nanoseconds = try await bus.request(Relay(count: 10_000))
      if batch >= 5 { samples.append(Double(nanoseconds) / 10_000) }
    }
    return Figure(name: "bus request in process", samples: samples.sorted())
  }

  static func root(_ bus: Bus) async throws -> Figure {
    var samples: [Double] = []
    let message = Echo(text: "a text of thirty-two characters.")
    for batch in 0..<batches + 5 {
      let begin = MonotonicClock.now
      for _ in 0..<100 { _ = try await bus.request(message) }
      if batch >= 5 { samples.append(Double(MonotonicClock.now - begin) / 100) }
    }
    return Figure(name: "root request with a lease", samples: samples.sorted())
  }

  static func overTheWire(_ bus: Bus) throws -> Figure {
    let path = "/tmp/engine-micro-\(getpid())"
    let server = try WireServer(bus: bus, listener: try UnixSocket.listen(path), agent: "benchmark")
    defer { unlink(path) }
    guard server.start() else { throw EngineError(.resourceExhausted, "no thread is left") }
    var client = try Client(path: path, agent: "benchmark")
    var samples: [Double] = []
    let message = Echo(text: "a text of thirty-two characters.")
    for batch in 0..<batches + 5 {
      let begin = MonotonicClock.now
      for _ in 0..<20 { _ = try client.request(message) }
      if batch >= 5 { samples.append(Double(MonotonicClock.now - begin) / 20) }
    }
    return Figure(name: "request over the wire", samples: samples.sorted())
  }

  /// A container as JSON, there and back: what is stored and inspected, and what `ps` does for each of its lines.
  static func coding() throws -> [Figure] {
    var configuration = ContainerConfiguration(image: "bench")
    configuration.environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    guard let digest = Digest(hex: String(repeating: "e", count: 64)) else { return [] }
    let record = ContainerRecord(
      id: .random(), name: "quirky_hopper", created: .now, configuration: configuration, imageID: digest,
      layers: [digest], path: "sleep", arguments: ["1000"], environment: configuration.environment,
      workingDirectory: "/", user: "", exposedPorts: [], stopSignal: "", imageLabels: [:], mounts: [], mountPoints: [],
      log: LogOpen.Reply(path: "/var/lib/engine/logs/container.log", maximumSize: 0, maximumFiles: 1))
    return try coding("a container's record", record) + coding("a container's summary", ContainerSummary(record))
  }

  private static func coding<Value: Codable>(_ name: String, _ value: Value) throws -> [Figure] {
    var encoding: [Double] = []
    var decoding: [Double] = []
    for batch in 0..<batches + 5 {
      var bytes: [UInt8] = []
      var begin = MonotonicClock.now
      for _ in 0..<20 { bytes = try JSON.encode(value) }
      if batch >= 5 { encoding.append(Double(MonotonicClock.now - begin) / 20) }
      begin = MonotonicClock.now
      for _ in 0..<20 { _ = try JSON.decode(Value.self, bytes) }
      if batch >= 5 { decoding.append(Double(MonotonicClock.now - begin) / 20) }
    }
    return [
      Figure(name: "encode \(name)", samples: encoding.sorted()),
      Figure(name: "decode \(name)", samples: decoding.sorted()),
    ]
  }

  static func report(_ figures: [Figure], json: Bool) {
    if json {
      let entries = figures.map { figure in
        "{\"name\":\"\(figure.name)\",\"unit\":\"nanoseconds\",\"p50\":\(Int(figure.percentile(0.5))),"
          + "\"p90\":\(Int(figure.percentile(0.9))),\"p99\":\(Int(figure.percentile(0.99)))}"
      }
      print("[\(entries.joined(separator: ","))]")
      return
    }
    for figure in figures {
      print(
        "\(figure.name): p50 \(Int(figure.percentile(0.5))) ns, p90 \(Int(figure.percentile(0.9))) ns, "
          + "p99 \(Int(figure.percentile(0.99))) ns")
    }
  }
}

let bus = try Micro.bus()
let figures =
  [try await Micro.inProcess(bus), try await Micro.root(bus), try Micro.overTheWire(bus)] + (try Micro.coding())
Micro.report(figures, json: CommandLine.arguments.contains("--json"))
