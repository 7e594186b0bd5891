import Contracts
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

@Suite(.enabled(if: TestNamespace.isPossible, "making network namespaces needs root"), .timeLimit(.minutes(2)))
struct BridgeAttachTests {
  @Test func firstContainerGetsDockersAddressAndLeavesNothing() async throws {
    let host = try TestNamespace()
    let inside = try TestNamespace()
    let engine = try TestEngine(host: host)
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    #expect(network.pools == [AddressPool(subnet: "172.17.0.0/16", gateway: "172.17.0.1")])
    #expect(network.options[BridgeOptions.bridgeName] == "docker0")
    let container = ObjectID.random()
    let reply = try await engine.attach(
      container, inside, network,
      ports: [PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)])
    let endpoint = try #require(reply.endpoints.first)
    #expect(endpoint.address == "172.17.0.2")
    #expect(endpoint.hardwareAddress == "02:42:ac:11:00:02")
    #expect(endpoint.gateway == "172.17.0.1")
    #expect(reply.reservations.count == 1)
    #expect(try inside.run("ip -4 -o addr show eth0").contains("172.17.0.2/16 brd 172.17.255.255"))
    #expect(try inside.run("ip route").contains("default via 172.17.0.1 dev eth0"))
    #expect(try inside.run("ip link show eth0").contains("02:42:ac:11:00:02"))
    #expect(try inside.run("ip -6 addr show eth0") == "")
    #expect(try host.run("ip -o link show master docker0").contains("state UP"))
    let rules = try host.run("nft list ruleset")
    #expect(rules.contains("tcp . 8080 : 172.17.0.2 . 80"))
    #expect(rules.contains(#"elements = { "docker0" }"#), "nft(8) lists names as they are")
    #expect(try await engine.check(running: [container]) == [])

    try await engine.detach(container)
    // The reaper may be done with the link already.
    #expect(try await engine.check().allSatisfy { $0.kind == .draining })
    try await engine.drained()
    #expect(try await engine.check() == [])
    #expect(try inside.run("ip -o link show eth0", expecting: 1).contains("does not exist"))
    #expect(try !host.run("nft list ruleset").contains("172.17.0.2"))
    _ = try await engine.bus.request(NetworkDriverRemove(definition: network), driver: "bridge")
    #expect(engine.journal.entries(plugin: "network-bridge") == [])
    #expect(try host.run("nft list ruleset") == "")
    #expect(try !host.run("ip link").contains("docker0"))
    #expect(try host.run("cat /proc/sys/net/ipv4/ip_forward") == "0\n")
  }

  /// Also before the reaper has deleted its link: its namespace may outlive the container.
  @Test func nobodyHearsFromWhoWasTakenOff() async throws {
    let (host, inside, other) = (try TestNamespace(), try TestNamespace(), try TestNamespace())
    let engine = try TestEngine(host: host)
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    let (first, second) = (ObjectID.random(), ObjectID.random())
    _ = try await engine.attach(first, inside, network)
    _ = try await engine.attach(second, other, network)
    // Both know each other's addresses, and the bridge where they are.
    #expect(try other.run("busybox ping -c 1 -W 2 172.17.0.2").contains("1 packets received"))
    #expect(try host.run("busybox ping -c 1 -W 2 172.17.0.2").contains("1 packets received"))
    try await engine.detach(first)
    #expect(try other.run("busybox ping -c 1 -W 1 172.17.0.2", expecting: 1).contains("0 packets received"))
    #expect(try host.run("busybox ping -c 1 -W 1 172.17.0.2", expecting: 1).contains("0 packets received"))
    #expect(try host.run("busybox ping -c 1 -W 2 172.17.0.3").contains("1 packets received"), "its neighbour stays")
    try await engine.drained(running: [second])
  }
}
