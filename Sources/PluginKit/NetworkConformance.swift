import CLinux
import Contracts
import Glibc
import LinuxSystem

/// What the engine relies on in a network driver.
struct NetworkConformance<Subject: ConformanceSubject> {
  let subject: Subject
  let settings: ConformanceSettings
  let points: Points

  private let definition: NetworkDefinition

  init(subject: Subject, settings: ConformanceSettings, points: Points) {
    self.subject = subject
    self.settings = settings
    self.points = points
    definition = NetworkDefinition(
      id: .random(), name: "conformance", driver: settings.driver, created: .now, options: settings.options)
  }

  func run() async {
    var network = definition
    let (first, second) = (ObjectID.random(), ObjectID.random())
    var address = ""
    // Nil as long as nothing could be attached.
    var makesInterfaces: Bool?
    await points.check("create") {
      network = try await create(definition)
      guard network.id == definition.id, network.name == definition.name, network.driver == definition.driver else {
        throw Fault("the answer is another network than the one that was asked for")
      }
    }
    await points.check("create twice") {
      try await ensure(&network)
      let again = try await create(network)
      guard again.pools == network.pools else {
        throw Fault("the network has other addresses the second time: \(again.pools)")
      }
    }
    let (here, there) = (try? TestNamespace(), try? TestNamespace())
    await points.check("attach") {
      try await ensure(&network)
      let endpoint = try await attach(network, first, here)
      address = endpoint.address
      try Self.expect(endpoint, inside: here)
      makesInterfaces = !address.isEmpty
    }
    await points.check("attach a second container") {
      try await ensure(&network)
      let endpoint = try await attach(network, second, there)
      try Self.expect(endpoint, inside: there)
      if !address.isEmpty, endpoint.address == address { throw Fault("both containers have the address \(address)") }
    }
    await points.check("remove in use") {
      // A driver that makes nothing has nothing in use.
      guard try Self.known(makesInterfaces) else { return }
      try await ensure(&network)
      if !points.has(Self.title(first)) { _ = try await attach(network, first, here) }
      try await points.expectRefusal("the removal of a network with endpoints", [.inUse]) { try await remove(network) }
    }
    await points.check("detach") {
      try await ensure(&network)
      try await detach(second)
      try await detach(first)
    }
    await points.check("detach twice") { try await detach(first) }
    await points.check("attach again") {
      try await ensure(&network)
      let namespace = try TestNamespace()
      try Self.expect(try await attach(network, first, namespace), inside: namespace)
      try await detach(first)
    }
    await points.check("unknown name") {
      guard try Self.known(makesInterfaces) else { return }
      var unknown = network
      unknown.id = .random()
      let namespace = try TestNamespace()
      try await points.expectRefusal("a network that was never made", [.notFound, .invalidArgument, .unavailable]) {
        try await attach(unknown, second, namespace)
      }
      try await detach(second)
    }
    await points.check("unknown option") {
      var other = definition
      other.id = .random()
      other.options["no-such-option"] = "1"
      try await points.expectRefusal("an unknown option", [.invalidArgument], naming: "no-such-option") {
        try await create(other)
      }
      try await remove(other)
    }
    await points.check("slow reply") {
      try await ensure(&network)
      try await subject.askAndCancel(NetworkDriverCreate(definition: network))
      network = try await create(network)
    }
    await points.check("oversized reply") {
      var other = definition
      other.id = .random()
      other.options["no-such-option"] = String(repeating: "x", count: 1 << 20)
      try await points.expectRefusal("an option of a mebibyte", [.invalidArgument]) { try await create(other) }
      try await remove(other)
    }
    await points.check("crash in the middle") {
      try await ensure(&network)
      try await subject.askAndKill(NetworkDriverCreate(definition: network))
      network = try await create(network)
      let namespace = try TestNamespace()
      note(first)
      try await subject.askAndKill(message(network, first, namespace))
      network = try await create(network)
      try await detach(first)
      let fresh = try TestNamespace()
      try Self.expect(try await attach(network, first, fresh), inside: fresh)
      try await detach(first)
    }
    await points.check("restart with state") {
      try await ensure(&network)
      let namespace = try TestNamespace()
      let endpoint = try await attach(network, first, namespace)
      try await subject.restart()
      let again = try await create(network)
      guard again.pools == network.pools else { throw Fault("the network has other addresses after a restart") }
      try Self.expect(endpoint, inside: namespace)
      try await detach(first)
    }
    await points.check("remove twice") {
      try await ensure(&network)
      try await remove(network)
      try await remove(network)
    }
  }

  // MARK: The messages

  private static func title(_ container: ObjectID) -> String { "the endpoint of the container \(container.short)" }

  private static func title(_ network: NetworkDefinition) -> String { "the network \(network.id.short)" }

  /// What the kit makes for this container is removed at the end, also where a point fails.
  private func note(_ container: ObjectID) { points.note(Self.title(container)) { try await detach(container) } }

  private func create(_ definition: NetworkDefinition) async throws -> NetworkDefinition {
    points.note(Self.title(definition)) { try await remove(definition) }
    return try await subject.ask(NetworkDriverCreate(definition: definition))
  }

  /// The network is there, also where an earlier point failed.
  private func ensure(_ network: inout NetworkDefinition) async throws {
    if !points.has(Self.title(network)) { network = try await create(network) }
  }

  private func remove(_ definition: NetworkDefinition) async throws {
    _ = try await subject.ask(NetworkDriverRemove(definition: definition))
    points.forget(Self.title(definition))
  }

  private func detach(_ container: ObjectID) async throws {
    _ = try await subject.ask(NetworkDriverDetach(container: container))
    points.forget(Self.title(container))
  }

  private static func known(_ makesInterfaces: Bool?) throws -> Bool {
    guard let makesInterfaces else { throw Fault("not examined: no container could be attached") }
    return makesInterfaces
  }

  private func message(
    _ network: NetworkDefinition, _ container: ObjectID, _ namespace: TestNamespace?
  ) -> NetworkDriverAttach {
    NetworkDriverAttach(
      container: container, namespace: namespace?.descriptor,
      attachments: [
        .init(
          definition: network, request: EndpointRequest(network: network.name), interface: "eth0",
          isDefaultRoute: true)
      ], ports: [])
  }

  private func attach(
    _ network: NetworkDefinition, _ container: ObjectID, _ namespace: TestNamespace?
  ) async throws -> Endpoint {
    note(container)
    let reply = try await subject.ask(message(network, container, namespace))
    guard reply.endpoints.count == 1, let endpoint = reply.endpoints.first, endpoint.networkID == network.id else {
      throw Fault("the answer has \(reply.endpoints.count) endpoints for one network, or another network's")
    }
    return endpoint
  }

  /// What it says of the interface is so.
  private static func expect(_ endpoint: Endpoint, inside namespace: TestNamespace?) throws {
    guard let namespace else { throw Fault("no network namespace can be made; the kit needs root") }
    if endpoint.interface.isEmpty { return }
    guard let found = namespace.address(of: endpoint.interface) else {
      throw Fault("there is no interface \(endpoint.interface) with an address in the container's namespace")
    }
    if found != endpoint.address { throw Fault("\(endpoint.interface) has \(found) and not \(endpoint.address)") }
  }
}

/// A network namespace for one imagined container, with `lo` up.
struct TestNamespace: Sendable {
  let descriptor: Descriptor

  /// Made in a thread of its own, which ends: no other thread ever sees another namespace.
  init() throws {
    descriptor = try DetachedThread.run { () throws(SystemCallError) in
      try SystemCallError.check("unshare(CLONE_NEWNET)") { unshare(CLONE_NEWNET) }
      let socket = OwnedDescriptor(
        adopting: try SystemCallError.check("socket") {
          Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        })
      var request = Self.request("lo")
      request.ifr_ifru.ifru_flags = Int16(IFF_UP)
      try SystemCallError.check("ioctl(SIOCSIFFLAGS)") {
        linux_ioctl_pointer(socket.number, UInt(SIOCSIFFLAGS), &request)
      }
      return Descriptor(adopting: try Files.open("/proc/thread-self/ns/net", O_RDONLY).release())
    }
  }

  /// The IPv4 address of an interface (SIOCGIFADDR, netdevice(7)).
  func address(of interface: String) -> String? {
    try? DetachedThread.run { [descriptor] () throws(SystemCallError) in
      try SystemCallError.check("setns") { setns(descriptor.number, CLONE_NEWNET) }
      let socket = OwnedDescriptor(
        adopting: try SystemCallError.check("socket") {
          Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        })
      var request = Self.request(interface)
      try SystemCallError.check("ioctl(SIOCGIFADDR)") {
        linux_ioctl_pointer(socket.number, UInt(SIOCGIFADDR), &request)
      }
      return withUnsafeBytes(of: &request.ifr_ifru.ifru_addr) { bytes in
        bytes[4..<8].map { String($0) }.joined(separator: ".")
      }
    }
  }

  private static func request(_ interface: String) -> ifreq {
    var request = ifreq()
    withUnsafeMutableBytes(of: &request.ifr_ifrn) { $0.copyBytes(from: interface.utf8.prefix(15)) }
    return request
  }
}
