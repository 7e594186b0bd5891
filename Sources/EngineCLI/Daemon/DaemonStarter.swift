import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// Starts the daemon of an instance in a session of its own and waits until it answers.
struct DaemonStarter {
  let paths: InstancePaths

  func start() throws(EngineError) -> OwnedDescriptor {
    guard geteuid() == 0 else {
      throw EngineError(.permissionDenied, "the engine is not running, and only root can start it")
    }
    do {
      return try startLocked()
    } catch let error as EngineError {
      throw error
    } catch {
      throw EngineError(.unavailable, "cannot start the engine: \(error)")
    }
  }

  /// Holds the instance's lock while it looks again and starts, so that two clients start one daemon. The kernel lets
  /// go of the lock also when this process is killed.
  private func startLocked() throws -> OwnedDescriptor {
    try Files.makeDirectories("/run/engine", mode: 0o711)
    try Files.makeDirectory(paths.runtimeDirectory)
    let lock = try Files.open(paths.startLock, O_RDWR | O_CREAT, mode: 0o600)
    try SystemCallError.check("flock", paths.startLock) { flock(lock.number, LOCK_EX) }
    if let socket = try Engine.attempt(paths) { return socket }
    let executable = try Self.executable()
    // One that finds another at work leaves it to that one, which may be about to end.
    for _ in 0..<3 {
      try spawnAndWait(executable)
      if let socket = try Engine.attempt(paths) { return socket }
    }
    throw EngineError(.unavailable, "the engine started and does not listen at \(paths.socket); see \(paths.log)")
  }

  /// `engined` beside this program, or what `ENGINE_DAEMON` names.
  static func executable() throws -> String {
    if let path = Environment.value("ENGINE_DAEMON"), !path.isEmpty { return path }
    let path = try sibling("engined")
    guard access(path, X_OK) == 0 else {
      throw EngineError(
        .unavailable, "the engine is not running, and there is no \(path) to start; ENGINE_DAEMON names another")
    }
    return path
  }

  /// The path of a program beside this one, which need not be there.
  static func sibling(_ name: String) throws -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = try SystemCallError.check("readlink", "/proc/self/exe") {
      readlink("/proc/self/exe", &buffer, buffer.count)
    }
    let own = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return "\(own.prefix(upTo: own.lastIndex(of: "/") ?? own.startIndex))/\(name)"
  }

  private func spawnAndWait(_ executable: String) throws {
    var ends: [Int32] = [-1, -1]
    try SystemCallError.check("pipe2") { pipe2(&ends, O_CLOEXEC) }
    let readEnd = OwnedDescriptor(adopting: ends[0])
    let process: pid_t
    do {
      let writeEnd = OwnedDescriptor(adopting: ends[1])
      process = try spawn(executable, ready: writeEnd.number)
    }
    let line = try readLine(readEnd.number)
    if line == "ok" { return }
    var status: Int32 = 0
    waitpid(process, &status, 0)
    let why = line.isEmpty ? "it ended before it was ready; see \(paths.log)" : line
    throw EngineError(.unavailable, "cannot start the engine: \(why)")
  }

  /// The first line of what is written to a pipe, or what there is before its end. Not to the end: what a wrapper around
  /// the daemon keeps open does not matter.
  private func readLine(_ pipe: Int32) throws -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while !bytes.contains(10), bytes.count < 64 << 10 {
      let count = read(pipe, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { break }
      bytes += buffer[..<count]
    }
    return String(decoding: bytes.prefix { $0 != 10 }, as: UTF8.self)
  }

  /// The daemon gets /dev/null, its log, and on descriptor 3 the pipe where it says that it is ready; nothing else that
  /// this process has open, and no signal blocked or ignored.
  private func spawn(_ executable: String, ready: Int32) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, paths.log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    posix_spawn_file_actions_adddup2(&actions, ready, 3)
    posix_spawn_file_actions_addclosefrom_np(&actions, 4)
    posix_spawn_file_actions_addchdir_np(&actions, "/")

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    let flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF) | 0x80  // POSIX_SPAWN_SETSID
    posix_spawnattr_setflags(&attributes, Int16(flags))

    var words = [executable, "--root", paths.root, "--ready-fd", "3"]
    if let configuration = Environment.value("ENGINE_CONFIG") { words += ["--config", configuration] }
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { arguments.forEach { free($0) } }
    var process: pid_t = 0
    let failure = posix_spawn(&process, executable, &actions, &attributes, &arguments, Glibc.environ)
    guard failure == 0 else { throw SystemCallError(call: "posix_spawn", subject: executable, number: failure) }
    return process
  }
}
