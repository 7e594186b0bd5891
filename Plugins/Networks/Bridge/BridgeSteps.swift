import Contracts
import Kernel

/// Single steps of the driver's work, for who measures them (`engine bench`): the same code in the same order as in
/// `attach`.
package final class BridgeSteps: Sendable {
  /// A container's link in the making.
  package struct Link {
    let plan: BridgeDriver.Plan
    let entries: [UInt64]

    /// The name of its end on the bridge.
    package var name: String { plan.link.link }
  }

  private let driver: BridgeDriver

  package init(host: PluginHost) throws(EngineError) {
    do {
      driver = try BridgeDriver(host: host)
    } catch {
      throw EngineError(.unavailable, "\(error)")
    }
  }

  package func create(_ definition: NetworkDefinition) throws(EngineError) -> NetworkDefinition {
    try driver.create(definition)
  }

  /// Takes an address, records the link and makes it.
  ///
  /// - Parameter namespace: the container's, where the link's other end is `eth0`.
  package func link(
    to definition: NetworkDefinition, container: ObjectID, namespace: Descriptor
  ) throws(EngineError) -> Link {
    let attachment = NetworkDriverAttach.Attachment(
      definition: definition, request: EndpointRequest(network: definition.name), interface: "eth0",
      isDefaultRoute: true)
    let request = NetworkDriverAttach(
      container: container, namespace: namespace, attachments: [attachment], ports: [])
    let plans = try driver.chooseAddresses(request)
    guard let plan = plans.first else { throw EngineError(.internalFailure, "no link was planned") }
    let entries = try driver.journal.begin(
      plugin: driver.plugin, container: container.text, [(kind: AttachedLink.kind, object: plan.link.text)])
    try driver.makeLinks(plans, namespace: namespace.number, publishes: false)
    return Link(plan: plan, entries: entries)
  }

  /// Address, route and the link up, inside the container's namespace.
  package func configure(_ link: Link, namespace: Descriptor) throws(EngineError) {
    try driver.configureInside([link.plan], namespace: namespace.number)
  }

  /// Forgets a link that went with its namespace.
  package func forget(_ link: Link) throws(EngineError) {
    driver.state.withLock { $0.networks[link.plan.link.network]?.addresses.release(link.plan.link.address) }
    try driver.journal.end(link.entries)
  }

  /// The name of the instance's table.
  package var table: String { driver.table.name }

  /// Writes the instance's table, without any network.
  package func makeTable() throws(EngineError) { try driver.writeTable() }

  /// Publishes ports of the host as port 80 of 10.99.0.2, in one transaction.
  package func publish(_ ports: ClosedRange<UInt16>) throws(EngineError) { try driver.publish(Self.published(ports)) }

  package func unpublish(_ ports: ClosedRange<UInt16>) throws(EngineError) {
    try driver.unpublish(Self.published(ports))
  }

  private static func published(_ ports: ClosedRange<UInt16>) -> [PublishedPort] {
    ports.map {
      PublishedPort(
        transport: .tcp, hostAddress: nil, hostPort: $0, address: IPv4Address(10 << 24 | 99 << 16 | 2), port: 80)
    }
  }
}
