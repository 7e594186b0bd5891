import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

/// A foreign firewall that drops what is forwarded.
enum ForeignDrop: String, CaseIterable, CustomTestStringConvertible {
  case none
  /// As Docker's on Debian: `iptables-nft` with policy drop and the chain DOCKER-USER.
  case docker
  /// Somebody's own tables, which do what the engine's warning says.
  case advised

  var testDescription: String { rawValue }
}

/// Every way that packets take, in namespaces: a host, somebody outside, and containers on two bridges.
@Suite(
  .enabled(if: TestNamespace.isPossible, "making network namespaces needs root"), .serialized, .timeLimit(.minutes(2)))
struct BridgeMatrixTests {
  @Test(arguments: [false, true], ForeignDrop.allCases)
  func packetsGoWhereTheyShall(bridgesCallRules: Bool, foreign: ForeignDrop) async throws {
    let host = try TestNamespace()
    let outside = try TestNamespace()
    let (first, second, third) = (try TestNamespace(), try TestNamespace(), try TestNamespace())
    try connect(host, outside)
    try host.run(
      "test ! -e /proc/sys/net/bridge || echo \(bridgesCallRules ? 1 : 0) > /proc/sys/net/bridge/bridge-nf-call-iptables"
    )
    if foreign == .docker {
      try host.run(
        """
        iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN;
        iptables-nft -I FORWARD -j DOCKER-USER
        """)
    }
    if foreign == .advised {
      try host.run("iptables-nft -P FORWARD DROP")
      try host.run(
        "nft add table inet fw; nft 'add chain inet fw gate { type filter hook forward priority 0; policy drop; }'")
    }
    let engine = try TestEngine(host: host)
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    let other = try await engine.create("other")
    #expect(other.pools.first?.subnet == "172.18.0.0/16")
    let ids = [ObjectID.random(), .random(), .random()]
    _ = try await engine.attach(
      ids[0], first, network,
      ports: [
        PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80),
        PortBinding(transport: .udp, hostAddress: "", hostPort: 5353, containerPort: 53),
        PortBinding(transport: .tcp, hostAddress: "127.0.0.1", hostPort: 8081, containerPort: 80),
        PortBinding(transport: .tcp, hostAddress: "10.9.0.1", hostPort: 8082, containerPort: 80),
      ])
    _ = try await engine.attach(ids[1], second, network)
    _ = try await engine.attach(ids[2], third, other)
    let services = [
      try AddressEcho(first, port: 80), try AddressEcho(first, port: 53, udp: true), try AddressEcho(second, port: 80),
      try AddressEcho(third, port: 80), try AddressEcho(outside, port: 80),
      try AddressEcho(host, address: "127.0.0.1", port: 631),
      try AddressEcho(host, address: "127.0.0.1", port: 631, udp: true),
    ]
    defer { withExtendedLifetime(services) {} }

    if foreign == .advised {
      let silence = try Traffic.ask(from: first, "10.9.0.2", 80, milliseconds: 150)
      #expect(silence == nil, "before the advice")
      for chain in ["ip filter FORWARD", "inet fw gate"] { try host.run(BridgeDriver.remedy(chain)) }
    }

    func expect(
      _ what: Comment, _ from: TestNamespace, _ address: String, _ port: UInt16, udp: Bool = false, sees: String?,
      location: SourceLocation = #_sourceLocation
    ) throws {
      let seen = try Traffic.ask(from: from, address, port, udp: udp, milliseconds: sees == nil ? 150 : 3000)
      #expect(seen == sees, what, sourceLocation: location)
    }
    try expect("localhost", host, "127.0.0.1", 8080, sees: "172.17.0.1")
    try expect("localhost, UDP", host, "127.0.0.1", 5353, udp: true, sees: "172.17.0.1")
    try expect("a port of localhost alone", host, "127.0.0.1", 8081, sees: "172.17.0.1")
    try expect("a port of localhost alone, from outside", outside, "10.9.0.1", 8081, sees: nil)
    try expect("a port of one address", outside, "10.9.0.1", 8082, sees: "10.9.0.2")
    try expect("a port of one address, at another", host, "127.0.0.1", 8082, sees: nil)
    try expect("the host's own address", host, "10.9.0.1", 8080, sees: "10.9.0.1")
    try expect("the host to the container", host, "172.17.0.2", 80, sees: "172.17.0.1")
    try expect("outside keeps its address", outside, "10.9.0.1", 8080, sees: "10.9.0.2")
    try expect("outside keeps its address, UDP", outside, "10.9.0.1", 5353, udp: true, sees: "10.9.0.2")
    try expect("hairpin to itself", first, "10.9.0.1", 8080, sees: "172.17.0.1")
    try expect("hairpin to itself by gateway", first, "172.17.0.1", 8080, sees: "172.17.0.1")
    try expect("hairpin to itself, UDP", first, "10.9.0.1", 5353, udp: true, sees: "172.17.0.1")
    try expect("hairpin to its neighbour", second, "10.9.0.1", 8080, sees: "172.17.0.1")
    try expect("between networks by published port", third, "10.9.0.1", 8080, sees: "172.18.0.2")
    try expect("neighbours on a bridge", first, "172.17.0.3", 80, sees: "172.17.0.2")
    try expect("other bridge's container", first, "172.18.0.2", 80, sees: nil)
    try expect("other bridge's container, back", third, "172.17.0.3", 80, sees: nil)
    try expect("container to outside is masqueraded", first, "10.9.0.2", 80, sees: "10.9.0.1")
    try outside.run("ip route add 172.17.0.0/16 via 10.9.0.1")
    try expect("outside, routed past the published ports", outside, "172.17.0.3", 80, sees: nil)
    // A container may not reach what the host serves on its loopback, whatever routes it makes itself.
    try first.run("ip route add 127.0.0.0/8 via 172.17.0.1 table 99; ip rule add to 127.0.0.0/8 lookup 99 pref 0")
    try first.run(
      "ip rule del lookup local; ip rule add lookup local pref 10; sysctl -qw net.ipv4.conf.eth0.route_localnet=1")
    try first.run("ip rule add from all to 127.0.0.0/8 iif lo lookup 99 pref 1")
    try expect("the host's loopback", first, "127.0.0.1", 631, sees: nil)
    try expect("the host's loopback, UDP", first, "127.0.0.1", 631, udp: true, sees: nil)
    // The same ways are open without the rules that close them, so the silence above is those rules' doing.
    try host.run("nft flush chain inet engine loopback")
    try expect("the host's loopback, unguarded", first, "127.0.0.1", 631, sees: "172.17.0.2")
    try expect("the host's loopback, UDP, unguarded", first, "127.0.0.1", 631, udp: true, sees: "172.17.0.2")
    if foreign == .none {
      try host.run("nft flush chain inet engine forward")
      try expect("other bridge's container, unguarded", first, "172.18.0.2", 80, sees: "172.17.0.2")
      try expect("outside, routed, unguarded", outside, "172.17.0.3", 80, sees: "10.9.0.2")
    }
    if foreign == .docker {
      #expect(
        try host.run("iptables-nft -S DOCKER-USER").contains(
          "-m mark --mark 0x2000000/0x2000000 -m comment --comment \"accept what engine forwards\" -j ACCEPT"))
    }
    for id in ids { try await engine.detach(id) }
    try await engine.drained()
    for definition in [network, other] {
      _ = try await engine.bus.request(NetworkDriverRemove(definition: definition), driver: "bridge")
    }
    #expect(try !host.run("nft list ruleset").contains("0x02000000") || foreign == .advised)
    #expect(engine.journal.entries(plugin: "network-bridge") == [])
  }

  /// 10.9.0.1 is the host, 10.9.0.2 is outside.
  private func connect(_ host: TestNamespace, _ outside: TestNamespace) throws {
    try host.run("ip link add up0 type veth peer name up1 && ip link set up1 netns \(outside.path)")
    try host.run("ip addr add 10.9.0.1/24 dev up0 && ip link set up0 up")
    try outside.run("ip addr add 10.9.0.2/24 dev up1 && ip link set up1 up")
  }
}
