import CLinux
import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Starts shims from one sealed copy of their executable in memory, which all of them share: no container can reach a
/// file on disk through its /proc/<pid>/exe, or write the copy (CVE-2019-5736).
final class ShimSpawner: Sendable {
  private let path: String
  private let name: String
  private let memory = Mutex<Descriptor?>(nil)
  private let environment: [String]

  init(path: String, instance: String) {
    self.path = path
    name = "engine-shim-\(instance)"
    let text = (try? Files.read("/proc/self/environ")) ?? []
    environment = text.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }

  /// Makes the copy, if there is none yet.
  func load() throws(SystemCallError) -> Descriptor {
    if let present = memory.withLock({ $0 }) { return present }
    let fresh = try copy()
    return memory.withLock { memory in
      if let present = memory { return present }
      memory = fresh
      return fresh
    }
  }

  private func copy() throws(SystemCallError) -> Descriptor {
    let source = try Files.open(path, O_RDONLY)
    var status = stat()
    try SystemCallError.check("fstat", path) { fstat(source.number, &status) }
    // MFD_EXEC (0x10) is asked for by kernels from 6.3 on, and unknown to older ones.
    var number = linux_memfd_create(name, UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING) | 0x10)
    if number < 0 && errno == EINVAL {
      number = linux_memfd_create(name, UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING))
    }
    if number < 0 { throw SystemCallError(call: "memfd_create", number: errno) }
    let low = OwnedDescriptor(adopting: number)
    var left = Int(status.st_size)
    while left > 0 {
      let count = try SystemCallError.check("sendfile", path) { sendfile(low.number, source.number, nil, left) }
      if count == 0 { throw SystemCallError(call: "sendfile", subject: path, number: EIO) }
      left -= count
    }
    // Above the numbers that a child is given.
    let high = OwnedDescriptor(
      adopting: try SystemCallError.check("fcntl") { linux_fcntl(low.number, F_DUPFD_CLOEXEC, 10) })
    let seals = 0x1 | 0x2 | 0x4 | 0x8  // F_SEAL_SEAL, SHRINK, GROW and WRITE
    try SystemCallError.check("fcntl(F_ADD_SEALS)") { linux_fcntl(high.number, 1033, seals) }
    return Descriptor(adopting: high.release())
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

  /// Starts a shim with its connection at descriptor 3 and its listening socket at 4, in a session of its own.
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
