import Contracts
import Kernel
import LinuxSystem
import Synchronization
import Wire

/// One container's place on one network, as it is kept in a file: written before the plugins are run and removed after
/// they have deleted, because the leases of CNI's address management outlive the engine and a reboot.
struct CNIAttachment: Codable, Sendable {
  var container: ObjectID
  var network: ObjectID
  var interface: String
  /// The list by which it was added.
  var list: String
  /// What the plugins were told of ports and addresses.
  var runtime: JSONValue
  /// What the last plugin answered, or `null` before that.
  var result: JSONValue
}

/// The attachments that there may be.
final class CNIAttachments: Sendable {
  private struct State {
    var all: [ObjectID: [CNIAttachment]] = [:]
    /// The namespaces of containers that this engine attached, until they are detached.
    var namespaces: [ObjectID: Descriptor] = [:]
  }

  private let directory: String
  private let state = Mutex(State())

  init(directory: String) throws(EngineError) {
    self.directory = directory
    var all: [ObjectID: [CNIAttachment]] = [:]
    for file in ((try? Files.list(directory)) ?? []).sorted() where file.hasSuffix(".json") {
      do {
        let attachment = try JSON.decode(CNIAttachment.self, try Files.read("\(directory)/\(file)"))
        all[attachment.container, default: []].append(attachment)
      } catch {
        throw EngineError(.corrupt, "\(directory)/\(file) does not read: \(error)")
      }
    }
    state.withLock { [all] in $0.all = all }
  }

  var all: [CNIAttachment] {
    state.withLock { $0.all.values.flatMap { $0 } }.sorted {
      ($0.container, $0.interface) < ($1.container, $1.interface)
    }
  }

  func of(_ container: ObjectID) -> [CNIAttachment] { state.withLock { $0.all[container] ?? [] } }
  func namespace(of container: ObjectID) -> Descriptor? { state.withLock { $0.namespaces[container] } }
  func users(of network: ObjectID) -> [ObjectID] { all.filter { $0.network == network }.map(\.container) }

  private func path(_ attachment: CNIAttachment) -> String {
    "\(directory)/\(attachment.container)-\(attachment.network.short).json"
  }

  func write(_ attachment: CNIAttachment, _ namespace: Descriptor?) throws(EngineError) {
    do {
      try Files.replace(path(attachment), with: try JSON.encode(attachment), durable: false)
    } catch {
      throw EngineError(.internalFailure, "the attachment cannot be written down: \(error)")
    }
    state.withLock { state in
      state.all[attachment.container, default: []].removeAll { $0.network == attachment.network }
      state.all[attachment.container, default: []].append(attachment)
      if let namespace { state.namespaces[attachment.container] = namespace }
    }
  }

  func remove(_ attachment: CNIAttachment) throws(EngineError) {
    do {
      try Files.remove(path(attachment))
    } catch {
      throw EngineError(.internalFailure, "the attachment cannot be forgotten: \(error)")
    }
    state.withLock { state in
      state.all[attachment.container]?.removeAll { $0.network == attachment.network }
      if state.all[attachment.container]?.isEmpty == true {
        state.all[attachment.container] = nil
        state.namespaces[attachment.container] = nil
      }
    }
  }
}
