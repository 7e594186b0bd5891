import CNINetworkPlugin
import Contracts
import Foundation
import Glibc
import LinuxSystem
import Testing

@testable import PluginKit

/// What plugins of CNI 1.1 are told, by a plugin of the test that writes everything down: Debian's know no GC yet.
@Suite("The CNI protocol", .serialized, .enabled(if: geteuid() == 0, "needs root"))
struct CNIProtocolTests {
  /// A driver with one network of a list of two plugins: `first`, and `second`, which is capable of port mappings.
  final class World {
    let directory = NSTemporaryDirectory() + "cni-\(UUID().uuidString.prefix(8))"
    let subject: BuiltinSubject
    var network = NetworkDefinition(id: .random(), name: "lab", driver: "cni", created: .now)
    let container = ObjectID.random()

    init(list: String) async throws {
      try Files.makeDirectories(directory + "/bin")
      let script = """
        #!/bin/sh
        echo "$CNI_COMMAND $(basename "$0") ${CNI_CONTAINERID:--} ${CNI_IFNAME:--} ${CNI_NETNS:--}" >>\(directory)/calls
        cat >"\(directory)/$CNI_COMMAND-$(basename "$0")"
        if [ -e "\(directory)/fail-$CNI_COMMAND" ]; then
          echo '{"cniVersion": "1.1.0", "code": 100, "msg": "no luck today", "details": "none at all"}'
          exit 1
        fi
        if [ "$CNI_COMMAND" = ADD ]; then
          echo '{"cniVersion": "1.1.0", "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "/x",'
          echo '"mac": "02:00:00:00:00:01"}], "ips": [{"address": "10.7.0.2/24", "gateway": "10.7.0.1"}],'
          echo '"madeBy": "'"$(basename "$0")"'"}'
        fi
        """
      for name in ["first", "second"] {
        try Files.replace("\(directory)/bin/\(name)", with: Array(script.utf8), mode: 0o755, durable: false)
      }
      try Files.replace(directory + "/10-lab.conflist", with: Array(list.utf8), durable: false)
      subject = try await BuiltinSubject(
        CNINetworkPlugin.self,
        configuration: ["configuration_directories": directory, "binary_directories": directory + "/bin"])
      network = try await subject.ask(NetworkDriverCreate(definition: network))
    }

    func attach(ports: [PortBinding] = []) async throws -> NetworkDriverAttach.Reply {
      try await subject.ask(
        NetworkDriverAttach(
          container: container, namespace: try TestNamespace().descriptor,
          attachments: [
            .init(
              definition: network, request: EndpointRequest(network: "lab"), interface: "eth0", isDefaultRoute: true)
          ], ports: ports))
    }

    func check(repair: Bool, running: Bool = true) async throws -> [SystemDifference] {
      let running = running ? [container] : []
      return try await subject.bus.request(
        PluginCheck(known: [container], running: running, repair: repair), driver: "network-cni")
    }

    /// The command and the plugin of each call so far, in their order.
    var calls: [String] {
      let text = (try? String(contentsOfFile: directory + "/calls", encoding: .utf8)) ?? ""
      return text.split(separator: "\n").map { $0.split(separator: " ").prefix(2).joined(separator: " ") }
    }

    /// The last call's words.
    var lastCall: [String] {
      let text = (try? String(contentsOfFile: directory + "/calls", encoding: .utf8)) ?? ""
      return text.split(separator: "\n").last?.split(separator: " ").map(String.init) ?? []
    }

    /// What a plugin was last given with a command.
    func input(_ command: String, _ plugin: String) throws -> [String: Any] {
      let data = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(command)-\(plugin)"))
      return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    func end() async throws {
      await subject.end()
      try Files.removeTree(directory)
    }
  }

  static func list(version: String = "1.1.0", more: String = "") -> String {
    """
    {"cniVersion": "\(version)", "name": "lab"\(more), "plugins": [
      {"type": "first", "colour": "red"},
      {"type": "second", "capabilities": {"portMappings": true}}]}
    """
  }

  static let port = PortBinding(transport: .tcp, hostAddress: "127.0.0.1", hostPort: 8080, containerPort: 80)

  @Test func everyCommandWithItsOrderAndItsWords() async throws {
    let world = try await World(list: Self.list())
    let reply = try await world.attach(ports: [Self.port])
    let endpoint = try #require(reply.endpoints.first)
    #expect(endpoint.address == "10.7.0.2" && endpoint.prefixLength == 24 && endpoint.gateway == "10.7.0.1")
    #expect(endpoint.hardwareAddress == "02:00:00:00:00:01")
    #expect(reply.ports == [Self.port])
    #expect(world.calls == ["ADD first", "ADD second"])
    #expect(world.lastCall[2...3] == [world.container.text, "eth0"])
    #expect(world.lastCall[4].hasPrefix("/proc/"))
    let first = try world.input("ADD", "first")
    #expect(first["name"] as? String == "lab" && first["cniVersion"] as? String == "1.1.0")
    #expect(first["colour"] as? String == "red")
    // Only what is capable of ports is told of them, and only what comes later has the result.
    #expect(first["runtimeConfig"] == nil && first["prevResult"] == nil)
    let second = try world.input("ADD", "second")
    #expect(second["capabilities"] == nil)
    #expect((second["prevResult"] as? [String: Any])?["madeBy"] as? String == "first")
    let mappings = (second["runtimeConfig"] as? [String: Any])?["portMappings"] as? [[String: Any]]
    let mapping = try #require(mappings?.first)
    #expect(mapping["hostPort"] as? Int == 8080 && mapping["containerPort"] as? Int == 80)
    #expect(mapping["protocol"] as? String == "tcp" && mapping["hostIP"] as? String == "127.0.0.1")

    // CHECK gets the result of the whole list.
    #expect(try await world.check(repair: false) == [])
    #expect(world.calls.suffix(2) == ["CHECK first", "CHECK second"])
    #expect(world.lastCall[2...3] == [world.container.text, "eth0"])
    #expect((try world.input("CHECK", "first")["prevResult"] as? [String: Any])?["madeBy"] as? String == "second")
    try Files.replace(world.directory + "/fail-CHECK", with: [], durable: false)
    let differences = try await world.check(repair: false)
    #expect(differences.map(\.kind) == [.missing])
    #expect(
      differences.first?.object.contains(
        "the CNI plugin \"first\" failed at CHECK (exit status 1): no luck today: none")
        == true, "\(differences)")
    unlink(world.directory + "/fail-CHECK")

    // GC says which attachments there are.
    #expect(try await world.check(repair: true) == [])
    #expect(world.calls.suffix(2) == ["GC first", "GC second"])
    #expect(world.lastCall[2...] == ["-", "-", "-"])
    let valid = try world.input("GC", "second")["cni.dev/valid-attachments"] as? [[String: String]]
    #expect(valid == [["containerID": world.container.text, "ifname": "eth0"]])

    // DEL in reverse, with the same words as ADD.
    _ = try await world.subject.ask(NetworkDriverDetach(container: world.container))
    #expect(world.calls.suffix(2) == ["DEL second", "DEL first"])
    let deleted = try world.input("DEL", "second")
    #expect((deleted["runtimeConfig"] as? [String: Any])?["portMappings"] as? [[String: Any]] != nil)
    #expect((deleted["prevResult"] as? [String: Any])?["madeBy"] as? String == "second")
    _ = try await world.check(repair: true)
    let none = try world.input("GC", "first")["cni.dev/valid-attachments"] as? [[String: String]]
    #expect(none == [])
    try await world.end()
  }

  @Test func whatFailsHalfWayIsDeleted() async throws {
    let world = try await World(list: Self.list())
    try Files.replace(world.directory + "/fail-ADD", with: [], durable: false)
    await #expect(throws: EngineError.self) { _ = try await world.attach() }
    #expect(world.calls == ["ADD first", "DEL second", "DEL first"])
    #expect(try await world.check(repair: false, running: false) == [])
    try await world.end()
  }

  /// A new engine deletes what a former one attached and what does not run any more, by the list of then.
  @Test func aNewEngineDeletesWhatDoesNotRun() async throws {
    let world = try await World(list: Self.list())
    _ = try await world.attach(ports: [Self.port])
    try await world.subject.restart()
    try Files.replace(world.directory + "/10-lab.conflist", with: Array("{}".utf8), durable: false)
    #expect(try await world.check(repair: true, running: false).map(\.kind) == [.leftover])
    #expect(Array(world.calls.suffix(2)) == ["DEL second", "DEL first"])
    // Nobody has the namespace any more.
    #expect(world.lastCall[4] == "-")
    #expect(try await world.check(repair: false, running: false) == [])
    try await world.end()
  }

  @Test(arguments: [
    (Self.list(version: "1.0.0"), ["CHECK first", "CHECK second"]),
    (Self.list(more: ", \"disableCheck\": true"), ["GC first", "GC second"]),
    (Self.list(version: "0.3.1"), []),
  ])
  func aListIsAskedOnlyForWhatItKnows(list: String, calls: [String]) async throws {
    let world = try await World(list: list)
    _ = try await world.attach()
    let before = world.calls.count
    #expect(try await world.check(repair: true) == [])
    #expect(Array(world.calls[before...]) == calls)
    try await world.end()
  }

  @Test func portsThatNobodyCanPublishAreRefused() async throws {
    let plain = try await World(list: Self.list().replacingOccurrences(of: "true", with: "false"))
    let incapable = await #expect(throws: EngineError.self) { _ = try await plain.attach(ports: [Self.port]) }
    #expect(incapable?.message.contains("no plugin of it is capable of portMappings") == true)
    #expect(plain.calls == [])
    try await plain.end()
    let world = try await World(list: Self.list())
    var open = Self.port
    open.hostPort = 0
    let unchosen = await #expect(throws: EngineError.self) { _ = try await world.attach(ports: [open]) }
    #expect(unchosen?.message.contains("cannot choose the host port for 80: name one") == true)
    #expect(world.calls == [])
    try await world.end()
  }
}
