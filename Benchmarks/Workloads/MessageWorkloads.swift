import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Wire

struct Echo: Request {
  static let name = "benchmark.echo"
  typealias Reply = Echo
  var text: String
}

/// Sends so many of `Echo` within one root request, as plugins ask each other.
struct Relay: Request {
  static let name = "benchmark.relay"
  typealias Reply = Int
  var count: Int
}

/// Messages in process and over the engine's socket, and what they carry as JSON.
final class MessageWorkloads {
  private static let message = Echo(text: "a text of thirty-two characters.")

  private let bus = Bus()
  private let server: WireServer
  private let path = "/tmp/engine-workloads-\(getpid())-\(ObjectID.random().short)"
  private var client: Client

  init() throws {
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "benchmark", role: "benchmark"))
    try registrar.answer(Echo.self) { (request, _) async throws(EngineError) in request }
    try registrar.answer(Relay.self) { (request, call) async throws(EngineError) in
      for _ in 0..<request.count { _ = try await call.request(Self.message) }
      return request.count
    }
    server = try WireServer(bus: bus, listener: try UnixSocket.listen(path), agent: "benchmark")
    guard server.start() else { throw EngineError(.resourceExhausted, "no thread is left") }
    client = try Client(path: path, agent: "benchmark")
  }

  deinit { unlink(path) }

  var all: [Workload] {
    get throws {
      let bus = bus
      return [
        Workload("bus", "a request in process", per: "message", count: 5000) {
          _ = try Self.waiting { () async throws(EngineError) in try await bus.request(Relay(count: 5000)) }
        },
        Workload("bus", "a root request with its lease", per: "message", count: 200) {
          _ = try Self.waiting { () async throws(EngineError) in
            for _ in 0..<200 { _ = try await bus.request(Self.message) }
            return 200
          }
        },
        Workload("wire", "a request over the engine's socket", per: "message", count: 1) { [self] in
          _ = try client.request(Self.message)
        },
      ] + (try encoding())
    }
  }

  /// A container as JSON, there and back: what is stored and inspected, and what `ps` does for each of its lines.
  private func encoding() throws -> [Workload] {
    var configuration = ContainerConfiguration(image: "bench")
    configuration.environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    guard let digest = Digest(hex: String(repeating: "e", count: 64)) else { return [] }
    let record = ContainerRecord(
      id: .random(), name: "quirky_hopper", created: .now, configuration: configuration, imageID: digest,
      layers: [digest], path: "sleep", arguments: ["1000"], environment: configuration.environment,
      workingDirectory: "/", user: "", exposedPorts: [], stopSignal: "", imageLabels: [:], mounts: [], mountPoints: [],
      log: LogOpen.Reply(path: "/var/lib/engine/logs/container.log", maximumSize: 0, maximumFiles: 1))
    return try coding("record", record) + coding("summary", ContainerSummary(record))
  }

  private func coding<Value: Codable>(_ name: String, _ value: Value) throws -> [Workload] {
    let bytes = try JSON.encode(value)
    return [
      Workload("encoding", "encode a container's \(name)", per: "value", count: 20) {
        for _ in 0..<20 { _ = try JSON.encode(value) }
      },
      Workload("encoding", "decode a container's \(name)", per: "value", count: 20) {
        for _ in 0..<20 { _ = try JSON.decode(Value.self, bytes) }
      },
    ]
  }

  /// Runs `body` in a task while this thread waits.
  private static func waiting(_ body: @escaping @Sendable () async throws(EngineError) -> Int) throws -> Int {
    let event = OwnedDescriptor(adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) })
    let number = event.number
    let outcome = Outcome()
    Task {
      let result: Result<Int, EngineError>
      do throws(EngineError) {
        result = .success(try await body())
      } catch {
        result = .failure(error)
      }
      outcome.value.withLock { $0 = result }
      eventfd_write(number, 1)
    }
    var count: UInt64 = 0
    while eventfd_read(number, &count) < 0 && errno == EINTR {}
    withExtendedLifetime(event) {}
    guard let result = outcome.value.withLock({ $0 }) else { return 0 }
    return try result.get()
  }

  private final class Outcome: Sendable {
    let value = Mutex<Result<Int, EngineError>?>(nil)
  }
}
