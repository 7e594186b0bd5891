import CLinux
import Composition
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Logging
import Synchronization
import Wire

/// The life of the daemon: lock, plugins, socket, signals, and back.
enum Daemon {
  static let version = "0.1.0"
  /// Nanoseconds for which a daemon waits for the one before it to answer or to end.
  static let lockPatience: UInt64 = 30_000_000_000
  /// Microseconds after which it looks again.
  static let lockPause: UInt32 = 50_000

  /// - Returns: the process's exit status.
  static func run(_ options: DaemonOptions) -> Int32 {
    setUpProcess()
    let paths = InstancePaths(root: options.root, currentDirectory: currentDirectory())
    let log = Logger(label: "engined")
    let result = Once<Result<Running?, EngineError>>()
    let bus = Bus()
    Task(executorPreference: bus.executor) {
      do throws(EngineError) {
        result.resolve(.success(try await start(paths, bus, options)))
      } catch {
        result.resolve(.failure(error))
      }
    }
    switch wait(for: result) {
    case .failure(let error):
      log.error("\(error)")
      report("\(error)", to: options.readyDescriptor)
      return 125
    case .success(nil):
      report("ok", to: options.readyDescriptor)
      return 0
    case .success(let running?):
      report("ok", to: options.readyDescriptor)
      log.info("engine \(version) answers at \(paths.socket)")
      waitForEnd(running, bus)
      log.info("the engine ends; containers run on")
      let ended = Once<Result<Void, EngineError>>()
      Task(executorPreference: bus.executor) {
        await running.server.stop()
        await running.manager.stop()
        ended.resolve(.success(()))
      }
      _ = wait(for: ended)
      unlink(paths.socket)
      return 0
    }
  }

  private final class Running: Sendable {
    let manager: PluginManager
    let server: WireServer
    /// Held as long as the daemon lives (flock(2)).
    let lock: Descriptor
    let configuration: EngineConfiguration
    /// The executable of the client, beside the daemon's own.
    let clientPath: String

    init(
      manager: PluginManager, server: WireServer, lock: Descriptor, configuration: EngineConfiguration,
      clientPath: String
    ) {
      self.clientPath = clientPath
      self.manager = manager
      self.server = server
      self.lock = lock
      self.configuration = configuration
    }
  }

  private static func start(
    _ paths: InstancePaths, _ bus: Bus, _ options: DaemonOptions
  ) async throws(EngineError) -> Running? {
    do {
      try Files.makeDirectories("/run/engine", mode: 0o711)
      try Files.makeDirectories(paths.runtimeDirectory)
      try Files.makeDirectories(paths.root, mode: 0o711)
    } catch {
      throw EngineError(.internalFailure, "the engine's directories cannot be made: \(error)")
    }
    guard let lock = try takeLock(paths) else { return nil }
    try InstanceOwner.claim(paths)
    let instance = try makeInstance(paths)
    let journal = try Journal(path: "\(paths.runtimeDirectory)/journal")
    let manager = PluginManager(bus: bus, instance: instance, journal: journal)
    for plugin in try Composition.plugins() { manager.add(plugin) }
    let configuration = try DaemonConfiguration.load(named: options.configuration, paths, manager.manifests)
    for warning in configuration.warnings { Logger(label: "configuration").warning("\(warning)") }
    manager.apply(configuration)
    for role in DriverRole.all { bus.setDefaultDriver(configuration.defaultDriver(role.name), for: role.messages) }
    await manager.startDrivers(configuration)
    try manager.answerKernelMessages { kill(getpid(), SIGTERM) }
    try await manager.start(configuration: configuration.pluginValues)
    do {
      let server = try WireServer(
        bus: bus, listener: try listener(paths), agent: "engined \(version)")
      guard server.start() else {
        throw EngineError(.resourceExhausted, "the system has no thread left for the engine's socket")
      }
      let directory = instance.daemonPath.lastIndex(of: "/").map { instance.daemonPath[..<$0] } ?? ""
      return Running(
        manager: manager, server: server, lock: lock, configuration: configuration, clientPath: "\(directory)/engine")
    } catch {
      await manager.stop()
      throw EngineError(.internalFailure, "the engine cannot listen at \(paths.socket): \(error)")
    }
  }

  /// The socket that systemd passes (sd_listen_fds(3)), or one of our own.
  private static func listener(_ paths: InstancePaths) throws(SystemCallError) -> OwnedDescriptor {
    if let process = getenv("LISTEN_PID"), Int32(String(cString: process)) == getpid(),
      let count = getenv("LISTEN_FDS"), Int(String(cString: count)) ?? 0 > 0
    {
      try SystemCallError.check("fcntl") { linux_fcntl(3, F_SETFD, Int(FD_CLOEXEC)) }
      return OwnedDescriptor(adopting: 3)
    }
    return try UnixSocket.listen(paths.socket)
  }

  /// Takes the lock of the instance. A container's shim and a client may both start a daemon at the same moment; the
  /// second one waits until the first one answers.
  ///
  /// - Returns: nil when another engine answers for this root.
  private static func takeLock(_ paths: InstancePaths) throws(EngineError) -> Descriptor? {
    do {
      let file = try Files.open("\(paths.runtimeDirectory)/engined.lock", O_RDWR | O_CREAT, mode: 0o600)
      let end = Timekeeper.clock() + lockPatience
      while Timekeeper.clock() < end {
        if flock(file.number, LOCK_EX | LOCK_NB) == 0 { return Descriptor(adopting: file.release()) }
        guard errno == EWOULDBLOCK else { throw SystemCallError(call: "flock", subject: paths.root, number: errno) }
        if greets(paths) { return nil }
        usleep(lockPause)
      }
    } catch {
      throw EngineError(.internalFailure, "the engine's lock: \(error)")
    }
    throw EngineError(.conflict, "an engine holds \(paths.root) but does not answer; see \(paths.log)")
  }

  /// Whether a daemon answers at the socket. One that is being killed may still accept connections for a moment.
  private static func greets(_ paths: InstancePaths) -> Bool {
    do throws(EngineError) {
      var client = try Client(path: paths.socket, agent: "engined \(version)")
      return client.awaitGreeting(milliseconds: 1000)
    } catch {
      return false
    }
  }

  private static func makeInstance(_ paths: InstancePaths) throws(EngineError) -> Instance {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    guard count > 0 else { throw EngineError(.internalFailure, "the daemon cannot find its own executable in /proc") }
    let daemon = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let directory = daemon.lastIndex(of: "/").map { String(daemon[..<$0]) } ?? ""
    return Instance(
      root: paths.root, runtimeDirectory: paths.runtimeDirectory, hash: paths.hash, isDefault: paths.isDefault,
      daemonPath: daemon, shimPath: "\(directory)/engine-shim", version: version)
  }

  // MARK: The process

  private static func setUpProcess() {
    umask(0o022)
    ProcessMemory.limitHeaps()
    signal(SIGPIPE, SIG_IGN)
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, number) }
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    var limit = rlimit()
    if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
      limit.rlim_cur = limit.rlim_max
      setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    ProcessMemory.growDescriptorTable()
  }

  private static func currentDirectory() -> String {
    guard let path = getcwd(nil, 0) else { return "/" }
    defer { free(path) }
    return String(cString: path)
  }

  private static func report(_ text: String, to descriptor: Int32?) {
    guard let descriptor else { return }
    let line = Array("\(text)\n".utf8)
    _ = write(descriptor, line, line.count)
    close(descriptor)
  }

  /// Blocks the main thread, which has nothing else to do, until a task has its result.
  private static func wait<Value: Sendable>(for once: Once<Value>) -> Value {
    while true {
      if let value = once.resolved { return value }
      usleep(200)
    }
  }

  /// Sleeps until a signal asks for the end, or until nobody has needed the engine for a while.
  private static func waitForEnd(_ running: Running, _ bus: Bus) {
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, number) }
    var idleSeconds: UInt64 = 300
    if case .integer(let seconds) = running.configuration.engine("idle_seconds") { idleSeconds = UInt64(seconds) }
    var isStarting = true
    var code = CodePages(path: running.clientPath)
    while true {
      // After a start everything that was asked for meanwhile is done, and what only the start needed can go.
      var timeout = timespec(tv_sec: isStarting ? 2 : min(30, Int(idleSeconds)), tv_nsec: 0)
      let number = sigtimedwait(&signals, nil, &timeout)
      if number == SIGTERM || number == SIGINT { return }
      if number < 0 {
        if isStarting { ProcessMemory.releaseStartCode() }
        // Where it is wanted, because the page cache forgets what is not.
        if isStarting || running.server.idleNanoseconds < 30_000_000_000 { code.keepHuge() }
        isStarting = false
        if running.server.idleNanoseconds > 1_000_000_000 { ProcessMemory.trimHeap() }
      }
      guard number < 0, running.server.idleNanoseconds > idleSeconds * 1_000_000_000 else { continue }
      let containers = Once<Int?>()
      Task(executorPreference: bus.executor) {
        containers.resolve(try? await bus.request(ContainerList(all: false), deadline: .seconds(5)).count)
      }
      if wait(for: containers) == 0 && running.server.connectionCount == 0 { return }
    }
  }
}
