import CLinux
import Glibc
import Synchronization

/// Runs other programs and takes the time.
enum Processes {
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  /// Somebody wants the benchmarks to end.
  struct Interruption: Error, CustomStringConvertible {
    let description = "interrupted"
  }

  private static let isInterrupted = Atomic(false)

  /// SIGINT and SIGTERM end the benchmarks at the next program that they start, so that everything is taken down.
  static func heedInterruption() {
    // waitpid(2) goes on: the command that runs gets the terminal's signal itself.
    for number in [SIGINT, SIGTERM] {
      signal(number) { _ in Processes.isInterrupted.store(true, ordering: .relaxed) }
    }
  }

  /// For taking things down, which nothing should keep from its end.
  static func ignoreInterruption() {
    for number in [SIGINT, SIGTERM] { signal(number, SIG_IGN) }
    isInterrupted.store(false, ordering: .relaxed)
  }

  /// Starts a program found in PATH; its output goes to `log` or nowhere.
  ///
  /// - Parameters:
  ///   - pipes: what becomes its standard input and output instead.
  ///   - isApart: signals of the terminal do not reach it.
  static func spawn(
    _ arguments: [String], environment: [String] = [], log: String = "/dev/null", pipes: (Int32, Int32)? = nil,
    isApart: Bool = false
  ) throws -> pid_t {
    if isInterrupted.load(ordering: .relaxed) { throw Interruption() }
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    // What is ignored here is not ignored there.
    var defaults = sigset_t()
    sigemptyset(&defaults)
    for number in [SIGINT, SIGTERM, SIGPIPE] { sigaddset(&defaults, number) }
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGDEF) | (isApart ? Int16(POSIX_SPAWN_SETPGROUP) : 0))
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if let pipes {
      posix_spawn_file_actions_adddup2(&actions, pipes.0, 0)
      posix_spawn_file_actions_adddup2(&actions, pipes.1, 1)
    } else {
      posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
      posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
      posix_spawn_file_actions_adddup2(&actions, 1, 2)
    }
    var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var inherited: [String] = []
    var cursor = linux_environment()
    while let entry = cursor?.pointee {
      inherited.append(String(cString: entry))
      cursor = cursor?.advanced(by: 1)
    }
    var envp: [UnsafeMutablePointer<CChar>?] = (inherited + environment).map { strdup($0) } + [nil]
    defer {
      for pointer in argv + envp { free(pointer) }
    }
    var process: pid_t = 0
    let result = posix_spawnp(&process, arguments[0], &actions, &attributes, &argv, &envp)
    guard result == 0 else {
      throw Failure(description: "\(arguments[0]) cannot be started: \(String(cString: strerror(result)))")
    }
    return process
  }

  /// Seconds after which a command that does not end is ended: a peer that hangs is not to take the rest along.
  private static let patience: UInt32 = 90

  /// - Returns: the exit status, or 128 and the signal; 137 for one that had to be ended.
  @discardableResult
  static func wait(_ process: pid_t) -> Int32 {
    var status: Int32 = 0
    impatiently {
      while waitpid(process, &status, 0) < 0 && errno == EINTR { kill(process, SIGKILL) }
    }
    return exitCode(status)
  }

  /// Lets waitpid(2) fail with EINTR when nothing comes for too long.
  private static func impatiently<Value>(_ body: () throws -> Value) rethrows -> Value {
    var action = sigaction()
    // Without SA_RESTART.
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(SIGALRM, &action, nil)
    alarm(patience)
    defer { alarm(0) }
    return try body()
  }

  /// Waits for a process that was told to end, and ends it where it does not.
  static func wait(_ process: pid_t, atMost seconds: Int) {
    var status: Int32 = 0
    for _ in 0..<seconds * 50 {
      if waitpid(process, &status, WNOHANG) != 0 { return }
      usleep(20_000)
    }
    kill(process, SIGKILL)
    wait(process)
  }

  private static func exitCode(_ status: Int32) -> Int32 {
    linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
  }

  static func run(_ arguments: [String], environment: [String] = [], log: String = "/dev/null") throws {
    let status = wait(try spawn(arguments, environment: environment, log: log))
    guard status == 0 else {
      let reason = read(log).split(separator: "\n").last.map { ": \($0)" } ?? ""
      throw Failure(description: "\(arguments.joined(separator: " ")) ended with \(status)\(reason)")
    }
  }

  /// What a program printed.
  static func output(_ arguments: [String], environment: [String] = []) throws -> String {
    var ends: [Int32] = [-1, -1]
    pipe2(&ends, O_CLOEXEC)
    let null = linux_open("/dev/null", O_RDONLY | O_CLOEXEC, 0)
    defer { close(null) }
    let process = try spawn(arguments, environment: environment, pipes: (null, ends[1]))
    close(ends[1])
    let text = read(ends[0])
    let status = wait(process)
    guard status == 0 else { throw Failure(description: "\(arguments.joined(separator: " ")) ended with \(status)") }
    return text
  }

  /// Microseconds from before the start of a program until it has ended.
  static func time(_ arguments: [String], environment: [String]) throws -> Double {
    let start = microseconds()
    let status = wait(try spawn(arguments, environment: environment))
    let end = microseconds()
    guard status == 0 else {
      throw Failure(description: "\(arguments.joined(separator: " ")) ended with \(status)")
    }
    return end - start
  }

  /// Runs a program so many times, some at once; none is started after the deadline.
  ///
  /// - Returns: how many were run, and the seconds from the first start to the last end.
  @discardableResult
  static func many(
    _ count: Int, atOnce: Int, until deadline: Double = .infinity, _ arguments: (Int) -> [String],
    environment: [String]
  ) throws -> (count: Int, seconds: Double) {
    let begin = microseconds()
    var running: Set<pid_t> = []
    var started = 0
    var problem: Failure?
    var count = count
    while started < count && problem == nil || !running.isEmpty {
      if started > atOnce, started < count, microseconds() > deadline {
        // Nobody may be left to wait for.
        count = started
        continue
      }
      if started < count, running.count < atOnce, problem == nil {
        running.insert(try spawn(arguments(started), environment: environment))
        started += 1
        continue
      }
      var status: Int32 = 0
      let process = impatiently { waitpid(-1, &status, 0) }
      if process < 0, errno == EINTR {
        for process in running { kill(process, SIGKILL) }
        problem = Failure(
          description: "\(arguments(0).joined(separator: " ")) does not end; \(running.count) of them were ended")
      }
      guard running.remove(process) != nil else { continue }
      if exitCode(status) != 0, problem == nil {
        problem = Failure(description: "\(arguments(0).joined(separator: " ")) ended with \(exitCode(status))")
      }
    }
    if let problem { throw problem }
    return (started, (microseconds() - begin) / 1e6)
  }

  static func isInstalled(_ program: String) -> Bool { !installed(program).isEmpty }

  /// Where in PATH a program is, in that order.
  static func installed(_ program: String) -> [String] {
    (getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin:/usr/sbin:/sbin").split(separator: ":")
      .map { "\($0)/\(program)" }.filter { access($0, X_OK) == 0 }
  }

  static func microseconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) * 1e6 + Double(time.tv_nsec) / 1e3
  }

  // MARK: Files and other processes

  static func write(_ text: String, to path: String) throws {
    let file = linux_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw Failure(description: "\(path) cannot be written") }
    defer { close(file) }
    let bytes = Array(text.utf8)
    var offset = 0
    while offset < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.write(file, $0.baseAddress?.advanced(by: offset), bytes.count - offset)
      }
      guard count > 0 else { throw Failure(description: "\(path) cannot be written") }
      offset += count
    }
  }

  /// A file's text; empty when it cannot be read.
  static func read(_ path: String) -> String {
    let file = linux_open(path, O_RDONLY | O_CLOEXEC, 0)
    return file >= 0 ? read(file) : ""
  }

  /// Everything up to the end; closes the descriptor.
  static func read(_ descriptor: Int32) -> String {
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = Glibc.read(descriptor, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { return String(decoding: bytes, as: UTF8.self) }
      bytes += buffer[..<count]
    }
  }

  /// Every process, with its parent and its command line.
  static func all() -> [(process: pid_t, parent: pid_t, command: String)] {
    guard let directory = opendir("/proc") else { return [] }
    defer { closedir(directory) }
    var found: [(pid_t, pid_t, String)] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard let process = pid_t(name) else { continue }
      // After the last parenthesis of the name: the state, then the parent (proc_pid_stat(5)).
      let fields = read("/proc/\(name)/stat").split(separator: ")").last?.split(separator: " ") ?? []
      guard fields.count > 1, let parent = pid_t(fields[1]) else { continue }
      let command = read("/proc/\(name)/cmdline").split(separator: "\0").joined(separator: " ")
      found.append((process, parent, command))
    }
    return found
  }

  /// A line of /proc/PID/smaps_rollup or status in kilobytes; 0 when the process is gone.
  static func kilobytes(_ key: String, of process: pid_t, in file: String) -> Int {
    let lines = read("/proc/\(process)/\(file)").split(separator: "\n")
    guard let line = lines.first(where: { $0.hasPrefix("\(key):") }) else { return 0 }
    return line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int($0) } ?? 0
  }
}
