import BenchmarkSupport
import BridgeNetworkPlugin
import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import NetworkCatalogPlugin

/// A container's way into the network: the namespace, the link, its address and route.
enum NetworkProbes: ProbeGroup {
  static let name = "network"
  private static let fresh = FigureName(
    name: "network namespace, fresh", floor: "unshare, lo up, SIOCGSKNS, setns back")
  private static let pooled = FigureName(
    name: "network namespace, pooled", floor: "a fresh one: what the pool saves")

  /// How many links are on the bridge before.
  private static let crowds = [(0, "1st"), (299, "300th")]
  private static func linked(_ crowd: (Int, String)) -> [FigureName] {
    [
      FigureName(
        name: "veth on the bridge, \(crowd.1)", floor: "one message of rtnetlink", curve: "veth on the bridge",
        position: crowd.0 + 1),
      FigureName(
        name: "address and route, \(crowd.1)", floor: "setns, one send of four messages of rtnetlink, setns back",
        curve: "address and route", position: crowd.0 + 1),
    ]
  }

  static let figures = [fresh, pooled] + crowds.flatMap(linked)

  static func probes(_ names: Set<String>, _ stage: Stage) async throws -> [Probe] {
    let home = try Files.open("/proc/thread-self/ns/net", O_RDONLY).release()
    stage.sandbox.cleanup.add { close(home) }
    var probes: [Probe] = []
    if names.contains(fresh.name) {
      let pool = try NamespacePool(bus: stage.bus, capacity: 0)
      probes.append(Probe(.links, fresh) { side in try take(side, pool, home) })
    }
    if names.contains(pooled.name) {
      let pool = try NamespacePool(bus: stage.bus, capacity: 4)
      probes.append(
        Probe(.links, pooled) { side in
          let time = try take(side, pool, home)
          // It is filled again in the background, some milliseconds later.
          for _ in 0..<1000 where side == .engine && pool.readyCount == 0 { usleep(1000) }
          return time
        })
    }
    let wanted = crowds.filter { crowd in linked(crowd).contains { names.contains($0.name) } }
    if wanted.isEmpty { return probes }
    probes += try await stage.attempt(wanted.flatMap(linked)) {
      let steps = try BridgeSteps(host: stage.sandbox.host(BridgeNetworkPlugin.manifest, "bridge", bus: stage.bus))
      return try wanted.enumerated().map { index, crowd in
        let bridge = try Bridge(steps, "10.\(200 + index).0.0/16", home: home, crowd: crowd.0)
        return Probe(.links, linked(crowd)) { try bridge.measure($0) }
      }
    }
    return probes
  }

  private static func take(_ side: Side, _ pool: NamespacePool, _ home: Int32) throws -> Int64 {
    let begin = MonotonicClock.now
    let namespace = side == .engine ? try pool.take() : try NetworkNamespace.make(home: home)
    let time = MonotonicClock.now - begin
    _ = namespace
    return time
  }
}

/// A network of the driver's with so many links on its bridge.
private final class Bridge {
  /// Links go together with their namespaces, this many at a time: deleting one takes the kernel many milliseconds, and
  /// should not be in the way of those that are measured.
  private static let batch = 10

  private let steps: BridgeSteps
  private let network: NetworkDefinition
  private let index: Int32
  private let home: Int32
  /// Kept open, as the driver keeps its own.
  private let socket: OwnedDescriptor
  /// Where the other ends of the crowd are.
  private var crowd: Descriptor?
  private var spent: [(namespace: Descriptor, name: String, link: BridgeSteps.Link?)] = []
  private var count = 0

  init(_ steps: BridgeSteps, _ subnet: String, home: Int32, crowd size: Int) throws {
    self.steps = steps
    self.home = home
    socket = OwnedDescriptor(adopting: Netlink.openSocket())
    network = try steps.create(
      NetworkDefinition(
        id: .random(), name: "bench-\(size)", driver: "bridge", created: .now, pools: [AddressPool(subnet: subnet)]))
    index = Int32(if_nametoindex(network.bridge))
    guard index > 0 else { throw EngineError(.internalFailure, "the bridge \(network.bridge) is not there") }
    if size == 0 { return }
    let namespace = try NetworkNamespace.make(home: home)
    for number in 0..<size {
      try Interruption.check()
      guard Netlink.addVeth("crowd\(number)", to: index, peer: "eth\(number)", of: .namespace(namespace.number)) else {
        throw EngineError(.internalFailure, "the link crowd\(number) cannot be made")
      }
    }
    crowd = namespace
  }

  /// - Returns: the nanoseconds of the link and of its configuration.
  func measure(_ side: Side) throws -> [Int64] {
    if spent.count >= Self.batch { try clear() }
    let namespace = try NetworkNamespace.make(home: home)
    let container = ObjectID.random()
    count += 1
    let begin = MonotonicClock.now
    let linked: Int64
    let end: Int64
    switch side {
    case .engine:
      let link = try steps.link(to: network, container: container, namespace: namespace)
      linked = MonotonicClock.now
      spent.append((namespace, link.name, link))
      try steps.configure(link, namespace: namespace)
      end = MonotonicClock.now
    case .raw:
      let name = "raw\(index)-\(count)"
      guard Netlink.addVeth(name, to: index, of: .namespace(namespace.number), through: socket.number) else {
        throw EngineError(.internalFailure, "a raw link cannot be made")
      }
      linked = MonotonicClock.now
      spent.append((namespace, name, nil))
      guard try NetworkNamespace.inside(namespace, home: home, { Netlink.configureLink() }) else {
        throw EngineError(.internalFailure, "a raw link cannot be configured")
      }
      end = MonotonicClock.now
    }
    return [linked - begin, end - linked]
  }

  private func clear() throws {
    let names = spent.map(\.name)
    for entry in spent { if let link = entry.link { try steps.forget(link) } }
    spent = []
    for _ in 0..<1000 {
      if names.allSatisfy({ if_nametoindex($0) == 0 }) { return }
      try Interruption.sleep(milliseconds: 2)
    }
  }
}

extension NetworkDefinition {
  fileprivate var bridge: String { options["com.docker.network.bridge.name"] ?? "br-\(id.short)" }
}
