// What users and the lifecycle ask of the network catalog. The catalog knows which driver has which network and asks
// the drivers with the messages in NetworkDriverMessages.swift.

public struct NetworkCreate: Request {
  public static let name = "network.create"
  public typealias Reply = NetworkDefinition
  public var networkName: String
  /// Nil for the default driver.
  public var driver: String?
  public var pools: [AddressPool]
  public var options: [String: String]
  public var labels: [String: String]
  public var isInternal: Bool

  public init(
    networkName: String, driver: String?, pools: [AddressPool], options: [String: String], labels: [String: String],
    isInternal: Bool
  ) {
    self.networkName = networkName
    self.driver = driver
    self.pools = pools
    self.options = options
    self.labels = labels
    self.isInternal = isInternal
  }
}

public struct NetworkList: Request {
  public static let name = "network.list"
  public static let isRepeatable = true
  public typealias Reply = [NetworkDefinition]

  public init() {}
}

/// A network with the endpoints that are on it now, by container ID.
public struct NetworkInspection: Codable, Sendable {
  public var definition: NetworkDefinition
  public var endpoints: [ObjectID: Endpoint]

  public init(definition: NetworkDefinition, endpoints: [ObjectID: Endpoint]) {
    self.definition = definition
    self.endpoints = endpoints
  }
}

/// Finds a network by name, ID or unique prefix of its ID; `notFound` says `network x not found`.
public struct NetworkInspect: Request {
  public static let name = "network.inspect"
  public static let isRepeatable = true
  public typealias Reply = NetworkInspection
  public var network: String

  public init(network: String) { self.network = network }
}

/// Removes a network; `inUse` names the endpoints on it.
public struct NetworkRemove: Request {
  public static let name = "network.remove"
  public typealias Reply = ObjectID
  public var network: String

  public init(network: String) { self.network = network }
}

/// Removes a network as `NetworkRemove` does; where its driver is gone, its record alone.
public struct NetworkForget: Request {
  public static let name = "network.forget"
  public struct Reply: Codable, Sendable, Equatable {
    public var network: ObjectID
    /// What may remain, for people.
    public var warnings: [String]

    public init(network: ObjectID, warnings: [String]) {
      self.network = network
      self.warnings = warnings
    }
  }
  public var network: String

  public init(network: String) { self.network = network }
}

/// Makes a container's network namespace, and nothing in it yet: `NetworkAttach` with the same container and networks is
/// to follow. No lease gives it back: `NetworkDetach` does, also when `NetworkAttach` fails or is not sent.
public struct NetworkPrepare: Request {
  public static let name = "network.prepare"
  public struct Reply: Codable, Sendable {
    /// The network namespace, or nil where the container shares the host's. `lo` is up in it, and unprivileged processes
    /// may bind low ports and send ICMP echo requests, as in Docker's.
    public var namespace: Descriptor?

    public init(namespace: Descriptor?) { self.namespace = namespace }
  }
  public var container: ObjectID
  public var endpoints: [EndpointRequest]

  public init(container: ObjectID, endpoints: [EndpointRequest]) {
    self.container = container
    self.endpoints = endpoints
  }
}

/// Attaches a container to all its networks and ports in one go; makes its network namespace too where it was not
/// prepared.
public struct NetworkAttach: Request {
  public static let name = "network.attach"
  public struct Reply: Codable, Sendable {
    /// See `NetworkPrepare.Reply`.
    public var namespace: Descriptor?
    public var endpoints: [Endpoint]
    /// What was asked for, with the host ports that were taken.
    public var ports: [PortBinding]
    /// Bound sockets that keep the host ports; whoever holds them keeps the ports.
    public var reservations: [Descriptor]
    /// What was asked for and could not be done, in words for the user.
    public var warnings: [String]

    public init(
      namespace: Descriptor?, endpoints: [Endpoint], ports: [PortBinding], reservations: [Descriptor],
      warnings: [String] = []
    ) {
      self.namespace = namespace
      self.endpoints = endpoints
      self.ports = ports
      self.reservations = reservations
      self.warnings = warnings
    }
  }
  public var container: ObjectID
  public var endpoints: [EndpointRequest]
  public var ports: [PortBinding]

  public init(container: ObjectID, endpoints: [EndpointRequest], ports: [PortBinding]) {
    self.container = container
    self.endpoints = endpoints
    self.ports = ports
  }
}

/// Takes a container off all its networks. Ports, addresses and names are free when it returns; links may still drain.
/// A container that has none is done already.
public struct NetworkDetach: Request {
  public static let name = "network.detach"
  public typealias Reply = Done
  public var container: ObjectID

  public init(container: ObjectID) { self.container = container }
}
