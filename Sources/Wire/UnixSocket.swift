import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Stream sockets of the Unix family (unix(7)).
public enum UnixSocket {
  /// Connects to the socket at `path`.
  public static func connect(_ path: String) throws(SystemCallError) -> OwnedDescriptor {
    let socket = try make()
    try withAddress(path) { (address, length) throws(SystemCallError) in
      try SystemCallError.check("connect", path) {
        Glibc.connect(socket.number, __CONST_SOCKADDR_ARG(__sockaddr__: address), length)
      }
    }
    return socket
  }

  /// Listens at `path` with mode 0600. What is there already is replaced: the caller holds the instance's lock.
  public static func listen(_ path: String, backlog: Int32 = 512) throws(SystemCallError) -> OwnedDescriptor {
    let socket = try make()
    try Files.remove(path)
    // The mode of the socket file is that of the descriptor (fchmod before bind), so that there is no moment at which
    // others could connect.
    try SystemCallError.check("fchmod", path) { fchmod(socket.number, 0o600) }
    try withAddress(path) { (address, length) throws(SystemCallError) in
      try SystemCallError.check("bind", path) {
        bind(socket.number, __CONST_SOCKADDR_ARG(__sockaddr__: address), length)
      }
    }
    try SystemCallError.check("listen", path) { Glibc.listen(socket.number, backlog) }
    return socket
  }

  /// Two connected sockets.
  public struct Pair: ~Copyable {
    public var first: OwnedDescriptor
    public var second: OwnedDescriptor

    /// Gives up both at once, since a value that owns two cannot give up one.
    public consuming func release() -> (first: Int32, second: Int32) {
      (first.release(), second.release())
    }
  }

  /// socketpair(2), both ends close-on-exec.
  public static func pair() throws(SystemCallError) -> Pair {
    var numbers: [Int32] = [-1, -1]
    try SystemCallError.check("socketpair") {
      socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &numbers)
    }
    return Pair(first: OwnedDescriptor(adopting: numbers[0]), second: OwnedDescriptor(adopting: numbers[1]))
  }

  private static func make() throws(SystemCallError) -> OwnedDescriptor {
    OwnedDescriptor(
      adopting: try SystemCallError.check("socket") {
        socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      })
  }

  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(SystemCallError) -> Void
  ) throws(SystemCallError) {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let capacity = MemoryLayout.size(ofValue: address.sun_path)
    guard path.utf8.count < capacity else {
      throw SystemCallError(call: "bind", subject: path, number: ENAMETOOLONG)
    }
    withUnsafeMutableBytes(of: &address.sun_path) { buffer in
      buffer.copyBytes(from: path.utf8)
    }
    try withUnsafePointer(to: &address) { (pointer) throws(SystemCallError) in
      try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { (pointer) throws(SystemCallError) in
        try body(pointer, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
