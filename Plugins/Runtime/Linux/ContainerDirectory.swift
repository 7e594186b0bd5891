import CLinux
import Contracts
import Glibc
import LinuxSystem

/// `<runtime directory>/runtime-linux/<first 32 digits>`: the shim's socket, the files that the engine writes for the
/// container, and the exit status of a container that ended while no engine lived.
struct ContainerDirectory: Sendable {
  let path: String
  let name: String

  init(base: String, container: ObjectID) {
    name = String(container.text.prefix(32))
    path = "\(base)/\(name)"
  }

  init(base: String, name: String) {
    self.name = name
    path = "\(base)/\(name)"
  }

  private static let socketName = "shim.sock"

  /// A listening socket in the directory. Its address goes through /proc/self/fd, so that a long root fits (unix(7)
  /// takes 108 bytes).
  func listen() throws(SystemCallError) -> OwnedDescriptor {
    try withSocket { (number, address, length) throws(SystemCallError) in
      unlink("\(path)/\(Self.socketName)")
      try SystemCallError.check("bind", "\(path)/\(Self.socketName)") {
        bind(number, __CONST_SOCKADDR_ARG(__sockaddr__: address), length)
      }
      try SystemCallError.check("listen") { Glibc.listen(number, 4) }
    }
  }

  /// A connection to the shim that listens there.
  ///
  /// - Throws: ENOENT or ECONNREFUSED when there is none.
  func connect() throws(SystemCallError) -> OwnedDescriptor {
    try withSocket { (number, address, length) throws(SystemCallError) in
      try SystemCallError.check("connect", "\(path)/\(Self.socketName)") {
        Glibc.connect(number, __CONST_SOCKADDR_ARG(__sockaddr__: address), length)
      }
    }
  }

  private func withSocket(
    _ body: (Int32, UnsafePointer<sockaddr>, socklen_t) throws(SystemCallError) -> Void
  ) throws(SystemCallError) -> OwnedDescriptor {
    let directory = try Files.open(path, O_PATH | O_DIRECTORY)
    let new = OwnedDescriptor(
      adopting: try SystemCallError.check("socket") {
        socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      })
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let text = "/proc/self/fd/\(directory.number)/\(Self.socketName)"
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: text.utf8) }
    let number = new.number
    try withUnsafePointer(to: &address) { (pointer) throws(SystemCallError) in
      try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { (pointer) throws(SystemCallError) in
        try body(number, pointer, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return new
  }

  /// Fills in one of the engine's files that was empty; what is mounted of it shows it.
  func fill(_ path: String, _ content: String) throws(SystemCallError) {
    let descriptor = try Files.open(path, O_WRONLY | O_NOFOLLOW)
    try Files.writeAll(descriptor.number, Array(content.utf8), subject: path)
  }

  /// Writes one of the engine's files and returns a detached mount of it.
  func write(_ file: String, _ content: String) throws(SystemCallError) -> Descriptor {
    let path = "\(path)/\(file)"
    let descriptor = try Files.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o644)
    try SystemCallError.check("fchmod", path) { fchmod(descriptor.number, 0o644) }
    try Files.writeAll(descriptor.number, Array(content.utf8), subject: path)
    return Descriptor(adopting: try Mounts.clone(path, recursive: false).release())
  }

  /// The exit status that a shim left, or nil.
  func exit() throws(EngineError) -> ExitStatus? {
    guard let text = try? Files.readText("\(path)/exit", limit: 4096) else { return nil }
    let fields = text.split(whereSeparator: { $0 == " " || $0 == "\n" })
    guard fields.count == 2, let code = Int32(fields[0]), let time = Int64(fields[1]) else {
      throw EngineError(.corrupt, "the exit status \(path)/exit does not read")
    }
    return ExitStatus(code: code, finished: Timestamp(nanoseconds: time))
  }

  /// Removes all but the shim's socket.
  func clear() throws(SystemCallError) {
    for name in try Files.list(path) where name != Self.socketName { try Files.removeTree("\(path)/\(name)") }
  }

  func remove() throws(SystemCallError) { try Files.removeTree(path) }
}
