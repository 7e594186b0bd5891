import CLinux
import Contracts
import Glibc
import HostNetworkPlugin
import Kernel
import LinuxSystem
import NoneNetworkPlugin
import SQLiteRecordsPlugin
import Synchronization
import Testing

@testable import NetworkCatalogPlugin

/// A bridge driver that makes nothing and remembers what it was asked.
final class FakeBridge: Plugin {
  static let manifest = PluginManifest(name: "network-bridge", role: "network", driver: "bridge")
  let asked = Mutex<[String]>([])
  let failure = Mutex<EngineError?>(nil)
  /// What happens after it has taken a container off and before it says so.
  let meanwhile = Mutex<(@Sendable () async -> EngineError?)?>(nil)

  init() {}
  init(host: PluginHost) throws(EngineError) {}

  private func note(_ text: String, fails: Bool = true) throws(EngineError) {
    asked.withLock { $0.append(text) }
    if fails, let failure = failure.withLock({ $0 }) { throw failure }
  }

  func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(NetworkDriverCreate.self) { (request, _) async throws(EngineError) in
      try self.note("create \(request.definition.name)")
      var definition = request.definition
      if definition.pools.isEmpty && definition.isDefault {
        definition.pools = [AddressPool(subnet: "172.17.0.0/16", gateway: "172.17.0.1")]
      }
      return definition
    }
    try registrar.answerAsDriver(NetworkDriverRemove.self) { (request, _) async throws(EngineError) in
      try self.note("remove \(request.definition.name)")
      return Done()
    }
    try registrar.answerAsDriver(NetworkDriverAttach.self) { (request, _) async throws(EngineError) in
      let places = request.attachments.map { "\($0.definition.name)=\($0.interface)\($0.isDefaultRoute ? "*" : "")" }
      try self.note("attach \(places.joined(separator: " ")) ports \(request.ports.count)")
      let endpoints = request.attachments.map {
        Endpoint(
          id: .random(), networkID: $0.definition.id, networkName: $0.definition.name, driver: "bridge",
          interface: $0.interface, address: "172.17.0.2", prefixLength: 16)
      }
      return NetworkDriverAttach.Reply(endpoints: endpoints, ports: request.ports, reservations: [])
    }
    try registrar.answerAsDriver(NetworkDriverDetach.self) { (request, _) async throws(EngineError) in
      try self.note("detach", fails: false)
      let meanwhile = self.meanwhile.withLock { meanwhile in
        defer { meanwhile = nil }
        return meanwhile
      }
      if let error = await meanwhile?() { throw error }
      return Done()
    }
  }
}

@Suite("Network catalog", .enabled(if: geteuid() == 0, "needs root for network namespaces"))
struct CatalogTests {
  final class Fixture: Sendable {
    let root: String
    let bus = Bus()
    let bridge = FakeBridge()
    let catalog: NetworkCatalogPlugin
    let records: SQLiteRecordsPlugin
    let removesRoot: Bool

    init(
      root: String = "/tmp/engine-networks-\(ObjectID.random().short)", removesRoot: Bool = true,
      bridgeFails: Bool = false
    ) async throws {
      self.root = root
      self.removesRoot = removesRoot
      try Files.makeDirectories(root)
      let journal = try Journal(path: root + "/journal")
      let instance = Instance(
        root: root, runtimeDirectory: root, hash: "00000000", isDefault: false, daemonPath: "", shimPath: "",
        version: "0")
      let bus = bus
      func host(_ manifest: PluginManifest) -> PluginHost {
        PluginHost(manifest: manifest, bus: bus, instance: instance, journal: journal)
      }
      records = try SQLiteRecordsPlugin(host: host(SQLiteRecordsPlugin.manifest))
      catalog = try NetworkCatalogPlugin(host: host(NetworkCatalogPlugin.manifest))
      let plugins: [any Plugin] = [
        records, try HostNetworkPlugin(host: host(HostNetworkPlugin.manifest)),
        try NoneNetworkPlugin(host: host(NoneNetworkPlugin.manifest)), bridge, catalog,
      ]
      if bridgeFails { bridge.failure.withLock { $0 = EngineError(.internalFailure, "no bridge today") } }
      for plugin in plugins {
        try plugin.register(Registrar(bus: bus, manifest: type(of: plugin).manifest))
        try await plugin.start()
      }
    }

    func stop() async {
      await catalog.stop()
      await records.stop()
    }

    deinit { if removesRoot { try? Files.removeTree(root) } }

    var asked: [String] { bridge.asked.withLock { $0 } }

    func create(_ name: String, driver: String? = nil, pools: [AddressPool] = []) async throws -> NetworkDefinition {
      try await bus.request(
        NetworkCreate(networkName: name, driver: driver, pools: pools, options: [:], labels: [:], isInternal: false))
    }

    func attach(
      _ networks: [String], container: ObjectID = .random(), ports: [PortBinding] = []
    ) async throws -> NetworkAttach.Reply {
      try await bus.request(
        NetworkAttach(container: container, endpoints: networks.map { EndpointRequest(network: $0) }, ports: ports))
    }

    func error<Value>(_ body: () async throws -> Value) async -> String {
      do {
        _ = try await body()
        return "no error"
      } catch {
        return "\(error)"
      }
    }
  }

  @Test func predefinedNetworksKeepTheirIDs() async throws {
    let first = try await Fixture(removesRoot: false)
    let before = try await first.bus.request(NetworkList())
    await first.stop()
    let second = try await Fixture(root: first.root)
    let after = try await second.bus.request(NetworkList())
    #expect(before.map(\.name) == ["bridge", "host", "none"])
    #expect(after == before)
    #expect(after[0].isDefault && after[0].pools.first?.gateway == "172.17.0.1")
  }

  @Test(
    arguments: [
      ("bridge", nil, "operation is not permitted on predefined bridge network"),
      ("taken", nil, "network with name taken already exists"),
      ("a", "weave", "network driver \"weave\" not found; there is: bridge, host, none"),
      ("a", "host", "only one instance of \"host\" network is allowed"),
      ("-a", nil, "-a includes invalid characters for a network name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ] as [(String, String?, String)])
  func refusesNames(name: String, driver: String?, message: String) async throws {
    let fixture = try await Fixture()
    _ = try await fixture.create("taken")
    #expect(await fixture.error { try await fixture.create(name, driver: driver) } == message)
  }

  @Test(arguments: [
    (AddressPool(subnet: "10.0.0.0"), "invalid subnet 10.0.0.0: invalid CIDR block notation"),
    (
      AddressPool(subnet: "10.0.0.1/24"), "invalid network config: invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"
    ),
    (AddressPool(subnet: "172.17.5.0/24"), "Pool overlaps with other one on this address space"),
    (AddressPool(subnet: "172.16.0.0/12"), "Pool overlaps with other one on this address space"),
    (AddressPool(subnet: "10.0.0.0/24", gateway: "10.0.1.1"), "no matching subnet for gateway 10.0.1.1"),
    (
      AddressPool(subnet: "fd00::/64", gateway: "fd00::1", range: "fd01::/80"), "no matching subnet for range fd01::/80"
    ),
    (AddressPool(subnet: "10.0.0.0/24", gateway: "10.0.0.1", range: "10.0.0.128/25"), "no error"),
  ])
  func checksPools(pool: AddressPool, message: String) async throws {
    let fixture = try await Fixture()
    #expect(await fixture.error { try await fixture.create("a", pools: [pool]) } == message)
    #expect(fixture.asked.contains("create a") == (message == "no error"))
  }

  @Test func findsByNameIDAndPrefixAndRemoves() async throws {
    let fixture = try await Fixture()
    let made = try await fixture.create("mine")
    for text in ["mine", made.id.text, made.id.short] {
      #expect(try await fixture.bus.request(NetworkInspect(network: text)).definition == made)
    }
    #expect(try await fixture.bus.request(NetworkRemove(network: made.id.short)) == made.id)
    #expect(
      await fixture.error { try await fixture.bus.request(NetworkInspect(network: "mine")) }
        == "network mine not found")
    #expect(
      await fixture.error { try await fixture.bus.request(NetworkRemove(network: "host")) }
        == "host is a pre-defined network and cannot be removed")
  }

  @Test func attachesInOrderAndRefusesToRemoveWhatIsUsed() async throws {
    let fixture = try await Fixture()
    _ = try await fixture.create("inner")
    let container = ObjectID.random()
    let port = PortBinding(transport: .tcp, hostAddress: "", hostPort: 0, containerPort: 80)
    let reply = try await fixture.attach(["inner", "bridge"], container: container, ports: [port])
    #expect(fixture.asked.last == "attach inner=eth0 bridge=eth1* ports 1")
    #expect(reply.endpoints.map(\.networkName) == ["inner", "bridge"])
    #expect(reply.ports == [port])
    let inspection = try await fixture.bus.request(NetworkInspect(network: "inner"))
    #expect(inspection.endpoints[container]?.interface == "eth0")
    let expected =
      "error while removing network: network inner has active endpoints "
      + "(name:\"\(container.short)\" id:\"\(container.short)\")"
    #expect(await fixture.error { try await fixture.bus.request(NetworkRemove(network: "inner")) } == expected)
    _ = try await fixture.bus.request(NetworkDetach(container: container))
    _ = try await fixture.bus.request(NetworkDetach(container: container))
    #expect(fixture.asked.filter { $0 == "detach" }.count == 1)
    _ = try await fixture.bus.request(NetworkRemove(network: "inner"))
  }

  @Test func namespacesAreSeparateAndHaveLoopbackUp() async throws {
    let fixture = try await Fixture()
    var inodes: Set<UInt> = []
    // A namespace that is let go gives its inode to the next one.
    var kept: [Descriptor] = []
    var before = stat()
    stat("/proc/thread-self/ns/net", &before)
    for _ in 0..<5 {
      let reply = try await fixture.attach(["none"])
      let namespace = try #require(reply.namespace)
      kept.append(namespace)
      var status = stat()
      fstat(namespace.number, &status)
      inodes.insert(status.st_ino)
      let found = try look(into: namespace)
      #expect(found.flags & Int16(IFF_UP) != 0)
      #expect(found.firstPort == "0\n" && found.pingGroups == "0\t2147483647\n")
    }
    #expect(inodes.count == 5 && !inodes.contains(before.st_ino))
    #expect(kept.count == 5)
    #expect(try await fixture.attach(["host"]).namespace == nil)
  }

  /// Looks from a thread that is thrown away.
  private func look(into namespace: Descriptor) throws -> Found {
    let box = Box()
    let finished = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(finished) }
    #expect(
      Thread.start {
        defer { eventfd_write(finished, 1) }
        guard setns(namespace.number, CLONE_NEWNET) == 0 else { return }
        let socket = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(socket) }
        var request = ifreq()
        withUnsafeMutableBytes(of: &request.ifr_ifrn) { $0.copyBytes(from: "lo".utf8) }
        guard linux_ioctl_pointer(socket, UInt(SIOCGIFFLAGS), &request) == 0 else { return }
        func setting(_ name: String) -> String { (try? Files.readText("/proc/sys/net/ipv4/\(name)")) ?? "" }
        box.set(
          Found(
            flags: request.ifr_ifru.ifru_flags, firstPort: setting("ip_unprivileged_port_start"),
            pingGroups: setting("ping_group_range")))
      })
    var count: eventfd_t = 0
    eventfd_read(finished, &count)
    return try #require(box.value)
  }

  struct Found: Sendable {
    var flags: Int16
    var firstPort: String
    var pingGroups: String
  }

  final class Box: Sendable {
    private let state = Mutex<Found?>(nil)
    var value: Found? { state.withLock { $0 } }
    func set(_ value: Found) { state.withLock { $0 = value } }
  }

  @Test func aFailedAttachLeavesNothing() async throws {
    let fixture = try await Fixture()
    fixture.bridge.failure.withLock { $0 = EngineError(.conflict, "port is already allocated") }
    let container = ObjectID.random()
    #expect(await fixture.error { try await fixture.attach(["bridge"], container: container) }.contains("already"))
    #expect(fixture.asked.last == "detach")
    #expect(fixture.catalog.host.journal.entries(plugin: "networks").isEmpty)
    #expect(try await fixture.bus.request(NetworkInspect(network: "bridge")).endpoints.isEmpty)
  }

  @Test func aBrokenBridgeIsReportedOnAttach() async throws {
    let fixture = try await Fixture(bridgeFails: true)
    #expect(await fixture.error { try await fixture.attach(["bridge"]) } == "no bridge today")
    fixture.bridge.failure.withLock { $0 = nil }
    #expect(try await fixture.attach(["bridge"]).endpoints.count == 1)
  }

  @Test func aNewEngineDetachesWhatAFormerOneAttached() async throws {
    let first = try await Fixture(removesRoot: false)
    let container = ObjectID.random()
    _ = try await first.attach(["bridge"], container: container)
    await first.stop()
    let second = try await Fixture(root: first.root)
    #expect(try await second.bus.request(NetworkInspect(network: "bridge")).endpoints[container] != nil)
    let check = PluginCheck(known: [container], running: [], repair: true)
    #expect(try await second.bus.request(check, driver: "networks").map(\.kind) == [.leftover])
    #expect(second.asked.last == "detach")
    #expect(second.catalog.host.journal.entries(plugin: "networks").isEmpty)
  }

  @Test(arguments: [
    (
      EndpointRequest(network: "bridge", address: "172.17.0.9"),
      "user specified IP address is supported on user defined networks only"
    ),
    (
      EndpointRequest(network: "bridge", aliases: ["a"]),
      "network-scoped alias is supported only for containers in user defined networks"
    ),
    (
      EndpointRequest(network: "bare", address: "10.0.0.9"),
      "user specified IP address is supported only when connecting to networks with user configured subnets"
    ),
    (EndpointRequest(network: "absent"), "network absent not found"),
  ])
  func refusesEndpoints(endpoint: EndpointRequest, message: String) async throws {
    let fixture = try await Fixture()
    _ = try await fixture.create("bare")
    let request = NetworkAttach(container: .random(), endpoints: [endpoint], ports: [])
    #expect(await fixture.error { try await fixture.bus.request(request) } == message)
  }

  /// A driver may give an address to the next container before it has answered that the last one is off.
  @Test func anAddressIsFreeAsSoonAsItsDriverWasAskedForIt() async throws {
    let fixture = try await Fixture()
    let (first, second, third) = (ObjectID.random(), ObjectID.random(), ObjectID.random())
    _ = try await fixture.attach(["bridge"], container: first)
    let attached = Mutex<[String]>([])
    fixture.bridge.meanwhile.withLock {
      $0 = {
        let outcome = await fixture.error { try await fixture.attach(["bridge"], container: second) }
        attached.withLock { $0.append(outcome) }
        return nil
      }
    }
    _ = try await fixture.bus.request(NetworkDetach(container: first))
    #expect(attached.withLock { $0 } == ["no error"])
    // One that could not be taken off has it still.
    fixture.bridge.meanwhile.withLock { $0 = { EngineError(.internalFailure, "not today") } }
    #expect(await fixture.error { try await fixture.bus.request(NetworkDetach(container: second)) } == "not today")
    let message = await fixture.error { try await fixture.attach(["bridge"], container: third) }
    #expect(message.contains("which the container \(second.short) has on bridge"))
    _ = try await fixture.bus.request(NetworkDetach(container: second))
    #expect(await fixture.error { try await fixture.attach(["bridge"], container: third) } == "no error")
  }

  /// The fake driver gives everybody the same address.
  @Test func anAddressThatAnotherContainerHasIsTheDriversFault() async throws {
    let fixture = try await Fixture()
    let (first, second) = (ObjectID.random(), ObjectID.random())
    _ = try await fixture.attach(["bridge"], container: first)
    let message = await fixture.error { try await fixture.attach(["bridge"], container: second) }
    #expect(
      message
        == "the driver \"bridge\" answered \"network.driver.attach\" with the address 172.17.0.2, which the container "
        + "\(first.short) has on bridge")
    #expect(fixture.asked.last == "detach")
    // The first one is not harmed, and its address is free once it has gone.
    _ = try await fixture.bus.request(NetworkDetach(container: first))
    _ = try await fixture.attach(["bridge"], container: second)
    await fixture.stop()
  }

  @Test func aDriversNameStandsForANetworkOfIt() async throws {
    let fixture = try await Fixture()
    let driver = Registrar(bus: fixture.bus, manifest: PluginManifest(name: "other", role: "network", driver: "other"))
    try driver.answerAsDriver(NetworkDriverCreate.self) { (request, _) async throws(EngineError) in request.definition }
    try driver.answerAsDriver(NetworkDriverRemove.self) { (_, _) async throws(EngineError) in Done() }
    try driver.answerAsDriver(NetworkDriverDetach.self) { (_, _) async throws(EngineError) in Done() }
    try driver.answerAsDriver(NetworkDriverAttach.self) { (request, _) async throws(EngineError) in
      let endpoints = request.attachments.map {
        Endpoint(
          id: .random(), networkID: $0.definition.id, networkName: $0.definition.name, driver: "other",
          interface: $0.interface)
      }
      return NetworkDriverAttach.Reply(endpoints: endpoints, ports: [], reservations: [])
    }
    for _ in 0..<2 { #expect(try await fixture.attach(["other"]).endpoints.map(\.driver) == ["other"]) }
    #expect(try await fixture.bus.request(NetworkList()).filter { $0.driver == "other" }.map(\.name) == ["other"])
    #expect(await fixture.error { try await fixture.attach(["third"]) } == "network third not found")
    await fixture.stop()
  }

  /// What a driver that is named says to that is the error, and not that there is no such network.
  @Test func aDriverThatMakesNoNetworkSaysWhy() async throws {
    let fixture = try await Fixture()
    let driver = Registrar(bus: fixture.bus, manifest: PluginManifest(name: "other", role: "network", driver: "other"))
    try driver.answerAsDriver(NetworkDriverCreate.self) { (_, _) async throws(EngineError) in
      throw EngineError(.conflict, "the pool is taken")
    }
    try driver.answerAsDriver(NetworkDriverRemove.self) { (_, _) async throws(EngineError) in Done() }
    try driver.answerAsDriver(NetworkDriverAttach.self) { (_, _) async throws(EngineError) in
      throw EngineError(.unsupported, "never asked")
    }
    #expect(await fixture.error { try await fixture.attach(["other"]) } == "the pool is taken")
    let down = PluginStatus(
      name: "third", role: "", driver: "", version: "", state: .failed(reason: "it ended with exit status 3"))
    let kernel = Registrar(bus: fixture.bus, manifest: PluginManifest(name: "kernel", role: "kernel"))
    try kernel.answer(PluginList.self) { (_, _) async throws(EngineError) in [down] }
    #expect(
      await fixture.error { try await fixture.attach(["third"]) }
        == "network third not found, and the driver of that name does not answer (it ended with exit status 3)")
    #expect(await fixture.error { try await fixture.attach(["fourth"]) } == "network fourth not found")
    await fixture.stop()
  }
}
