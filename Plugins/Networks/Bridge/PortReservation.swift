import CLinux
import Contracts
import Glibc
import LinuxSystem

/// A host port that is kept by a bound socket without listen(2): nobody else can bind it, and nothing answers on it
/// but what the nftables map says.
struct PortReservation: Sendable {
  let binding: PortBinding
  let socket: Descriptor

  /// Where to reserve: nil stands for all addresses.
  ///
  /// - Throws: `invalidArgument` for what is no IPv4 address.
  static func address(_ text: String) throws(EngineError) -> IPv4Address? {
    if text.isEmpty || text == "0.0.0.0" { return nil }
    if let address = IPv4Address(text) { return address }
    if text.contains(":") {
      throw EngineError(.unsupported, "ports are published on IPv4 addresses only, not on [\(text)]")
    }
    throw EngineError(.invalidArgument, "invalid IP address: \(text)")
  }

  /// Takes the wanted port, or the first free one of a range, or any free one for port 0.
  ///
  /// - Throws: `conflict` in Docker's words when it is taken.
  static func make(_ wanted: PortBinding, _ namespaces: Namespaces) throws(EngineError) -> PortReservation {
    let address = try Self.address(wanted.hostAddress)
    let end = max(wanted.hostPort, wanted.hostPortEnd)
    var last = SystemCallError(call: "bind", number: EADDRINUSE)
    var port = wanted.hostPort
    while true {
      do {
        let descriptor = try namespaces.atHome { () throws(SystemCallError) in
          try bound(wanted.transport, address, port)
        }
        var result = wanted
        result.hostPort = port == 0 ? try number(of: descriptor.number) : port
        result.hostPortEnd = result.hostPort
        return PortReservation(binding: result, socket: Descriptor(adopting: descriptor.release()))
      } catch {
        last = error
      }
      if last.number != EADDRINUSE || port >= end { break }
      port += 1
    }
    let shown = "\(address?.description ?? "0.0.0.0"):\(wanted.hostPort)"
    let failure = "driver failed programming external connectivity on endpoint: "
    guard last.number == EADDRINUSE else {
      throw EngineError(.invalidArgument, "\(failure)Bind for \(shown) failed: \(last.reason)")
    }
    if wanted.hostPort == 0 { throw EngineError(.resourceExhausted, "\(failure)all ports are allocated") }
    if end > wanted.hostPort {
      throw EngineError(.conflict, "\(failure)Bind for \(shown)-\(end) failed: all ports are allocated")
    }
    throw EngineError(.conflict, "\(failure)Bind for \(shown) failed: port is already allocated")
  }

  private static func bound(
    _ transport: TransportProtocol, _ address: IPv4Address?, _ port: UInt16
  ) throws(SystemCallError) -> OwnedDescriptor {
    let type = Int32((transport == .tcp ? SOCK_STREAM : SOCK_DGRAM).rawValue | SOCK_CLOEXEC.rawValue)
    let descriptor = OwnedDescriptor(
      adopting: try SystemCallError.check("socket", "port") { Glibc.socket(AF_INET, type, 0) })
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    name.sin_addr.s_addr = address?.networkOrder ?? 0
    try SystemCallError.check("bind", "port \(port)") {
      withUnsafePointer(to: &name) {
        bind(descriptor.number, __CONST_SOCKADDR_ARG(__sockaddr_in__: $0), socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    return descriptor
  }

  private static func number(of descriptor: Int32) throws(SystemCallError) -> UInt16 {
    var name = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try SystemCallError.check("getsockname") {
      withUnsafeMutablePointer(to: &name) { getsockname(descriptor, __SOCKADDR_ARG(__sockaddr_in__: $0), &length) }
    }
    return UInt16(bigEndian: name.sin_port)
  }
}
