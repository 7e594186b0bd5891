import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

/// Prints how long connecting and disconnecting takes. It asserts nothing about time, and runs only when asked for:
/// `ENGINE_MEASURE=1 swift test --filter BridgeMeasurements`.
@Suite(.enabled(if: TestNamespace.isPossible && getenv("ENGINE_MEASURE") != nil), .serialized)
struct BridgeMeasurements {
  @Test(arguments: [0, 30])
  func attachAndDetach(pause: UInt32) async throws {
    let host = try TestNamespace()
    let engine = try TestEngine(host: host)
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    var times: [String: [Double]] = [:]
    func measure<Value>(_ what: String, _ body: () async throws -> Value) async throws -> Value {
      usleep(pause * 1000)
      let start = Self.microseconds()
      let value = try await body()
      times[what, default: []].append(Self.microseconds() - start)
      return value
    }
    let port = PortBinding(transport: .tcp, hostAddress: "", hostPort: 0, containerPort: 80)
    for _ in 0..<60 {
      for (name, ports) in [("no port", []), ("one port", [port])] {
        let inside = try TestNamespace()
        let container = ObjectID.random()
        _ = try await measure("attach, \(name)") { try await engine.attach(container, inside, network, ports: ports) }
        try await measure("detach, \(name)") { try await engine.detach(container) }
      }
      let inside = try TestNamespace()
      let container = ObjectID.random()
      let request = NetworkDriverAttach(
        container: container, namespace: inside.descriptor,
        attachments: [
          .init(
            definition: network, request: EndpointRequest(network: "bridge"), interface: "eth0", isDefaultRoute: true)
        ], ports: [])
      _ = try await measure("attach, without the bus") { try engine.driver.attach(request) }
      try await measure("detach, without the bus") { try engine.driver.detach(container) }
      let published = PublishedPort(
        transport: .tcp, hostAddress: nil, hostPort: 9, address: IPv4Address(1), port: 80)
      try await measure("publish") { try engine.driver.publish([published]) }
      try await measure("unpublish") { try engine.driver.unpublish([published]) }
      if pause > 0 { try await engine.drained() }
    }
    try await engine.drained()
    for (what, values) in times.sorted(by: { $0.key < $1.key }) {
      let sorted = values.sorted()
      print("pause \(pause) ms: \(what): min \(Int(sorted[0])) median \(Int(sorted[sorted.count / 2])) µs")
    }
  }

  static func microseconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) * 1e6 + Double(time.tv_nsec) / 1e3
  }
}
