import CLinux
import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Starts shims from one read-only copy of their executable in memory, which all of them share.
final class ShimSpawner: Sendable {
  private let path: String
  private let memory = Mutex<Descriptor?>(nil)
  private let environment: [String]
  /// See `EmptyTree`; nil where none can be made, and then containers copy the host's.
  private let tree: Descriptor?

  init(path: String) {
    self.path = path
    tree = try? EmptyTree.make()
    let text = (try? Files.read("/proc/self/environ")) ?? []
    environment = text.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }

  /// Makes the copy, if there is none yet.
  func load() throws(SystemCallError) -> Descriptor {
    if let present = memory.withLock({ $0 }) { return present }
    let fresh = try ShimImage.make(path)
    return memory.withLock { memory in
      if let present = memory { return present }
      memory = fresh
      return fresh
    }
  }

  /// Starts a shim that listens in the directory.
  ///
  /// - Returns: the connection to it, and its PID.
  func spawn(
    in directory: ContainerDirectory, label: String
  ) throws(SystemCallError) -> (socket: Descriptor, pid: Int32) {
    let listener = try directory.listen()
    var ends: [Int32] = [-1, -1]
    try SystemCallError.check("socketpair") {
      socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends)
    }
    let socket = Descriptor(adopting: ends[0])
    let other = OwnedDescriptor(adopting: ends[1])
    return (socket, try spawn(connection: other.number, listener: listener.number, label: label))
  }

  /// Starts a shim with its connection at descriptor 3, its listening socket at 4 and the empty tree at 5, in a session of
  /// its own.
  func spawn(connection: Int32, listener: Int32, label: String) throws(SystemCallError) -> Int32 {
    let executable = try load()
    // Both above 9: the one must not be overwritten by the other's dup2.
    let high = OwnedDescriptor(
      adopting: try SystemCallError.check("fcntl") { linux_fcntl(connection, F_DUPFD_CLOEXEC, 10) })
    let highListener = OwnedDescriptor(
      adopting: try SystemCallError.check("fcntl") { linux_fcntl(listener, F_DUPFD_CLOEXEC, 10) })
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for number in 0..<Int32(3) { posix_spawn_file_actions_addopen(&actions, number, "/dev/null", O_RDWR, 0) }
    posix_spawn_file_actions_adddup2(&actions, high.number, 3)
    posix_spawn_file_actions_adddup2(&actions, highListener.number, 4)
    if let tree { posix_spawn_file_actions_adddup2(&actions, tree.number, 5) }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(
      &attributes,
      Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF) | Int16(truncatingIfNeeded: 0x80))  // SETSID
    var pid: pid_t = 0
    let result = withCStrings(["engine-shim", label]) { arguments in
      withCStrings(environment) { environment in
        posix_spawn(&pid, "/proc/self/fd/\(executable.number)", &actions, &attributes, arguments, environment)
      }
    }
    if result != 0 { throw SystemCallError(call: "posix_spawn", subject: path, number: result) }
    return pid
  }

  private func withCStrings<Value>(
    _ texts: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Value
  ) -> Value {
    var pointers: [UnsafeMutablePointer<CChar>?] = texts.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return pointers.withUnsafeBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return withUnsafePointer(to: nil) { body($0) } }
      return body(base)
    }
  }
}
