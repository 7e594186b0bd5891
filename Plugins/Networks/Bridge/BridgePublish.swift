import CNetlink
import CNftables
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Published ports: elements of the table's maps, one transaction a container.
extension BridgeDriver {
  func publish(_ ports: [PublishedPort]) throws(EngineError) {
    do {
      try change { $0.publish(ports, table: self.table.name) }
    } catch  where error.number == ENOENT {
      // Somebody flushed the rules: everything is written again, with what all containers publish.
      try writeTable(restoring: Array(Set(state.withLock { $0.published } + ports)))
    } catch  where error.number == EEXIST || error.number == EBUSY {
      // The bound socket proves that the port is ours, so what is in the map is what a crash left.
      try attempt("the ports cannot be published") { () throws(SystemCallError) in
        let stale = try present(on: ports)
        try change {
          $0.unpublish(stale, table: self.table.name)
          $0.publish(ports, table: self.table.name)
        }
      }
    } catch {
      throw EngineError(.internalFailure, "the ports cannot be published: \(error)")
    }
    forgetConnections(ports)
  }

  func unpublish(_ ports: [PublishedPort]) throws(EngineError) {
    do {
      try change { $0.unpublish(ports, table: self.table.name) }
    } catch  where error.number == ENOENT {
      try attempt("the ports cannot be taken back") { () throws(SystemCallError) in
        let wanted = Set(ports)
        let left = try present(on: ports).filter(wanted.contains)
        if !left.isEmpty { try change { $0.unpublish(left, table: self.table.name) } }
      }
    } catch {
      throw EngineError(.internalFailure, "the ports cannot be taken back: \(error)")
    }
    forgetConnections(ports)
  }

  private func change(_ body: (inout NftBatch) -> Void) throws(SystemCallError) {
    try netfilter.with { (socket) throws(SystemCallError) in
      var batch = NftBatch()
      body(&batch)
      try batch.commit(socket, subject: "published ports")
    }
  }

  /// What the maps have on the host ports of `ports`.
  private func present(on ports: [PublishedPort]) throws(SystemCallError) -> [PublishedPort] {
    let keys = Set(ports.map(\.key))
    return try netfilter.with { (socket) throws(SystemCallError) in
      try socket.publishedPorts(table: table.name) ?? []
    }.filter { keys.contains($0.key) }
  }

  /// A UDP "connection" lives on in conntrack as long as its client sends, and would go on to where it went before.
  private func forgetConnections(_ ports: [PublishedPort]) {
    let udp = ports.filter { $0.transport == .udp }
    if udp.isEmpty { return }
    do {
      try netfilter.with { (socket) throws(SystemCallError) in try socket.deleteConnections(udp) }
    } catch {
      host.log.warning("stale UDP connections cannot be cleared: \(error)")
    }
  }
}
