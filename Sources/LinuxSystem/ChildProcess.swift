import CLinux
import Glibc

/// A program that this process started, watched through its pidfd (pidfd_open(2)).
public struct ChildProcess: ~Copyable {
  /// How a process ended.
  public enum End: Sendable, Equatable, CustomStringConvertible {
    case exited(Int32)
    case signalled(Int32)

    public var description: String {
      switch self {
      case .exited(let status): "exit status \(status)"
      case .signalled(let signal): "signal \(signal)"
      }
    }
  }

  public let pid: Int32
  /// Readable when the process has ended.
  public let pidfd: OwnedDescriptor

  /// Starts a program with exactly the given descriptors as its 0, 1, 2, ...
  ///
  /// - Parameters:
  ///   - diesWithThread: the program is killed when the calling thread ends, however that happens (PR_SET_PDEATHSIG).
  /// - Throws: what vfork(2) or execve(2) said.
  public init(
    _ command: [String], environment: [String], descriptors: [Int32], diesWithThread: Bool
  ) throws(SystemCallError) {
    let (pid, number) = try Self.spawn(command, environment, descriptors, diesWithThread)
    self.pid = pid
    pidfd = OwnedDescriptor(adopting: number)
  }

  private static func spawn(
    _ command: [String], _ environment: [String], _ descriptors: [Int32], _ diesWithThread: Bool
  ) throws(SystemCallError) -> (pid: Int32, pidfd: Int32) {
    guard let path = command.first else { throw SystemCallError(call: "execve", number: ENOENT) }
    var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
    defer { for pointer in arguments + variables { free(pointer) } }
    let pid = linux_spawn(
      path, &arguments, &variables, descriptors, Int32(descriptors.count), diesWithThread ? 1 : 0)
    guard pid > 0 else { throw SystemCallError(call: "execve", subject: path, number: errno) }
    let number = pidfd_open(pid, 0)
    if number < 0 {
      let failure = errno
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
      throw SystemCallError(call: "pidfd_open", subject: path, number: failure)
    }
    return (pid, number)
  }

  /// Sends a signal to the process and to all of its session's first group.
  public func signal(_ number: Int32) {
    if kill(-pid, number) != 0 { kill(pid, number) }
  }

  /// Waits until the process has ended and reaps it.
  public consuming func wait() -> End {
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
    return linux_wait_signalled(status) != 0
      ? .signalled(linux_wait_signal(status)) : .exited(linux_wait_exit_status(status))
  }
}
