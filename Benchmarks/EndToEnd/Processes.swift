import CLinux
import Glibc

/// Runs other programs and takes the time.
enum Processes {
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  /// Starts a program found in PATH; its output goes to `log` or nowhere.
  static func spawn(_ arguments: [String], environment: [String] = [], log: String = "/dev/null") throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
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
    let result = posix_spawnp(&process, arguments[0], &actions, nil, &argv, &envp)
    guard result == 0 else {
      throw Failure(description: "\(arguments[0]) cannot be started: \(String(cString: strerror(result)))")
    }
    return process
  }

  /// - Returns: the exit status, or 128 and the signal.
  @discardableResult
  static func wait(_ process: pid_t) -> Int32 {
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    return linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
  }

  static func run(_ arguments: [String], environment: [String] = [], log: String = "/dev/null") throws {
    let status = wait(try spawn(arguments, environment: environment, log: log))
    guard status == 0 else {
      throw Failure(description: "\(arguments.joined(separator: " ")) ended with \(status); see \(log)")
    }
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

  static func isInstalled(_ program: String) -> Bool {
    (getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin:/usr/sbin:/sbin").split(separator: ":")
      .contains { access("\($0)/\(program)", X_OK) == 0 }
  }

  private static func microseconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) * 1e6 + Double(time.tv_nsec) / 1e3
  }
}

/// The times of one command in one mode.
struct Samples {
  private var sorted: [Double]

  init(_ microseconds: [Double]) { sorted = microseconds.sorted() }

  /// The value below which a share of the samples lies, in microseconds.
  func percentile(_ share: Double) -> Double {
    sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
  }

  var median: Double { percentile(0.5) }
}
