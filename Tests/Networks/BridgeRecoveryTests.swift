import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

/// What holds when something is refused, breaks, or a former engine died.
@Suite(.enabled(if: TestNamespace.isPossible, "making network namespaces needs root"), .timeLimit(.minutes(2)))
struct BridgeRecoveryTests {
  private let host: TestNamespace
  private let engine: TestEngine
  private let network: NetworkDefinition

  init() async throws {
    host = try TestNamespace()
    engine = try TestEngine(host: host)
    network = try await engine.create("bridge", isDefault: true)
  }

  private func port(_ number: UInt16, _ end: UInt16? = nil) -> PortBinding {
    PortBinding(transport: .tcp, hostAddress: "", hostPort: number, hostPortEnd: end, containerPort: 80)
  }

  private func port(_ transport: TransportProtocol, _ address: String, _ number: UInt16) -> PortBinding {
    PortBinding(transport: transport, hostAddress: address, hostPort: number, containerPort: 80)
  }

  @Test func aBusyPortIsRefusedInDockersWordsAndLeavesNothing() async throws {
    defer { engine.removeFiles() }
    let (first, second) = (try TestNamespace(), try TestNamespace())
    let container = ObjectID.random()
    let held = try await engine.attach(container, first, network, ports: [port(8080), port(.udp, "", 8080)])
    let before = engine.journal.entries(plugin: "network-bridge")
    let cases: [(PortBinding, EngineError)] = [
      (port(8080), EngineError(.conflict, "\(failed)Bind for 0.0.0.0:8080 failed: port is already allocated")),
      (
        port(.tcp, "127.0.0.1", 8080),
        EngineError(.conflict, "\(failed)Bind for 127.0.0.1:8080 failed: port is already allocated")
      ),
      (
        port(.udp, "", 8080), EngineError(.conflict, "\(failed)Bind for 0.0.0.0:8080 failed: port is already allocated")
      ),
      (
        port(.tcp, "9.9.9.9", 80),
        EngineError(.invalidArgument, "\(failed)Bind for 9.9.9.9:80 failed: Cannot assign requested address")
      ),
      (port(.tcp, "300.1.1.1", 80), EngineError(.invalidArgument, "invalid IP address: 300.1.1.1")),
      (port(.tcp, "::", 80), EngineError(.unsupported, "ports are published on IPv4 addresses only, not on [::]")),
    ]
    for (binding, expected) in cases {
      // A good port before the bad one must be given back too.
      await #expect(throws: expected) {
        _ = try await engine.attach(.random(), second, network, ports: [port(9000), binding])
      }
    }
    #expect(engine.journal.entries(plugin: "network-bridge") == before)
    #expect(try await engine.check(running: [container]) == [])
    let free = try await engine.attach(.random(), second, network, ports: [port(9000), port(8079, 8090), port(0)])
    #expect(free.endpoints.first?.address == "172.17.0.3")
    #expect(free.ports[0].hostPort == 9000)
    #expect(free.ports[1].hostPort == 8079)
    #expect(free.ports[2].hostPort >= 1024)
    withExtendedLifetime(held) {}
  }

  /// Nothing of an engine stays on the host that runs nothing; the next one makes its networks as they were.
  @Test func anEngineThatEndsTakesItsNetworksAlong() async throws {
    defer { engine.removeFiles() }
    let look = "nft list tables; ip -o link | grep -v ' lo:'; cat /proc/sys/net/ipv4/ip_forward"
    let own = try await engine.create("own")
    let container = ObjectID.random()
    _ = try await engine.attach(container, try TestNamespace(), own, ports: [port(8080)])
    await engine.stop()
    #expect(try host.run("nft list ruleset").contains("8080"), "somebody is connected")
    #expect(try host.run("ip -o link").contains("docker0") && host.run("cat /proc/sys/net/ipv4/ip_forward") == "1\n")
    try await engine.detach(container)
    try await engine.drained()
    // Somebody took one away before.
    try host.run("ip link delete docker0")
    await engine.stop()
    #expect(try host.run(look) == "0\n")
    #expect(engine.journal.entries(plugin: "network-bridge") == [])

    let successor = try TestEngine(host: host, directory: engine.directory)
    for definition in [network, own] {
      #expect(
        try await successor.bus.request(NetworkDriverCreate(definition: definition), driver: "bridge") == definition)
    }
    let again = try await successor.attach(.random(), try TestNamespace(), own, ports: [port(8080)])
    #expect(again.endpoints.first?.address == "172.18.0.2")
  }

  private var failed: String { "driver failed programming external connectivity on endpoint: " }

  @Test func aRangeTakesTheFirstFreePort() async throws {
    defer { engine.removeFiles() }
    let inside = try TestNamespace()
    let reply = try await engine.attach(.random(), inside, network, ports: [port(7000, 7002), port(7000, 7002)])
    #expect(reply.ports.map(\.hostPort) == [7000, 7001])
    #expect(reply.ports.map(\.hostPortEnd) == [7000, 7001])
  }

  @Test func aFailureInsideLeavesNothing() async throws {
    defer { engine.removeFiles() }
    let inside = try TestNamespace()
    try inside.run("ip link add eth0 type bridge")
    await #expect(throws: EngineError.self) {
      _ = try await engine.attach(.random(), inside, network, ports: [port(8080)])
    }
    try await engine.drained()
    #expect(try await engine.check() == [])
    #expect(try !host.run("nft list ruleset").contains("8080"))
    let other = try await engine.attach(.random(), try TestNamespace(), network, ports: [port(8080)])
    #expect(other.endpoints.first?.address == "172.17.0.2")
  }

  @Test func fixedAddressesAreCheckedAndHeldWhileTheLinkDrains() async throws {
    defer { engine.removeFiles() }
    let (first, second) = (try TestNamespace(), try TestNamespace())
    let container = ObjectID.random()
    _ = try await engine.attach(container, first, network, address: "172.17.0.2")
    await #expect(throws: EngineError(.conflict, "Address already in use: 172.17.0.2")) {
      _ = try await engine.attach(.random(), second, network, address: "172.17.0.2")
    }
    await #expect(throws: EngineError(.invalidArgument, "invalid IPv4 address: seven")) {
      _ = try await engine.attach(.random(), second, network, address: "seven")
    }
    try await engine.detach(container)
    try await engine.drained()
    let again = try await engine.attach(.random(), second, network, address: "172.17.0.2")
    #expect(again.endpoints.first?.hardwareAddress == "02:42:ac:11:00:02")
  }

  @Test func anotherEngineTakesOverWhatRuns() async throws {
    defer { engine.removeFiles() }
    let (first, second) = (try TestNamespace(), try TestNamespace())
    let (running, dead) = (ObjectID.random(), ObjectID.random())
    let held = try await engine.attach(running, first, network, ports: [port(8080)])
    _ = try await engine.attach(dead, second, network, ports: [port(8081)])
    let service = try AddressEcho(first, port: 80)
    let successor = try TestEngine(host: host, directory: engine.directory)
    let same = try await successor.bus.request(NetworkDriverCreate(definition: network), driver: "bridge")
    #expect(same == network)
    #expect(try Traffic.ask(from: host, "127.0.0.1", 8080) == "172.17.0.1")
    let found = try await successor.check(running: [running], repair: true)
    #expect(found.count == 2 && found.allSatisfy { $0.kind == .leftover && $0.object.contains(dead.short) })
    try await successor.drained(running: [running])
    #expect(try await successor.check(running: [running]) == [])
    let next = try await successor.attach(.random(), try TestNamespace(), network)
    #expect(next.endpoints.first?.address == "172.17.0.3")
    try await successor.detach(running)
    #expect(try Traffic.ask(from: host, "127.0.0.1", 8080, milliseconds: 200) == nil)
    withExtendedLifetime((held, service)) {}
  }

  @Test func brokenThingsAreFoundAndRepaired() async throws {
    defer { engine.removeFiles() }
    let inside = try TestNamespace()
    let container = ObjectID.random()
    let held = try await engine.attach(container, inside, network, ports: [port(8080), port(.tcp, "127.0.0.1", 8081)])
    let service = try AddressEcho(inside, port: 80)
    try host.run(
      "nft flush map inet engine published; nft add element inet engine published '{ tcp . 99 : 172.17.0.9 . 80 }'")
    let objects = Set(try await engine.check(running: [container], repair: true).map { "\($0.kind) \($0.object)" })
    #expect(
      objects == [
        "missing published port tcp,,8080,172.17.0.2,80 of container \(container.short)",
        "leftover published port tcp,,99,172.17.0.9,80",
      ])
    #expect(try await engine.check(running: [container]) == [])
    #expect(try Traffic.ask(from: host, "127.0.0.1", 8080) == "172.17.0.1")

    try host.run("nft flush ruleset")
    #expect(try await engine.check(running: [container]).map(\.kind).allSatisfy { $0 == .missing })
    let other = try await engine.attach(.random(), try TestNamespace(), network, ports: [port(8082)])
    #expect(try Traffic.ask(from: host, "127.0.0.1", 8080) == "172.17.0.1")
    #expect(try Traffic.ask(from: host, "127.0.0.1", 8081) == "172.17.0.1")
    withExtendedLifetime((held, other, service)) {}
  }

  @Test func aStaleElementOfACrashGivesWay() async throws {
    defer { engine.removeFiles() }
    try host.run("nft add element inet engine published '{ tcp . 8080 : 172.17.0.9 . 1 }'")
    let inside = try TestNamespace()
    let reply = try await engine.attach(.random(), inside, network, ports: [port(8080)])
    let service = try AddressEcho(inside, port: 80)
    #expect(try Traffic.ask(from: host, "127.0.0.1", 8080) == "172.17.0.1")
    withExtendedLifetime((reply, service)) {}
  }

  @Test func aUDPClientFollowsThePublishedPort() async throws {
    defer { engine.removeFiles() }
    let (first, second) = (try TestNamespace(), try TestNamespace())
    let binding = PortBinding(transport: .udp, hostAddress: "", hostPort: 5353, containerPort: 53)
    let client = try host.inside { try Traffic.bound(SOCK_DGRAM, "0.0.0.0", 4000) }
    defer { close(client) }
    var container = ObjectID.random()
    var held = try await engine.attach(container, first, network, ports: [binding])
    let services = [try AddressEcho(first, port: 53, udp: true), try AddressEcho(second, port: 53, udp: true)]
    #expect(try Traffic.ask(from: host, "127.0.0.1", 5353, udp: true, socket: client) == "172.17.0.1")
    try await engine.detach(container)
    held = NetworkDriverAttach.Reply(endpoints: [], ports: [], reservations: [])
    container = .random()
    held = try await engine.attach(container, second, network, address: "172.17.0.3", ports: [binding])
    #expect(try Traffic.ask(from: host, "127.0.0.1", 5353, udp: true, socket: client) == "172.17.0.1")
    withExtendedLifetime((held, services)) {}
  }

  @Test(arguments: [false, true])
  func networksWithoutNeighboursOrOutside(bridgesCallRules: Bool) async throws {
    defer { engine.removeFiles() }
    try host.run(
      "test ! -e /proc/sys/net/bridge || echo \(bridgesCallRules ? 1 : 0) > /proc/sys/net/bridge/bridge-nf-call-iptables"
    )
    let lonely = try await engine.create("lonely", options: [BridgeOptions.connects: "false"])
    let inner = try await engine.create("inner", isInternal: true)
    let spaces = try (0..<5).map { _ in try TestNamespace() }
    let services = try spaces.map { try AddressEcho($0, port: 80) }
    var replies: [NetworkDriverAttach.Reply] = []
    for (space, network) in zip(spaces, [lonely, lonely, inner, inner, network]) {
      replies.append(try await engine.attach(.random(), space, network, ports: [port(0)]))
    }
    let addresses = replies.compactMap(\.endpoints.first?.address)
    #expect(addresses == ["172.18.0.2", "172.18.0.3", "172.19.0.2", "172.19.0.3", "172.17.0.2"])
    #expect(try Traffic.ask(from: spaces[0], addresses[1], 80, milliseconds: 200) == nil)
    #expect(try Traffic.ask(from: host, addresses[1], 80) == "172.18.0.1")
    let published = try #require(replies[1].ports.first?.hostPort)
    #expect(try Traffic.ask(from: spaces[0], "172.18.0.1", published) == "172.18.0.1")
    #expect(try Traffic.ask(from: spaces[2], addresses[3], 80) == addresses[2])
    #expect(replies[2].ports.isEmpty && replies[2].reservations.isEmpty && replies[2].endpoints[0].gateway == "")
    #expect(try !spaces[2].run("ip route").contains("default"))
    try spaces[2].run("ip route add default via 172.19.0.1")
    #expect(try Traffic.ask(from: spaces[2], addresses[4], 80, milliseconds: 200) == nil)
    #expect(try Traffic.ask(from: spaces[4], addresses[2], 80, milliseconds: 200) == nil)
    withExtendedLifetime(services) {}
  }

  @Test func aNetworkInUseIsNotRemoved() async throws {
    defer { engine.removeFiles() }
    let container = ObjectID.random()
    _ = try await engine.attach(container, try TestNamespace(), network)
    await #expect(throws: EngineError(.inUse, "network bridge has active endpoints: \(container.short)")) {
      _ = try await engine.bus.request(NetworkDriverRemove(definition: network), driver: "bridge")
    }
  }

  @Test func theUsersOwnBridgeStays() async throws {
    defer { engine.removeFiles() }
    try host.run("ip link add mine type bridge && ip addr add 10.5.0.1/24 dev mine")
    let definition = try await engine.create(
      "mine", pools: [AddressPool(subnet: "10.5.0.0/24", gateway: "10.5.0.1")],
      options: [BridgeOptions.bridgeName: "mine"])
    let container = ObjectID.random()
    let reply = try await engine.attach(container, try TestNamespace(), definition)
    #expect(reply.endpoints.first?.address == "10.5.0.2")
    try await engine.detach(container)
    _ = try await engine.bus.request(NetworkDriverRemove(definition: definition), driver: "bridge")
    #expect(try host.run("ip link show mine").contains("mine"))
  }

  @Test func manyPortsGoInOneTransaction() async throws {
    defer { engine.removeFiles() }
    let ports = (1...5000).map {
      PublishedPort(
        transport: .tcp, hostAddress: $0 % 2 == 0 ? nil : IPv4Address(0x7f00_0001), hostPort: UInt16($0),
        address: IPv4Address(0xac11_0002), port: 80)
    }
    try engine.driver.publish(ports)
    #expect(try await Set(engine.check().map(\.object)).count == 5000)
    try engine.driver.unpublish(ports)
    #expect(try await engine.check() == [])
  }

  @Test func aContainerWhoseNamespaceIsGoneIsTakenOff() async throws {
    defer { engine.removeFiles() }
    let container = ObjectID.random()
    var inside: TestNamespace? = try TestNamespace()
    _ = try await engine.attach(container, try #require(inside), network, ports: [port(8080)])
    inside = nil
    while try host.run("ip -o link show master docker0").contains("veth") { usleep(1000) }
    try await engine.detach(container)
    try await engine.drained()
    #expect(try await engine.check() == [])
    #expect(engine.journal.entries(plugin: "network-bridge", kind: AttachedLink.kind) == [])
  }

  @Test func aDefaultNetworkThatWasNeverRecordedGivesDocker0Back() async throws {
    defer { engine.removeFiles() }
    let successor = try TestEngine(host: host, directory: engine.directory)
    let again = try await successor.create("bridge", isDefault: true)
    #expect(again.options[BridgeOptions.bridgeName] == "docker0")
    #expect(again.pools.first?.subnet == "172.17.0.0/16")
    #expect(successor.journal.entries(plugin: "network-bridge", kind: BridgeState.networkKind).count == 1)
  }

  @Test func forwardingIsRepaired() async throws {
    defer { engine.removeFiles() }
    try host.run("echo 0 > /proc/sys/net/ipv4/ip_forward; nft flush chain inet engine forward")
    #expect(try await engine.check(repair: true).map(\.object) == ["forwarding (net.ipv4.ip_forward)"])
    #expect(try await engine.check() == [])
    #expect(try host.run("nft list chain inet engine forward").contains("ct status dnat"))
  }

  @Test func aForeignDropIsFound() async throws {
    defer { engine.removeFiles() }
    try host.run(
      "nft add table inet fw; nft add chain inet fw through '{ type filter hook forward priority 0; policy drop; }'")
    try host.run(
      "nft add table ip6 fw; nft add chain ip6 fw through '{ type filter hook forward priority 0; policy drop; }'")
    try host.run("nft add table inet ok; nft add chain inet ok through '{ type filter hook forward priority 0; }'")
    let found = try engine.driver.netfilter.with { (socket) throws(SystemCallError) in
      try socket.foreignForwardChains(except: "engine", place: (table: "filter", chain: "DOCKER-USER")).droppers
    }
    #expect(found == ["inet fw through"])
  }
}

/// Switching forwarding on for containers must not make a router for everybody.
@Suite(.enabled(if: TestNamespace.isPossible, "making network namespaces needs root"), .timeLimit(.minutes(2)))
struct BridgeForeignForwardingTests {
  @Test(arguments: [false, true])
  func foreignForwardingStaysAsItWas(wasOn: Bool) async throws {
    let (host, left, right) = (try TestNamespace(), try TestNamespace(), try TestNamespace())
    for (index, space) in [left, right].enumerated() {
      try host.run("ip link add h\(index) type veth peer name wire && ip link set wire netns \(space.path)")
      try host.run("ip addr add 10.\(index).0.1/24 dev h\(index) && ip link set h\(index) up")
      try space.run(
        "ip addr add 10.\(index).0.2/24 dev wire && ip link set wire up && ip route add default via 10.\(index).0.1")
    }
    try host.run("echo \(wasOn ? 1 : 0) > /proc/sys/net/ipv4/ip_forward")
    let engine = try TestEngine(host: host)
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    let service = try AddressEcho(right, port: 80)
    #expect(try host.run("cat /proc/sys/net/ipv4/ip_forward") == "1\n")
    let seen = try Traffic.ask(from: left, "10.1.0.2", 80, milliseconds: wasOn ? 3000 : 200)
    #expect(seen == (wasOn ? "10.0.0.2" : nil))
    _ = try await engine.bus.request(NetworkDriverRemove(definition: network), driver: "bridge")
    #expect(try host.run("cat /proc/sys/net/ipv4/ip_forward") == (wasOn ? "1\n" : "0\n"))
    withExtendedLifetime(service) {}
  }
}
