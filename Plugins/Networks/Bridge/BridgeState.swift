import Contracts
import Kernel

/// A bridge network that is on the host.
struct BridgeNetwork: Sendable {
  var definition: NetworkDefinition
  var plan: NetworkPlan
  /// The bridge's index.
  var index: Int32
  /// False for a bridge that was there before and that the user named; it is never removed.
  var ownsBridge: Bool
  var entries: [UInt64]
  var addresses: AddressAllocator

  var nft: NftNetwork {
    var network = plan.nft
    network.isInternal = definition.isInternal
    return network
  }
}

/// One link, with what it takes to remove it; one entry of the journal, without a container while none has it.
struct AttachedLink: Sendable, Equatable {
  static let kind = "endpoint"
  var link: String
  var network: ObjectID
  var address: IPv4Address
  var entry: UInt64 = 0

  var text: String { "\(link) \(network) \(address)" }

  init(link: String, network: ObjectID, address: IPv4Address) {
    self.link = link
    self.network = network
    self.address = address
  }

  init?(_ entry: JournalEntry) {
    let parts = entry.object.split(separator: " ")
    guard parts.count == 3, let network = ObjectID(String(parts[1])), let address = IPv4Address(parts[2]) else {
      return nil
    }
    self.init(link: String(parts[0]), network: network, address: address)
    self.entry = entry.number
  }
}

/// What a container has of this driver.
struct AttachedContainer: Sendable {
  static let portsKind = "ports"
  var links: [AttachedLink] = []
  var ports: [PublishedPort] = []
  var portsEntries: [UInt64] = []
}

/// Everything the driver knows; the journal holds enough to make it again.
struct BridgeState: Sendable {
  static let networkKind = "network"
  static let forwardingKind = "forwarding"
  static let tableKind = "table"
  static let ruleKind = "rule"

  var networks: [ObjectID: BridgeNetwork] = [:]
  var containers: [ObjectID: AttachedContainer] = [:]
  /// Links that were made ahead, by the namespaces they wait in.
  var spares: [UInt64: SpareLink] = [:]
  var expiryIsScheduled = false
  /// How long they wait when there is no container.
  var patience = Duration.milliseconds(500)
  /// When somebody was last connected or taken off, in nanoseconds of CLOCK_MONOTONIC.
  var lastUse: Int64 = 0
  /// Links that are down and wait for the reaper; their addresses are held back.
  var draining: [AttachedLink] = []
  var reaperIsScheduled = false
  /// Frames inside a bridge pass the IPv4 rules (br_netfilter), so ports reflect.
  var reflects = false
  /// A rule in a foreign chain asks for the mark.
  var marks = false
  /// This engine switched forwarding on.
  var dropsForeign = false

  var published: [PublishedPort] { containers.values.flatMap(\.ports) }

  /// What a former engine left, from the journal.
  mutating func restore(_ entries: [JournalEntry]) {
    for entry in entries {
      switch entry.kind {
      case AttachedLink.kind:
        guard let link = AttachedLink(entry) else { continue }
        if let container = ObjectID(entry.container) {
          containers[container, default: AttachedContainer()].links.append(link)
        } else {
          draining.append(link)
        }
      case AttachedContainer.portsKind:
        guard let container = ObjectID(entry.container) else { continue }
        containers[container, default: AttachedContainer()].ports += entry.object.split(separator: ";").compactMap {
          PublishedPort($0)
        }
        containers[container, default: AttachedContainer()].portsEntries.append(entry.number)
      case BridgeState.forwardingKind:
        dropsForeign = true
      case BridgeState.ruleKind:
        marks = true
      default:
        break
      }
    }
  }

  /// Marks what containers and draining links have of a network.
  func restoreAddresses(of network: ObjectID, in allocator: inout AddressAllocator) {
    for link in containers.values.flatMap(\.links) + draining where link.network == network {
      allocator.restore(link.address)
    }
  }
}
