import Glibc
import LinuxSystem

/// The kernel settings of the home namespace that a bridge network needs (Documentation/networking/ip-sysctl.rst).
/// A file of `/proc/sys/net` belongs to the namespace of the thread that opens it.
struct NetworkSettings: Sendable {
  static let forwarding = "ipv4/ip_forward"
  let namespaces: Namespaces

  static func routeLocal(_ bridge: String) -> String { "ipv4/conf/\(bridge)/route_localnet" }
  static func disableIPv6(_ bridge: String) -> String { "ipv6/conf/\(bridge)/disable_ipv6" }

  func read(_ name: String) throws(SystemCallError) -> String {
    try namespaces.atHome { () throws(SystemCallError) in
      String(try Files.readText("/proc/sys/net/\(name)").prefix { $0 != "\n" })
    }
  }

  /// Writes the value unless it is there already.
  func write(_ name: String, _ value: String) throws(SystemCallError) {
    try namespaces.atHome { () throws(SystemCallError) in
      let path = "/proc/sys/net/\(name)"
      if try Files.readText(path).prefix(while: { $0 != "\n" }) == value { return }
      try Files.writeControl(path, value)
    }
  }

  /// Whether frames inside a bridge pass through the IPv4 rules too; a kernel without br_netfilter has no such file.
  var bridgesCallRules: Bool {
    (try? read("bridge/bridge-nf-call-iptables")) == "1"
  }
}
