import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

/// A process is killed at every step, and its successor must leave nothing.
@Suite(
  .enabled(if: TestNamespace.isPossible, "making network namespaces needs root"), .serialized, .timeLimit(.minutes(3)))
struct BridgeCrashTests {
  static let network = NetworkDefinition(
    id: ObjectID(String(repeating: "5a", count: 32)) ?? .random(), name: "bridge", driver: "bridge", created: .now,
    isDefault: true)

  @Test(arguments: [
    "bridge.create.linked", "bridge.create.forwarding", "bridge.create.foreign", "bridge.create.configured",
    "bridge.create.tabled", "bridge.attach.recorded", "bridge.attach.linked", "bridge.attach.configured",
    "bridge.attach.published", "bridge.detach.unpublished", "bridge.detach.down", "bridge.reap.deleted",
    "bridge.remove.tabled", "bridge.remove.unlinked",
  ])
  func nothingIsLeft(fault: String) async throws {
    let host = try TestNamespace()
    let inside = try TestNamespace()
    try host.run("iptables-nft -N DOCKER-USER")
    let before = try host.run("nft list ruleset; ip -o link | wc -l; ip -o addr; cat /proc/sys/net/ipv4/ip_forward")
    let directory = "/tmp/bridge-crash-\(getpid())-\(ObjectID.random().short)"
    defer { try? Files.removeTree(directory) }
    let output = try host.run(
      """
      ENGINE_FAULT=\(fault) ENGINE_CRASH_HOST=\(host.path) ENGINE_CRASH_INSIDE=\(inside.path) \
      ENGINE_CRASH_DIRECTORY=\(directory) /proc/\(getpid())/exe --testing-library swift-testing \
      --filter BridgeCrashVictim; test $? = 137 && echo killed
      """, expecting: nil)
    #expect(output.hasSuffix("killed\n"), "\(output)")
    let successor = try TestEngine(host: host, directory: directory)
    let network = try await successor.bus.request(
      NetworkDriverCreate(definition: Self.network), driver: "bridge")
    #expect(network.options[BridgeOptions.bridgeName] == "docker0")
    _ = try await successor.check(repair: true)
    try await successor.drained()
    #expect(try await successor.check() == [])
    let again = try await successor.attach(
      .random(), try TestNamespace(), network,
      ports: [PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)])
    #expect(again.endpoints.first?.address == "172.17.0.2")
    _ = try await successor.check(repair: true)
    try await successor.drained()
    _ = try await successor.bus.request(NetworkDriverRemove(definition: network), driver: "bridge")
    #expect(
      try host.run("nft list ruleset; ip -o link | wc -l; ip -o addr; cat /proc/sys/net/ipv4/ip_forward") == before)
    #expect(successor.journal.entries(plugin: "network-bridge") == [])
  }
}

/// What is killed: a whole life of a network and a container, in the process that the test above starts.
@Suite(.enabled(if: getenv("ENGINE_CRASH_HOST") != nil, "only in the process that the crash test starts"))
struct BridgeCrashVictim {
  @Test func live() async throws {
    func variable(_ name: String) throws -> String { String(cString: try #require(getenv(name))) }
    let engine = try TestEngine(
      host: try TestNamespace(path: try variable("ENGINE_CRASH_HOST")),
      directory: try variable("ENGINE_CRASH_DIRECTORY"))
    let network = try await engine.bus.request(
      NetworkDriverCreate(definition: BridgeCrashTests.network), driver: "bridge")
    let container = ObjectID.random()
    let held = try await engine.attach(
      container, try TestNamespace(path: try variable("ENGINE_CRASH_INSIDE")), network,
      ports: [
        PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80),
        PortBinding(transport: .udp, hostAddress: "127.0.0.1", hostPort: 8081, containerPort: 80),
      ])
    try await engine.detach(container)
    try await engine.drained()
    _ = try await engine.bus.request(NetworkDriverRemove(definition: network), driver: "bridge")
    withExtendedLifetime(held) {}
  }
}
