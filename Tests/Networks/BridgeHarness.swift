import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import BridgeNetworkPlugin

/// A network namespace that lives as long as this object.
final class TestNamespace: Sendable {
  let descriptor: Descriptor
  /// As other programs and the plugin find it.
  var path: String { "/proc/\(getpid())/fd/\(descriptor.number)" }

  static var isPossible: Bool { geteuid() == 0 }

  init() throws {
    let original = try Files.open("/proc/thread-self/ns/net", O_RDONLY)
    try SystemCallError.check("unshare") { unshare(CLONE_NEWNET) }
    defer { if setns(original.number, CLONE_NEWNET) != 0 { abort() } }
    descriptor = Descriptor(adopting: try Files.open("/proc/thread-self/ns/net", O_RDONLY).release())
    // A new namespace forwards where the machine does, as one with a running Docker.
    try run("ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward")
  }

  /// A namespace that another process made.
  init(path: String) throws {
    descriptor = Descriptor(adopting: try Files.open(path, O_RDONLY).release())
  }

  /// Runs `body` on this thread inside the namespace.
  func inside<Value>(_ body: () throws -> Value) throws -> Value {
    let original = try Files.open("/proc/thread-self/ns/net", O_RDONLY)
    try SystemCallError.check("setns") { setns(descriptor.number, CLONE_NEWNET) }
    defer { if setns(original.number, CLONE_NEWNET) != 0 { abort() } }
    return try body()
  }

  /// Runs a shell command in the namespace and returns its output.
  @discardableResult
  func run(_ command: String, expecting status: Int32? = 0) throws -> String {
    let quoted = command.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''")
    guard let stream = popen("nsenter --net=\(path) sh -c '\(quoted)' 2>&1", "r") else { throw Failure("popen") }
    var output = ""
    var buffer = [CChar](repeating: 0, count: 4096)
    while fgets(&buffer, Int32(buffer.count), stream) != nil {
      output += String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    let result = pclose(stream)
    if let status, result >> 8 != status { throw Failure("\(command): \(result >> 8): \(output)") }
    return output
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }
}

/// A bridge driver on a bus of its own, whose host is a namespace made for the test.
final class TestEngine: Sendable {
  let host: TestNamespace
  let bus = Bus()
  let journal: Journal
  let directory: String
  private let plugin: BridgeNetworkPlugin
  var driver: BridgeDriver { plugin.driver }

  /// - Parameter directory: of a former engine, to take over what it left.
  init(host: TestNamespace, isDefault: Bool = true, directory: String? = nil) throws {
    self.host = host
    self.directory = directory ?? "/tmp/bridge-test-\(getpid())-\(ObjectID.random().short)"
    try Files.makeDirectories(self.directory)
    journal = try Journal(path: "\(self.directory)/journal")
    let instance = Instance(
      root: self.directory, runtimeDirectory: self.directory, hash: "1234abcd", isDefault: isDefault, daemonPath: "",
      shimPath: "", version: "test")
    plugin = try BridgeNetworkPlugin(
      host: PluginHost(
        manifest: BridgeNetworkPlugin.manifest, bus: bus, instance: instance, journal: journal,
        configuration: ["namespace": host.path]))
    try plugin.register(Registrar(bus: bus, manifest: BridgeNetworkPlugin.manifest))
  }

  func removeFiles() { try? Files.removeTree(directory) }

  func stop() async { await plugin.stop() }

  func create(
    _ name: String, isDefault: Bool = false, pools: [AddressPool] = [], options: [String: String] = [:],
    isInternal: Bool = false
  ) async throws -> NetworkDefinition {
    try await bus.request(
      NetworkDriverCreate(
        definition: NetworkDefinition(
          id: .random(), name: name, driver: "bridge", created: .now, pools: pools, options: options,
          isInternal: isInternal, isDefault: isDefault)), driver: "bridge")
  }

  func attach(
    _ container: ObjectID, _ namespace: TestNamespace, _ network: NetworkDefinition, address: String? = nil,
    interface: String = "eth0", ports: [PortBinding] = []
  ) async throws -> NetworkDriverAttach.Reply {
    try await bus.request(
      NetworkDriverAttach(
        container: container, namespace: namespace.descriptor,
        attachments: [
          .init(
            definition: network, request: EndpointRequest(network: network.name, address: address),
            interface: interface, isDefaultRoute: true)
        ], ports: ports), driver: "bridge")
  }

  func detach(_ container: ObjectID) async throws {
    _ = try await bus.request(NetworkDriverDetach(container: container), driver: "bridge")
  }

  func check(running: [ObjectID] = [], repair: Bool = false) async throws -> [SystemDifference] {
    try await bus.request(
      PluginCheck(known: running, running: running, repair: repair), driver: BridgeNetworkPlugin.manifest.name)
  }

  /// Waits until nothing drains any more; the test's time limit bounds it.
  func drained(running: [ObjectID] = []) async throws {
    while try await check(running: running).contains(where: { $0.kind == .draining }) {
      try await Task.sleep(for: .milliseconds(10))
    }
  }
}
