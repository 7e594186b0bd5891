import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Wire

/// The driver `cni`: networks of the Container Network Interface (https://www.cni.dev/docs/spec/), by configuration
/// lists of the versions 0.3 to 1.1.
///
/// | message | what it does |
/// | --- | --- |
/// | `network.driver.create` | finds the list: the option `config`, the network's name, or the first there is |
/// | `network.driver.attach` | ADD of each plugin in turn, with the result of the one before it |
/// | `network.driver.detach` | DEL of each plugin in reverse |
/// | `plugin.check` | CHECK for containers that run, DEL for those that do not, GC where the list knows it |
public final class CNINetworkPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "network-cni", role: "network", driver: "cni", onFailure: .skip,
    keys: [
      ConfigurationKey(
        "configuration_directories", .list(["/etc/cni/net.d"]), "Where network configuration lists are found."),
      ConfigurationKey(
        "binary_directories", .list(["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]),
        "Where the plugins' executables are found."),
      ConfigurationKey("deadline_seconds", .integer(30), range: 1...3600, "Seconds in which each plugin must end."),
    ])

  private let host: PluginHost
  private let directories: [String]
  private let runner: PluginRunner
  private let attachments: CNIAttachments
  private let networks = Mutex<[ObjectID: NetworkList]>([:])

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    directories = host.listSetting("configuration_directories")
    runner = PluginRunner(
      directories: host.listSetting("binary_directories"),
      deadlineSeconds: try host.integerSetting("deadline_seconds"))
    attachments = try CNIAttachments(directory: try host.stateDirectory())
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(NetworkDriverCreate.self) { [self] (request, _) async throws(EngineError) in
      try create(request.definition)
    }
    try registrar.answerAsDriver(NetworkDriverRemove.self) { [self] (request, _) async throws(EngineError) in
      let users = attachments.users(of: request.definition.id)
      guard users.isEmpty else {
        throw EngineError(
          .inUse,
          "network \(request.definition.name) has active endpoints: \(users.map(\.short).joined(separator: ", "))")
      }
      networks.withLock { _ = $0.removeValue(forKey: request.definition.id) }
      return Done()
    }
    try registrar.answerAsDriver(NetworkDriverAttach.self) { [self] (request, call) async throws(EngineError) in
      let reply = try attach(request)
      let container = request.container
      await call.lease.hold("CNI networks of \(container.short)") { [self] in try? detach(container) }
      return reply
    }
    try registrar.answerAsDriver(NetworkDriverDetach.self) { [self] (request, _) async throws(EngineError) in
      try detach(request.container)
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { [self] (request, _) async throws(EngineError) in
      try check(request)
    }
  }

  // MARK: Networks

  private func create(_ definition: NetworkDefinition) throws(EngineError) -> NetworkDefinition {
    for option in definition.options.keys.sorted() where option != "config" {
      throw EngineError(.invalidArgument, "invalid option: \"\(option.prefix(100))\"; there is: config")
    }
    let list = try find(definition)
    var definition = definition
    definition.options["config"] = list.name
    if definition.pools.isEmpty, let subnet = list.subnet { definition.pools = [AddressPool(subnet: subnet)] }
    networks.withLock { $0[definition.id] = list }
    return definition
  }

  private func find(_ definition: NetworkDefinition) throws(EngineError) -> NetworkList {
    let found = NetworkList.find(in: directories)
    let lists = found.compactMap { try? $0.list.get() }
    if let wanted = definition.options["config"] {
      if let list = lists.first(where: { $0.name == wanted }) { return list }
      throw EngineError(
        .notFound,
        "there is no CNI network \"\(wanted.prefix(100))\" in \(directories.joined(separator: ", "))"
          + (lists.isEmpty ? "" : "; there is: \(lists.map(\.name).joined(separator: ", "))"))
    }
    if let list = lists.first(where: { $0.name == definition.name }) ?? lists.first { return list }
    for (_, list) in found { _ = try list.get() }
    throw EngineError(
      .notFound, "there is no CNI configuration list in \(directories.joined(separator: ", "))")
  }

  // MARK: Containers

  private func attach(_ request: NetworkDriverAttach) throws(EngineError) -> NetworkDriverAttach.Reply {
    guard let namespace = request.namespace else {
      throw EngineError(.invalidArgument, "a CNI network needs a network namespace of the container's own")
    }
    var reply = NetworkDriverAttach.Reply(endpoints: [], ports: request.ports, reservations: [])
    do throws(EngineError) {
      for attachment in request.attachments {
        guard let list = networks.withLock({ $0[attachment.definition.id] }) else {
          throw EngineError(.notFound, "network \(attachment.definition.name) not found")
        }
        reply.endpoints.append(try add(attachment, list, request, namespace))
      }
    } catch {
      // Also what failed half-way is deleted, as the specification asks for.
      try? detach(request.container)
      throw error
    }
    return reply
  }

  private func add(
    _ attachment: NetworkDriverAttach.Attachment, _ list: NetworkList, _ request: NetworkDriverAttach,
    _ namespace: Descriptor
  ) throws(EngineError) -> Endpoint {
    let runtime = try runtimeConfiguration(attachment, list, request.ports)
    var record = CNIAttachment(
      container: request.container, network: attachment.definition.id, interface: attachment.interface,
      list: list.text, runtime: runtime, result: .null)
    try attachments.write(record, namespace)
    FaultPoint.reach("network-cni.attach.recorded")
    for plugin in list.plugins {
      let result = try runner.run(
        .add, plugin, of: list, target(record), additions: additions(plugin, runtime, previous: record.result))
      if result != .null { record.result = result }
      FaultPoint.reach("network-cni.attach.added")
    }
    try attachments.write(record, nil)
    return try endpoint(attachment, record)
  }

  private func target(_ record: CNIAttachment) -> PluginRunner.Target {
    let namespace = attachments.namespace(of: record.container)
    return PluginRunner.Target(
      container: record.container.text, namespace: namespace.map { "/proc/\(getpid())/fd/\($0.number)" } ?? "",
      interface: record.interface)
  }

  /// What the engine knows and plugins that are capable of it want to.
  private func runtimeConfiguration(
    _ attachment: NetworkDriverAttach.Attachment, _ list: NetworkList, _ ports: [PortBinding]
  ) throws(EngineError) -> JSONValue {
    var members: [JSONValue.Member] = []
    if !ports.isEmpty {
      guard list.supports("portMappings") else {
        throw EngineError(
          .unsupported, "the CNI network \(list.name) publishes no ports: no plugin of it is capable of portMappings")
      }
      for port in ports where port.hostPort == 0 {
        throw EngineError(.unsupported, "a CNI network cannot choose the host port for \(port.containerPort): name one")
      }
      members.append(
        .init(
          "portMappings",
          .array(
            ports.map { port in
              .object([
                .init("hostPort", .integer(Int64(port.hostPort))),
                .init("containerPort", .integer(Int64(port.containerPort))),
                .init("protocol", .string(port.transport.rawValue)), .init("hostIP", .string(port.hostAddress)),
              ])
            })))
    }
    if let address = attachment.request.address {
      guard list.supports("ips") else {
        throw EngineError(
          .unsupported, "the CNI network \(list.name) takes no address: no plugin of it is capable of ips")
      }
      members.append(.init("ips", .array([.string(address)])))
    }
    if let address = attachment.request.hardwareAddress, list.supports("mac") {
      members.append(.init("mac", .string(address)))
    }
    return .object(members)
  }

  private func additions(
    _ plugin: JSONValue, _ runtime: JSONValue, previous: JSONValue
  ) -> [JSONValue.Member] {
    var members: [JSONValue.Member] = []
    if case .object(let all) = runtime {
      let wanted = all.filter { NetworkList.has($0.key, plugin) }
      if !wanted.isEmpty { members.append(.init("runtimeConfig", .object(wanted))) }
    }
    if previous != .null { members.append(.init("prevResult", previous)) }
    return members
  }

  private func endpoint(
    _ attachment: NetworkDriverAttach.Attachment, _ record: CNIAttachment
  ) throws(EngineError) -> Endpoint {
    var endpoint = Endpoint(
      id: .random(), networkID: attachment.definition.id, networkName: attachment.definition.name, driver: "cni",
      interface: record.interface, aliases: attachment.request.aliases)
    if case .array(let addresses) = record.result["ips"] {
      for entry in addresses {
        guard case .string(let text) = entry["address"], !text.contains(":") else { continue }
        let parts = text.split(separator: "/")
        endpoint.address = parts.first.map(String.init) ?? ""
        endpoint.prefixLength = parts.count == 2 ? Int(parts[1]) ?? 0 : 0
        if case .string(let gateway) = entry["gateway"] { endpoint.gateway = gateway }
        break
      }
    }
    if case .array(let interfaces) = record.result["interfaces"] {
      for entry in interfaces where entry["name"] == .string(record.interface) {
        if case .string(let address) = entry["mac"] { endpoint.hardwareAddress = address }
      }
    }
    return endpoint
  }

  private func detach(_ container: ObjectID) throws(EngineError) {
    for record in attachments.of(container).reversed() {
      let list = try NetworkList(parsing: record.list, path: "the list of \(container.short)")
      for plugin in list.plugins.reversed() {
        _ = try runner.run(
          .delete, plugin, of: list, target(record),
          additions: additions(plugin, record.runtime, previous: list.isAtLeast(0, 4) ? record.result : .null))
        FaultPoint.reach("network-cni.detach.deleted")
      }
      try attachments.remove(record)
    }
  }

  // MARK: Checking

  private func check(_ request: PluginCheck) throws(EngineError) -> [SystemDifference] {
    let running = Set(request.running)
    var differences: [SystemDifference] = []
    func report(_ kind: SystemDifference.Kind, _ object: String) {
      differences.append(SystemDifference(kind: kind, plugin: host.manifest.name, object: object))
    }
    for record in attachments.all {
      guard running.contains(record.container) else {
        report(.leftover, "attachment of \(record.container.short) (\(record.interface))")
        if request.repair { try detach(record.container) }
        continue
      }
      // Without the namespace, which only the engine that attached it has, there is nothing to look into.
      guard attachments.namespace(of: record.container) != nil, record.result != .null else { continue }
      let list = try NetworkList(parsing: record.list, path: "the list of \(record.container.short)")
      guard list.isAtLeast(0, 4), !list.disablesCheck else { continue }
      do throws(EngineError) {
        for plugin in list.plugins {
          _ = try runner.run(
            .check, plugin, of: list, target(record),
            additions: additions(plugin, record.runtime, previous: record.result))
        }
      } catch {
        report(.missing, "\(record.interface) of container \(record.container.short): \(error)")
      }
    }
    if request.repair { collectGarbage() }
    return differences
  }

  /// Tells plugins of lists that know GC (from version 1.1 on) which attachments there are.
  private func collectGarbage() {
    for list in Set(networks.withLock { $0.values.map(\.name) }).compactMap({ name in
      networks.withLock { $0.values.first { $0.name == name } }
    }) where list.isAtLeast(1, 1) {
      let valid = attachments.all.map { record in
        JSONValue.object([
          .init("containerID", .string(record.container.text)), .init("ifname", .string(record.interface)),
        ])
      }
      for plugin in list.plugins {
        do throws(EngineError) {
          _ = try runner.run(
            .collect, plugin, of: list, nil, additions: [.init("cni.dev/valid-attachments", .array(valid))])
        } catch {
          host.log.warning("garbage of the CNI network \(list.name) is not collected: \(error)")
        }
      }
    }
  }
}
