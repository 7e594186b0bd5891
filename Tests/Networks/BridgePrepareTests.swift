import Contracts
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

/// Links that were made ahead are as good as those that are made when they are wanted, and nothing of them stays.
@Suite(.enabled(if: TestNamespace.isPossible, "making network namespaces needs root"), .timeLimit(.minutes(2)))
struct BridgePrepareTests {
  private let host: TestNamespace
  private let inside: TestNamespace
  private let engine: TestEngine

  init() throws {
    host = try TestNamespace()
    inside = try TestNamespace()
    engine = try TestEngine(host: host)
    // On a busy machine a test takes longer than a link waits.
    wait(.seconds(600))
  }

  private func wait(_ patience: Duration) { engine.driver.state.withLock { $0.patience = patience } }

  private func prepare(_ network: NetworkDefinition, _ namespace: TestNamespace, _ name: String = "eth0") async throws {
    _ = try await engine.bus.request(
      NetworkDriverPrepare(definition: network, namespace: namespace.descriptor, interface: name), driver: "bridge")
  }

  private func links() throws -> [String] {
    try host.run("ip -o link show type veth").split(separator: "\n").compactMap { line in
      line.split(separator: " ").dropFirst().first?.split(separator: "@").first.map(String.init)
    }
  }

  @Test func isTakenAndEqualsAnotherContainers() async throws {
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    try await prepare(network, inside)
    let ahead = try links()
    #expect(ahead.count == 1)
    #expect(try inside.run("ip -o link show eth0").contains("state DOWN"))
    #expect(try await engine.check() == [], "a link that waits is no leftover")

    let other = try TestNamespace()
    let (first, second) = (ObjectID.random(), ObjectID.random())
    let made = try await engine.attach(first, inside, network)
    _ = try await engine.attach(second, other, network)
    #expect(try links().count == 2)
    #expect(try links().contains(ahead[0]), "the link that waited is the container's")
    #expect(made.endpoints.first?.address == "172.17.0.2")
    /// What a container can see of its interface, without what differs: numbers, names, addresses.
    func seen(_ namespace: TestNamespace) throws -> String {
      var text = try namespace.run(
        "ip -d -o link show eth0; ip -4 -o addr show eth0; ip -6 addr show eth0; ip route; cat /proc/net/if_inet6 || true"
      )
      for (from, to) in [("172.17.0.3", "172.17.0.2"), ("ac:11:00:03", "ac:11:00:02")] {
        text = text.split(separator: from, omittingEmptySubsequences: false).joined(separator: to)
      }
      return text.split(separator: " ").filter { !$0.contains("eth0@if") && !$0.contains("link-netns") }
        .filter { $0 != "2:" && $0 != "3:" }.joined(separator: " ")
    }
    #expect(try seen(inside) == seen(other))
    #expect(try inside.run("busybox ping -c 1 -W 2 172.17.0.3").contains("1 packets received"))
    #expect(try other.run("busybox ping -c 1 -W 2 172.17.0.2").contains("1 packets received"))
    #expect(try inside.run("busybox ping -c 1 -W 2 172.17.0.1").contains("1 packets received"))

    for container in [first, second] { try await engine.detach(container) }
    try await engine.drained()
    #expect(try links() == [])
    _ = try await engine.bus.request(NetworkDriverRemove(definition: network), driver: "bridge")
    #expect(engine.journal.entries(plugin: "network-bridge") == [])
  }

  /// Another network, another name inside, or a failure: the container gets what it asked for, and the link goes.
  @Test func doesNotStayWhereItDoesNotFit() async throws {
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    let other = try await engine.create("other")
    try await prepare(network, inside)
    let ahead = try links()
    let container = ObjectID.random()
    let reply = try await engine.attach(container, inside, other)
    #expect(reply.endpoints.first?.address == "172.18.0.2")
    #expect(try Set(links()).isDisjoint(with: ahead))
    try await engine.detach(container)
    try await engine.drained()

    let second = try TestNamespace()
    try await prepare(network, second)
    await #expect(throws: EngineError.self) {
      _ = try await engine.attach(.random(), second, network, address: "10.0.0.1")
    }
    // The address was refused before the link was looked at, so it still waits.
    #expect(try links().count == 1)
    await #expect(throws: EngineError.self) {
      _ = try await engine.attach(
        .random(), second, network,
        ports: [PortBinding(transport: .tcp, hostAddress: "192.0.2.1", hostPort: 80, containerPort: 80)])
    }
    try await engine.drained()
    #expect(try links() == [])
    #expect(try await engine.check() == [])
  }

  @Test func aBridgeThatWasTakenAwayIsNoticed() async throws {
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    try await prepare(network, inside)
    try host.run("ip link del docker0")
    await #expect(throws: EngineError.self) { _ = try await engine.attach(.random(), inside, network) }
    _ = try await engine.check(repair: true)
    // The link of the former bridge does not fit the new one.
    let second = try TestNamespace()
    try await prepare(network, second)
    let reply = try await engine.attach(.random(), second, network)
    #expect(reply.endpoints.count == 1)
    #expect(try second.run("busybox ping -c 1 -W 2 172.17.0.1").contains("1 packets received"))
  }

  /// Where there is no container they go by themselves; where there is one they stay.
  @Test func goWhenNobodyComes() async throws {
    defer { engine.removeFiles() }
    wait(.milliseconds(1))
    let network = try await engine.create("bridge", isDefault: true)
    let other = try TestNamespace()
    let container = ObjectID.random()
    _ = try await engine.attach(container, other, network)
    try await prepare(network, inside)
    // It has been looked at, more than once, and was left.
    while engine.driver.state.withLock({ $0.expiryIsScheduled }) { try await Task.sleep(for: .milliseconds(5)) }
    #expect(engine.driver.state.withLock { $0.spares.count } == 1)
    #expect(try links().count == 2)
    try await engine.detach(container)
    while engine.driver.state.withLock({ !$0.spares.isEmpty }) { try await Task.sleep(for: .milliseconds(10)) }
    try await engine.drained()
    #expect(try links() == [])
    #expect(engine.journal.entries(plugin: "network-bridge", kind: "endpoint") == [])
  }

  /// The namespace of a link that waited for too long is as good as any other, also while the link is still there.
  @Test func aNamespaceWhoseLinkIsLeavingCanBeUsed() async throws {
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    wait(.milliseconds(1))
    try await prepare(network, inside)
    while engine.driver.state.withLock({ $0.draining.isEmpty && !$0.spares.isEmpty }) {
      try await Task.sleep(for: .milliseconds(1))
    }
    let reply = try await engine.attach(.random(), inside, network)
    #expect(reply.endpoints.first?.address == "172.17.0.2")
    #expect(try inside.run("busybox ping -c 1 -W 2 172.17.0.1").contains("1 packets received"))
    #expect(try links().count == 1)
  }

  /// An engine that ends, or that finds what a killed one left, deletes them.
  @Test(arguments: [false, true]) func goesWithTheEngine(isKilled: Bool) async throws {
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    for _ in 0..<3 { try await prepare(network, try TestNamespace()) }
    try await prepare(network, inside)
    #expect(try links().contains { !$0.isEmpty })
    if isKilled {
      let next = try TestEngine(host: host, directory: engine.directory)
      try await next.drained()
      #expect(next.journal.entries(plugin: "network-bridge", kind: "endpoint") == [])
    } else {
      await engine.stop()
      #expect(engine.journal.entries(plugin: "network-bridge", kind: "endpoint") == [])
    }
    #expect(try links() == [])
  }

  /// Whoever needs a link gone at once does the reaper's work, perhaps at the same time; an address is given back once.
  @Test func anAddressIsGivenBackOnce() async throws {
    defer { engine.removeFiles() }
    let network = try await engine.create("bridge", isDefault: true)
    let namespaces = try (0..<3).map { _ in try TestNamespace() }
    let containers = namespaces.map { _ in ObjectID.random() }
    _ = try await engine.attach(containers[0], namespaces[0], network)
    try await engine.detach(containers[0])
    // As two reapers see it that begin at once.
    let links = engine.driver.state.withLock { $0.draining }
    engine.driver.reap()
    let second = try await engine.attach(containers[1], namespaces[1], network)
    try engine.driver.forget(links)
    let third = try await engine.attach(containers[2], namespaces[2], network)
    #expect(second.endpoints.first?.address == "172.17.0.2")
    #expect(third.endpoints.first?.address == "172.17.0.3")
  }
}
