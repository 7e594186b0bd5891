import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Makes network namespaces for containers, each with `lo` up and Docker's settings, and keeps a few ready: making one
/// costs 0.1 to 0.2 ms, and several times that when the kernel's caches are cold.
package final class NamespacePool: Sendable {
  /// What is done to a namespace before it is kept ready.
  package typealias Preparation = @Sendable (Descriptor) async throws(EngineError) -> Void

  /// As in Docker: unprivileged processes may bind low ports and send ICMP echo requests (ip-sysctl of the kernel).
  private static let settings = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"), ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
  ]

  private let capacity: Int
  private let prepare: Preparation
  private let hostNamespace: Descriptor
  private let stock = Stock<Descriptor>()
  private let replenisher: Replenisher

  /// - Parameters:
  ///   - capacity: how many are kept ready; 0 makes each one when it is asked for.
  ///   - prepare: a namespace for which it fails is as good as a fresh one.
  package init(bus: Bus, capacity: Int, prepare: @escaping Preparation = { _ in }) throws(EngineError) {
    self.capacity = capacity
    self.prepare = prepare
    replenisher = Replenisher(bus)
    do {
      hostNamespace = Descriptor(adopting: try Files.open("/proc/thread-self/ns/net", O_RDONLY).release())
    } catch {
      throw EngineError(.internalFailure, "the host's network namespace cannot be opened: \(error)")
    }
  }

  package var readyCount: Int { stock.count }

  /// A namespace of the caller's own.
  ///
  /// - Throws: `resourceExhausted` when the kernel has no room for another one, else `internalFailure`.
  package func take() throws(EngineError) -> Descriptor {
    let (ready, isLast) = stock.take()
    if capacity > 0 { replenisher.taken(isLast: isLast) { [self] in await refill() } }
    if let ready { return ready }
    do {
      return try make()
    } catch {
      let code: EngineError.Code =
        error.number == ENOSPC || error.number == ENOMEM ? .resourceExhausted : .internalFailure
      throw EngineError(code, "a network namespace cannot be made: \(error)")
    }
  }

  private func refill() async {
    await stock.fill(to: capacity) { [self] in
      guard let namespace = try? make() else { return nil }
      try? await prepare(namespace)
      return namespace
    } discard: { _ in
      // Closed with its last reference.
    }
  }

  /// Lets go of what is ready; namespaces that were taken live on.
  package func close() async { _ = await stock.close() }

  /// Moves this thread into a new namespace, brings `lo` up, and moves it back. There is no suspension in between, and
  /// a thread that cannot go back must never run anything else, so the process ends rather than that.
  private func make() throws(SystemCallError) -> Descriptor {
    try SystemCallError.check("unshare(CLONE_NEWNET)") { unshare(CLONE_NEWNET) }
    defer {
      if setns(hostNamespace.number, CLONE_NEWNET) != 0 { abort() }
    }
    let socket = OwnedDescriptor(
      adopting: try SystemCallError.check("socket") {
        Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      })
    var request = ifreq()
    withUnsafeMutableBytes(of: &request.ifr_ifrn) { $0.copyBytes(from: "lo".utf8) }
    request.ifr_ifru.ifru_flags = Int16(IFF_UP)
    try SystemCallError.check("ioctl(SIOCSIFFLAGS)", "lo") {
      linux_ioctl_pointer(socket.number, UInt(SIOCSIFFLAGS), &request)
    }
    // Where they cannot be set (a read-only /proc/sys), containers are more restricted than they might be.
    for (path, value) in Self.settings { try? Files.writeControl(path, value) }
    // SIOCGSKNS, linux/sockios.h: the namespace of a socket, without a walk through /proc.
    return Descriptor(
      adopting: try SystemCallError.check("ioctl(SIOCGSKNS)") { linux_ioctl_value(socket.number, 0x894C, 0) })
  }
}
