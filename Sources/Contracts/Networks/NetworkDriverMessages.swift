// Role "network": what a network driver answers. Each message is routed by the driver's name.

/// Makes a network. The driver chooses what the definition leaves open (pools, gateway) and returns it complete. A
/// network that was made before is made again where something of it is missing, so this is also sent at start-up.
public struct NetworkDriverCreate: Request {
  public static let name = "network.driver.create"
  public typealias Reply = NetworkDefinition
  public var definition: NetworkDefinition

  public init(definition: NetworkDefinition) { self.definition = definition }
}

public struct NetworkDriverRemove: Request {
  public static let name = "network.driver.remove"
  public typealias Reply = Done
  public var definition: NetworkDefinition

  public init(definition: NetworkDefinition) { self.definition = definition }
}

/// Puts a network's interface into a namespace that no container has yet: an attachment with that namespace finds it
/// made. Nobody need answer it, and drivers out of tree are not asked.
public struct NetworkDriverPrepare: Request {
  public static let name = "network.driver.prepare"
  public typealias Reply = Done
  public var definition: NetworkDefinition
  public var namespace: Descriptor
  /// The name of the interface inside, for example `eth0`.
  public var interface: String

  public init(definition: NetworkDefinition, namespace: Descriptor, interface: String) {
    self.definition = definition
    self.namespace = namespace
    self.interface = interface
  }
}

/// Connects one container to networks of this driver and publishes its ports.
///
/// Either everything is done or nothing is left. Throws `conflict` with Docker's words for a port or an address that is
/// taken (`Bind for 0.0.0.0:80 failed: port is already allocated`).
public struct NetworkDriverAttach: Request {
  public static let name = "network.driver.attach"
  public struct Attachment: Codable, Sendable {
    public var definition: NetworkDefinition
    public var request: EndpointRequest
    /// The name the interface shall have inside, for example `eth0`.
    public var interface: String
    /// Whether the default route goes through this network.
    public var isDefaultRoute: Bool

    public init(
      definition: NetworkDefinition, request: EndpointRequest, interface: String, isDefaultRoute: Bool
    ) {
      self.definition = definition
      self.request = request
      self.interface = interface
      self.isDefaultRoute = isDefaultRoute
    }
  }
  public struct Reply: Codable, Sendable {
    public var endpoints: [Endpoint]
    public var ports: [PortBinding]
    public var reservations: [Descriptor]
    /// What was asked for and could not be done, in words for the user.
    public var warnings: [String]

    public init(
      endpoints: [Endpoint], ports: [PortBinding], reservations: [Descriptor], warnings: [String] = []
    ) {
      self.endpoints = endpoints
      self.ports = ports
      self.reservations = reservations
      self.warnings = warnings
    }

    /// A driver that has nothing to warn of need not say so.
    public init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      endpoints = try container.decode([Endpoint].self, forKey: .endpoints)
      ports = try container.decode([PortBinding].self, forKey: .ports)
      reservations = try container.decode([Descriptor].self, forKey: .reservations)
      warnings = try container.decodeIfPresent([String].self, forKey: .warnings) ?? []
    }
  }
  public var container: ObjectID
  /// The container's network namespace, with `lo` up and the settings that containers have unless they ask for others
  /// (`NetworkAttach.Reply`); nil for a driver that shares the host's.
  public var namespace: Descriptor?
  public var attachments: [Attachment]
  public var ports: [PortBinding]

  public init(container: ObjectID, namespace: Descriptor?, attachments: [Attachment], ports: [PortBinding]) {
    self.container = container
    self.namespace = namespace
    self.attachments = attachments
    self.ports = ports
  }
}

public struct NetworkDriverDetach: Request {
  public static let name = "network.driver.detach"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}
