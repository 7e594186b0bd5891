import CNetlink
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Connecting a container.
extension BridgeDriver {
  /// One link in the making.
  struct Plan {
    var attachment: NetworkDriverAttach.Attachment
    var link: AttachedLink
    var hardwareAddress: HardwareAddress
    var network: BridgeNetwork
    /// The link as it was made ahead.
    var spare: AttachedLink?
  }

  /// Connects a container to all its networks and publishes its ports; on failure nothing is left but links that drain.
  func attach(_ request: NetworkDriverAttach) throws(EngineError) -> NetworkDriverAttach.Reply {
    guard let namespace = request.namespace else {
      throw EngineError(.invalidArgument, "a container on a bridge network needs a network namespace of its own")
    }
    var plans = try chooseAddresses(request)
    takeSpare(for: &plans, in: namespace)
    var made = AttachedContainer()
    do {
      let (ports, reservations, published) = try reservePorts(request.ports, plans)
      let isCutOff = published.isEmpty && !request.ports.isEmpty
      made.ports = published
      let numbers = try journal.begin(
        plugin: plugin, container: request.container.text,
        plans.map { (kind: AttachedLink.kind, object: $0.link.text) }
          + (published.isEmpty
            ? []
            : [(kind: AttachedContainer.portsKind, object: published.map(\.text).joined(separator: ";"))]))
      for index in plans.indices { plans[index].link.entry = numbers[index] }
      made.links = plans.map(\.link)
      made.portsEntries = Array(numbers.dropFirst(plans.count))
      let record = made
      state.withLock { state in
        state.containers[request.container, default: AttachedContainer()].links += record.links
        state.containers[request.container, default: AttachedContainer()].ports += record.ports
        state.containers[request.container, default: AttachedContainer()].portsEntries += record.portsEntries
      }
      // They are this container's from here on.
      try journal.end(plans.compactMap(\.spare?.entry))
      FaultPoint.reach("bridge.attach.recorded")
      try makeLinks(plans, namespace: namespace.number, publishes: !published.isEmpty)
      FaultPoint.reach("bridge.attach.linked")
      try configureInside(plans, namespace: namespace.number)
      FaultPoint.reach("bridge.attach.configured")
      if !published.isEmpty { try publish(published) }
      FaultPoint.reach("bridge.attach.published")
      return NetworkDriverAttach.Reply(
        endpoints: plans.map(Self.endpoint), ports: ports, reservations: reservations,
        warnings: isCutOff ? ["Published ports are discarded when all networks are internal"] : [])
    } catch {
      undo(request.container, plans, made)
      throw error
    }
  }

  /// Takes an address for every link, or for none.
  func chooseAddresses(_ request: NetworkDriverAttach) throws(EngineError) -> [Plan] {
    try state.withLock { state throws(EngineError) in
      var plans: [Plan] = []
      do throws(EngineError) {
        for attachment in request.attachments {
          let id = attachment.definition.id
          guard var network = state.networks[id] else {
            throw EngineError(.notFound, "network \(attachment.definition.name) not found on this host")
          }
          let address: IPv4Address
          if let text = attachment.request.address {
            guard let wanted = IPv4Address(text) else {
              throw EngineError(.invalidArgument, "invalid IPv4 address: \(text)")
            }
            address = wanted
            try network.addresses.take(wanted)
          } else {
            address = try network.addresses.next()
          }
          state.networks[id]?.addresses = network.addresses
          let link = AttachedLink(link: Self.linkName(), network: id, address: address)
          plans.append(
            Plan(
              attachment: attachment, link: link, hardwareAddress: HardwareAddress(derivedFrom: address),
              network: network))
          if let text = attachment.request.hardwareAddress {
            guard let wanted = HardwareAddress(text) else {
              throw EngineError(.invalidArgument, "invalid MAC address: \(text)")
            }
            plans[plans.count - 1].hardwareAddress = wanted
          }
        }
      } catch {
        for plan in plans { state.networks[plan.link.network]?.addresses.release(plan.link.address) }
        throw error
      }
      return plans
    }
  }

  /// `veth` and 44 random bits in hexadecimal: the 15 characters a link's name may have.
  static func linkName() -> String {
    let digits = String(UInt64.random(in: 0..<(1 << 44)), radix: 16)
    return "veth" + String(repeating: "0", count: 11 - digits.utf8.count) + digits
  }

  /// Takes the host's ports. They lead to the container's address on the network of its default route; a container
  /// with internal networks only publishes nothing.
  private func reservePorts(
    _ wanted: [PortBinding], _ plans: [Plan]
  ) throws(EngineError) -> (bindings: [PortBinding], reservations: [Descriptor], published: [PublishedPort]) {
    let open = plans.filter { !$0.attachment.definition.isInternal }
    guard let target = open.first(where: \.attachment.isDefaultRoute) ?? open.first else { return ([], [], []) }
    var bindings: [PortBinding] = []
    var reservations: [Descriptor] = []
    var published: [PublishedPort] = []
    for binding in wanted {
      var binding = binding
      if binding.hostAddress.isEmpty { binding.hostAddress = target.network.plan.options.hostAddress }
      let reservation = try PortReservation.make(binding, namespaces)
      bindings.append(reservation.binding)
      reservations.append(reservation.socket)
      published.append(
        PublishedPort(
          transport: binding.transport, hostAddress: try PortReservation.address(binding.hostAddress),
          hostPort: reservation.binding.hostPort, address: target.link.address, port: binding.containerPort))
    }
    return (bindings, reservations, published)
  }

  func makeLinks(_ plans: [Plan], namespace: Int32, publishes: Bool) throws(EngineError) {
    let reflects = state.withLock { $0.reflects }
    try attempt("the container cannot be connected") { () throws(SystemCallError) in
      var batch = NetlinkBatch()
      for plan in plans {
        if plan.spare != nil {
          // It is on it, unless somebody has taken the bridge away: then this fails, as making a link would.
          try batch.setMaster(plan.link.link, bridge: plan.network.index)
        } else {
          try batch.addVeth(
            plan.link.link, bridge: plan.network.index, peer: plan.attachment.interface,
            peerAddress: plan.hardwareAddress, namespace: namespace, mtu: plan.network.plan.options.mtu)
        }
        // Where frames pass the rules, those keep neighbours apart, and still let them meet by published ports.
        let isolated = !plan.network.plan.options.connects && !reflects
        // Only what reaches itself by a port of its own comes back to where it came from.
        let hairpin = reflects && publishes
        if hairpin || isolated { try batch.setBridgePort(plan.link.link, hairpin: hairpin, isolated: isolated) }
      }
      try routing.send(&batch)
    }
  }

  /// Address, route and the link up, from a socket inside the container's namespace.
  func configureInside(_ plans: [Plan], namespace: Int32) throws(EngineError) {
    try attempt("the container's interface cannot be configured") { () throws(SystemCallError) in
      let socket = try namespaces.inside(namespace) { () throws(SystemCallError) in try NetlinkSocket(NETLINK_ROUTE) }
      var batch = NetlinkBatch()
      for plan in plans {
        let interface = plan.attachment.interface
        guard let index = try socket.index(of: interface) else {
          throw SystemCallError(call: "find the interface", subject: interface, number: ENODEV)
        }
        if plan.spare == nil {
          try batch.disableLinkLocal(subject: interface)
        } else {
          try batch.setAddress(index, plan.hardwareAddress, subject: interface)
        }
        try batch.addAddress(plan.link.address, plan.network.plan.subnet, link: index, subject: interface)
        try batch.setLinkUp(index, subject: interface)
        if plan.attachment.isDefaultRoute, !plan.attachment.definition.isInternal {
          try batch.addDefaultRoute(gateway: plan.network.plan.gateway, link: index)
        }
      }
      try socket.send(&batch)
    }
  }

  private static func endpoint(_ plan: Plan) -> Endpoint {
    let definition = plan.attachment.definition
    return Endpoint(
      id: .random(), networkID: definition.id, networkName: definition.name, driver: definition.driver,
      interface: plan.attachment.interface, address: plan.link.address.description,
      prefixLength: plan.network.plan.subnet.prefixLength,
      gateway: definition.isInternal ? "" : plan.network.plan.gateway.description,
      hardwareAddress: plan.hardwareAddress.description, aliases: plan.attachment.request.aliases)
  }

  /// Takes back what `attach` did before it failed, without touching what the container had before.
  private func undo(_ container: ObjectID, _ plans: [Plan], _ made: AttachedContainer) {
    if made.links.isEmpty {
      state.withLock { state in
        for plan in plans { state.networks[plan.link.network]?.addresses.release(plan.link.address) }
      }
      return drain(plans.compactMap(\.spare))
    }
    do {
      try takeOff(container, made)
    } catch {
      host.log.error("a container that could not be connected leaves something behind: \(error)")
    }
  }
}
