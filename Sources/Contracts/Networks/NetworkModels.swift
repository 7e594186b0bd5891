/// One address pool of a network, as `network inspect` shows it.
public struct AddressPool: Codable, Sendable, Equatable {
  /// CIDR, for example `172.17.0.0/16`.
  public var subnet: String
  public var gateway: String?
  /// A smaller CIDR from which addresses are given, or nil for the whole subnet.
  public var range: String?

  public init(subnet: String, gateway: String? = nil, range: String? = nil) {
    self.subnet = subnet
    self.gateway = gateway
    self.range = range
  }
}

/// A network that somebody created.
public struct NetworkDefinition: Codable, Sendable, Equatable {
  public var id: ObjectID
  public var name: String
  public var driver: String
  public var created: Timestamp
  /// Empty on create means: the driver chooses.
  public var pools: [AddressPool]
  public var options: [String: String]
  public var labels: [String: String]
  public var isInternal: Bool
  /// The default bridge network: no names are resolved on it, and it cannot be removed.
  public var isDefault: Bool

  public init(
    id: ObjectID, name: String, driver: String, created: Timestamp, pools: [AddressPool] = [],
    options: [String: String] = [:], labels: [String: String] = [:], isInternal: Bool = false, isDefault: Bool = false
  ) {
    self.id = id
    self.name = name
    self.driver = driver
    self.created = created
    self.pools = pools
    self.options = options
    self.labels = labels
    self.isInternal = isInternal
    self.isDefault = isDefault
  }
}

public enum TransportProtocol: String, Codable, Sendable, CaseIterable {
  case tcp
  case udp
}

/// One published port. On a request `hostPort` 0 asks for a free one; in a reply it is the one that was taken.
public struct PortBinding: Codable, Sendable, Equatable, Hashable {
  public var transport: TransportProtocol
  /// The host's address in text, empty for all addresses.
  public var hostAddress: String
  public var hostPort: UInt16
  /// A range of host ports to choose one from when this is above `hostPort`.
  public var hostPortEnd: UInt16
  public var containerPort: UInt16

  public init(
    transport: TransportProtocol, hostAddress: String, hostPort: UInt16, hostPortEnd: UInt16? = nil,
    containerPort: UInt16
  ) {
    self.transport = transport
    self.hostAddress = hostAddress
    self.hostPort = hostPort
    self.hostPortEnd = hostPortEnd ?? hostPort
    self.containerPort = containerPort
  }
}

/// A container's place on one network, as asked for.
public struct EndpointRequest: Codable, Sendable, Equatable {
  /// A network's name or ID.
  public var network: String
  /// Wanted address, or nil for the next free one.
  public var address: String?
  public var hardwareAddress: String?
  public var aliases: [String]

  public init(network: String, address: String? = nil, hardwareAddress: String? = nil, aliases: [String] = []) {
    self.network = network
    self.address = address
    self.hardwareAddress = hardwareAddress
    self.aliases = aliases
  }
}

/// A container's place on one network, as it is.
public struct Endpoint: Codable, Sendable, Equatable {
  public var id: ObjectID
  public var networkID: ObjectID
  public var networkName: String
  public var driver: String
  /// The interface inside the container, for example `eth0`; empty where the driver makes none.
  public var interface: String
  /// Without prefix length; empty where there is none.
  public var address: String
  public var prefixLength: Int
  public var gateway: String
  public var hardwareAddress: String
  public var aliases: [String]

  public init(
    id: ObjectID, networkID: ObjectID, networkName: String, driver: String, interface: String = "",
    address: String = "", prefixLength: Int = 0, gateway: String = "", hardwareAddress: String = "",
    aliases: [String] = []
  ) {
    self.id = id
    self.networkID = networkID
    self.networkName = networkName
    self.driver = driver
    self.interface = interface
    self.address = address
    self.prefixLength = prefixLength
    self.gateway = gateway
    self.hardwareAddress = hardwareAddress
    self.aliases = aliases
  }
}
