import CLinux
import Contracts
import Glibc
import LinuxSystem

/// Other programs: the engine's own.
enum Program {
  /// Starts a program in a session of its own, which dies with this process when this is its main thread.
  ///
  /// - Parameters:
  ///   - output: what becomes its descriptor 1; /dev/null where it is negative.
  ///   - connection: what becomes its descriptor 3.
  static func spawn(
    _ path: String, _ arguments: [String], environment: [String] = [], output: Int32 = -1, error: Int32 = -1,
    connection: Int32 = -1, diesWithThread: Bool = true
  ) throws(SystemCallError) -> pid_t {
    let null = try Files.open("/dev/null", O_RDWR)
    var descriptors = [null.number, output < 0 ? null.number : output, error < 0 ? null.number : error]
    if connection >= 0 { descriptors.append(connection) }
    let argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    let envp: [UnsafeMutablePointer<CChar>?] = (Self.environment + environment).map { strdup($0) } + [nil]
    defer { for pointer in argv + envp { free(pointer) } }
    return try SystemCallError.check("execve", path) {
      linux_spawn(path, argv, envp, descriptors, Int32(descriptors.count), diesWithThread ? 1 : 0)
    }
  }

  /// What of this process's environment an engine needs.
  private static let environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"]

  /// - Returns: the exit status, or 128 and the signal.
  @discardableResult
  static func wait(_ process: pid_t) -> Int32 {
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 {
      if errno != EINTR { return 0 }
    }
    return linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
  }
}
