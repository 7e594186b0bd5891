import Contracts
import Kernel

/// The options of a bridge network, as Docker names them.
struct BridgeOptions: Sendable, Equatable {
  static let bridgeName = "com.docker.network.bridge.name"
  static let connects = "com.docker.network.bridge.enable_icc"
  static let masquerades = "com.docker.network.bridge.enable_ip_masquerade"
  static let hostAddress = "com.docker.network.bridge.host_binding_ipv4"
  static let mtu = "com.docker.network.driver.mtu"

  var bridge: String?
  var connects = true
  var masquerades = true
  var hostAddress = ""
  var mtu: UInt32?

  /// - Throws: `invalidArgument` that names the option.
  init(_ options: [String: String]) throws(EngineError) {
    // Docker's are all known by their prefix, also those that ask for nothing here.
    for key in options.keys.sorted() where !key.hasPrefix("com.docker.network.") {
      throw EngineError(
        .invalidArgument,
        "invalid option: \"\(key)\"; the bridge driver has "
          + [Self.bridgeName, Self.connects, Self.masquerades, Self.hostAddress, Self.mtu].joined(separator: ", "))
    }
    func bool(_ key: String) throws(EngineError) -> Bool {
      guard let text = options[key] else { return true }
      switch text.lowercased() {
      case "1", "t", "true", "": return true
      case "0", "f", "false": return false
      default: throw EngineError(.invalidArgument, "invalid value \"\(text)\" for \(key): it is true or false")
      }
    }
    connects = try bool(Self.connects)
    masquerades = try bool(Self.masquerades)
    if let name = options[Self.bridgeName], !name.isEmpty {
      let isValid =
        name.utf8.count <= 15 && name != "." && name != ".."
        && name.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }
      guard isValid else {
        throw EngineError(.invalidArgument, "invalid bridge name \"\(name)\": a link's name has 1 to 15 characters")
      }
      bridge = name
    }
    if let text = options[Self.mtu], !text.isEmpty {
      guard let value = UInt32(text), (68...65535).contains(value) else {
        throw EngineError(.invalidArgument, "invalid MTU \"\(text)\": it is a number from 68 to 65535")
      }
      mtu = value
    }
    if let text = options[Self.hostAddress], !text.isEmpty {
      guard IPv4Address(text) != nil else {
        throw EngineError(.invalidArgument, "invalid value \"\(text)\" for \(Self.hostAddress): it is an IPv4 address")
      }
      hostAddress = text
    }
  }
}

/// What is on the host already, which a new network must not meet.
struct HostSurvey: Sendable {
  var links: [Link] = []
  /// Subnets of addresses and routes.
  var subnets: [HostSubnet] = []
  /// Subnets of the engine's other networks.
  var own: [IPv4Subnet] = []

  func link(_ name: String) -> Link? { links.first { $0.name == name } }
}

/// A network with everything chosen.
struct NetworkPlan: Sendable, Equatable {
  var bridge: String
  var subnet: IPv4Subnet
  var range: IPv4Subnet?
  var gateway: IPv4Address
  var options: BridgeOptions

  /// Chooses what the definition leaves open.
  ///
  /// - Parameters:
  ///   - ownBridge: the bridge that the journal says is this network's, which may be on the host already.
  ///   - engineBridge: the default network's bridge where docker0 is not to be had.
  init(
    _ definition: NetworkDefinition, _ survey: HostSurvey, ownBridge: String?, takesDockerNames: Bool,
    engineBridge: String
  ) throws(EngineError) {
    options = try BridgeOptions(definition.options)
    guard definition.pools.count <= 1 else {
      throw EngineError(.unsupported, "a bridge network has one IPv4 subnet; \(definition.pools.count) were given")
    }
    func isFree(_ name: String) -> Bool { name == ownBridge || survey.link(name) == nil }
    // What the host has on our own bridge is no obstacle.
    let ownIndex = (ownBridge ?? options.bridge).flatMap { survey.link($0)?.index }
    let used = survey.own + survey.subnets.filter { $0.link == 0 || $0.link != ownIndex }.map(\.subnet)
    func isFree(_ subnet: IPv4Subnet) -> Bool { !used.contains { $0.overlaps(subnet) } }

    let given = try definition.pools.first.map { (pool) throws(EngineError) in
      try NetworkPlan.read(pool)
    }
    if definition.isDefault, let chosen = options.bridge, !isFree(chosen) || given.map({ !isFree($0.subnet) }) == true {
      // Chosen at an earlier start, and taken by somebody else since.
      options.bridge = nil
      self = try Self.chooseDefault(
        options, used, isFree: isFree, takesDockerNames: takesDockerNames, engineBridge: engineBridge)
      return
    }
    if definition.isDefault, options.bridge == nil, given == nil {
      self = try Self.chooseDefault(
        options, used, isFree: isFree, takesDockerNames: takesDockerNames, engineBridge: engineBridge)
      return
    }
    bridge = options.bridge ?? (definition.isDefault ? engineBridge : "br-\(definition.id.short)")
    if let given {
      guard isFree(given.subnet) else {
        throw EngineError(.conflict, "Pool overlaps with other one on this address space: \(given.subnet)")
      }
      (subnet, range, gateway) = given
    } else {
      subnet = try AddressPools.choose(avoiding: used)
      gateway = IPv4Address(subnet.base.number + 1)
    }
    options.bridge = bridge
  }

  private init(bridge: String, subnet: IPv4Subnet, options: BridgeOptions) {
    self.bridge = bridge
    self.subnet = subnet
    gateway = IPv4Address(subnet.base.number + 1)
    self.options = options
    self.options.bridge = bridge
  }

  /// docker0 with 172.17.0.0/16 only when both are free; otherwise a bridge of the engine's own and another pool.
  private static func chooseDefault(
    _ options: BridgeOptions, _ used: [IPv4Subnet], isFree: (String) -> Bool, takesDockerNames: Bool,
    engineBridge: String
  ) throws(EngineError) -> NetworkPlan {
    let first = AddressPools.defaults[0]
    if takesDockerNames, isFree("docker0"), !used.contains(where: { $0.overlaps(first) }) {
      return NetworkPlan(bridge: "docker0", subnet: first, options: options)
    }
    guard isFree(engineBridge) else {
      throw EngineError(
        .conflict, "the link \(engineBridge) is there already and is not this engine's: remove or rename it")
    }
    return NetworkPlan(
      bridge: engineBridge,
      subnet: try AddressPools.choose(avoiding: used, from: AddressPools.defaults.dropFirst()), options: options)
  }

  /// What a bridge's subnet is written as.
  static let subnetForm = TextForm("an IPv4 subnet in CIDR form, from /8 to /30") { subnet($0) != nil }

  /// What the kernel takes as the name of a link (net/core/dev.c, `dev_valid_name`).
  static let linkName = TextForm("the name of a link: 1 to 15 bytes, without a slash, a colon or a space") { name in
    name.utf8.count <= 15 && name != "." && name != ".."
      && !name.utf8.contains { $0 == 0x2F || $0 == 0x3A || ($0 >= 9 && $0 <= 13) || $0 == 0x20 || $0 == 0 }
  }

  private static func subnet(_ text: String) -> IPv4Subnet? {
    IPv4Subnet(text).flatMap { (8...30).contains($0.prefixLength) ? $0 : nil }
  }

  private static func read(
    _ pool: AddressPool
  ) throws(EngineError) -> (subnet: IPv4Subnet, range: IPv4Subnet?, gateway: IPv4Address) {
    guard let subnet = subnet(pool.subnet) else {
      throw EngineError(.invalidArgument, "invalid subnet \"\(pool.subnet)\": it is IPv4 in CIDR form, from /8 to /30")
    }
    var range: IPv4Subnet?
    if let text = pool.range {
      guard let parsed = IPv4Subnet(text), subnet.contains(parsed) else {
        throw EngineError(.invalidArgument, "invalid range \"\(text)\": it is not inside the subnet \(subnet)")
      }
      range = parsed
    }
    var gateway = IPv4Address(subnet.base.number + 1)
    if let text = pool.gateway {
      guard let parsed = IPv4Address(text), subnet.contains(parsed), parsed != subnet.base, parsed != subnet.last else {
        throw EngineError(.invalidArgument, "invalid gateway \"\(text)\": it is no address of the subnet \(subnet)")
      }
      gateway = parsed
    }
    return (subnet, range, gateway)
  }

  var nft: NftNetwork {
    NftNetwork(
      bridge: bridge, subnet: subnet, isInternal: false, masquerades: options.masquerades, connects: options.connects)
  }

  /// The definition with what was chosen, so that the next start chooses the same.
  func complete(_ definition: NetworkDefinition) -> NetworkDefinition {
    var definition = definition
    definition.pools = [
      AddressPool(subnet: subnet.description, gateway: gateway.description, range: range?.description)
    ]
    if definition.isDefault { definition.options[BridgeOptions.bridgeName] = bridge }
    return definition
  }
}
