import Contracts
import Kernel
import LinuxSystem

/// A container's place on its networks.
struct ContainerAttachment {
  /// The drivers that were asked, or are about to be.
  var drivers: [String]
  var networks: [ObjectID]
  var endpoints: [Endpoint]
  /// Its network namespace; nil for one that an engine before this one made, and on the host's network.
  var namespace: Descriptor?
  /// Its open entries in the journal.
  var journal: [UInt64]
  /// Its namespace is made, or about to be, and no driver has been asked.
  var isPrepared = false
  /// It is being taken back: its drivers may have given its addresses to others by now.
  var isLeaving = false
  /// Nobody has it any more, and a driver could not be told: that is made up for as soon as it can.
  var isOwed = false
}

/// What the catalog knows, in memory.
struct CatalogState {
  /// Networks that always exist; each has the driver of its own name.
  static let predefined = ["bridge", "host", "none"]
  /// The network of a container that names none.
  static let defaultNetwork = "bridge"

  var definitions: [ObjectID: NetworkDefinition] = [:]
  /// Names of networks that are being made.
  var creating: Set<String> = []
  /// Networks that are being removed: nobody may attach to them any more.
  var removing: Set<ObjectID> = []
  /// Networks that their driver could not make when the engine started.
  var failed: Set<ObjectID> = []
  private(set) var attachments: [ObjectID: ContainerAttachment] = [:]
  /// Who has which address, of all attachments.
  private var holders: [Place: ObjectID] = [:]
  /// Containers whose owed attachments are being taken back.
  var releasing: [ObjectID: Once<Void>] = [:]

  private struct Place: Hashable {
    var network: ObjectID
    var address: String
  }

  /// Changes what is known of a container's attachment; nil for none.
  mutating func change(_ container: ObjectID, _ body: (inout ContainerAttachment?) -> Void) {
    var attachment = attachments[container]
    forget(attachment, of: container)
    body(&attachment)
    attachments[container] = attachment
    guard let attachment, !attachment.isLeaving else { return }
    for endpoint in attachment.endpoints where !endpoint.address.isEmpty {
      holders[Place(network: endpoint.networkID, address: endpoint.address)] = container
    }
  }

  private mutating func forget(_ attachment: ContainerAttachment?, of container: ObjectID) {
    for endpoint in attachment?.endpoints ?? [] {
      let place = Place(network: endpoint.networkID, address: endpoint.address)
      if holders[place] == container { holders[place] = nil }
    }
  }

  /// The container that has an address on a network.
  func holder(of address: String, on network: ObjectID) -> ObjectID? {
    holders[Place(network: network, address: address)]
  }

  /// A network by its name, its ID, or a prefix of the ID that no other network has.
  ///
  /// - Throws: `notFound` with `network x not found`, `invalidArgument` for an ambiguous prefix.
  func find(_ text: String) throws(EngineError) -> NetworkDefinition {
    let name = text == "default" ? Self.defaultNetwork : text
    if let named = definitions.values.first(where: { $0.name == name }) { return named }
    if let id = ObjectID(text), let exact = definitions[id] { return exact }
    let matches = text.isEmpty ? [] : definitions.values.filter { $0.id.text.hasPrefix(text) }
    if matches.count > 1 {
      throw EngineError(
        .invalidArgument, "network \(text) is ambiguous (\(matches.count) matches found on ID prefix)")
    }
    guard let match = matches.first else { throw EngineError(.notFound, "network \(text) not found") }
    return match
  }

  func endpoints(on network: ObjectID) -> [ObjectID: Endpoint] {
    attachments.compactMapValues { attachment in attachment.endpoints.first { $0.networkID == network } }
  }

  func containers(on network: ObjectID) -> [ObjectID] {
    attachments.filter { $0.value.networks.contains(network) }.keys.sorted()
  }
}
