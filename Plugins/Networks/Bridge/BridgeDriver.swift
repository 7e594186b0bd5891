import CNetlink
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// The driver's sockets and state; its work is in the extensions beside it.
final class BridgeDriver: Sendable {
  let host: PluginHost
  let namespaces: Namespaces
  let settings: NetworkSettings
  let routing: NetlinkPool
  let netfilter: NetlinkPool
  let table: NftTable
  let state = Mutex(BridgeState())
  /// Networks are made and removed one at a time, because each choice of a pool depends on all the others.
  let networkChanges = SerialWork()

  var journal: Journal { host.journal }
  var plugin: String { host.manifest.name }

  /// The default network's bridge where docker0 is not to be had; at most 15 characters.
  var engineBridge: String { host.instance.isDefault ? "engine0" : "engine-\(host.instance.hash.prefix(8))" }

  /// The group of links that the reaper deletes, the instance's own: `0x45` and 24 bits of its hash.
  let drainGroup: UInt32

  init(host: PluginHost) throws(SystemCallError) {
    self.host = host
    namespaces = try Namespaces(homePath: host.configuration["namespace"])
    settings = NetworkSettings(namespaces: namespaces)
    routing = NetlinkPool(NETLINK_ROUTE, namespaces)
    netfilter = NetlinkPool(NETLINK_NETFILTER, namespaces)
    table = NftTable(name: host.instance.isDefault ? "engine" : "engine-\(host.instance.hash)")
    drainGroup = 0x4500_0000 | (UInt32(host.instance.hash.prefix(6), radix: 16) ?? 0)
  }

  /// Takes over what a former engine left.
  func restore() {
    let entries = journal.entries(plugin: plugin)
    state.withLock { $0.restore(entries) }
    scheduleReaper()
  }

  /// Runs netlink work and names what failed.
  func attempt<Value>(
    _ what: @autoclosure () -> String, _ body: () throws(SystemCallError) -> Value
  ) throws(EngineError) -> Value {
    do {
      return try body()
    } catch {
      throw EngineError(.internalFailure, "\(what()): \(error)")
    }
  }
}

/// Runs one piece of work after the other; the work may block its thread but not suspend.
final class SerialWork: Sendable {
  private let turn = Mutex(())

  /// The lock is held for as long as the work takes, which is the point of it: only makers of networks meet here.
  func run<Value: Sendable>(_ body: () throws(EngineError) -> Value) throws(EngineError) -> Value {
    try turn.withLock { _ throws(EngineError) in try body() }
  }
}
