import BenchmarkSupport
import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Network namespaces by raw system calls.
enum NetworkNamespace {
  /// A new one in which `lo` is up; the calling thread is where it was when this returns.
  static func make(home: Int32) throws(SystemCallError) -> Descriptor {
    guard unshare(CLONE_NEWNET) == 0 else { throw SystemCallError(call: "unshare(CLONE_NEWNET)", number: errno) }
    defer { comeBack(home) }
    let number = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(number) }
    try setLoopbackUp(number)
    let namespace = linux_ioctl_value(number, 0x894C, 0)  // SIOCGSKNS
    guard namespace >= 0 else { throw SystemCallError(call: "ioctl(SIOCGSKNS)", number: errno) }
    return Descriptor(adopting: namespace)
  }

  /// Sets `lo` up in the namespace of this thread.
  static func setLoopbackUp() throws(SystemCallError) {
    let number = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(number) }
    try setLoopbackUp(number)
  }

  /// - Parameter number: a socket in the namespace.
  private static func setLoopbackUp(_ number: Int32) throws(SystemCallError) {
    var request = ifreq()
    withUnsafeMutableBytes(of: &request.ifr_ifrn) { $0.copyBytes(from: "lo".utf8) }
    request.ifr_ifru.ifru_flags = Int16(IFF_UP)
    guard linux_ioctl_pointer(number, UInt(SIOCSIFFLAGS), &request) == 0 else {
      throw SystemCallError(call: "ioctl(SIOCSIFFLAGS)", subject: "lo", number: errno)
    }
  }

  /// Runs `body` on this thread in another namespace.
  static func inside<Value>(_ namespace: Descriptor, home: Int32, _ body: () -> Value) throws(SystemCallError) -> Value
  {
    guard setns(namespace.number, CLONE_NEWNET) == 0 else { throw SystemCallError(call: "setns", number: errno) }
    defer { comeBack(home) }
    return body()
  }

  /// A thread that cannot come back must never run anything else.
  private static func comeBack(_ home: Int32) {
    if setns(home, CLONE_NEWNET) != 0 { abort() }
  }
}
