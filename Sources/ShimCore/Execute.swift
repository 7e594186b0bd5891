import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// Turns the child into the container's command.
enum Execute {
  private static let defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

  /// Finds the executable as runc does: a name without a slash in PATH of the process's own environment.
  static func find(_ name: String, environment: [String]) throws(SetupFailure) -> String {
    if name.contains("/") {
      var status = stat()
      if stat(name, &status) != 0 {
        let kind: FailureKind = errno == EACCES ? .notExecutable : .commandNotFound
        throw SetupFailure(kind, "exec: \"\(name)\": stat \(name): \(reason(errno))")
      }
      if let problem = problem(name, status) {
        throw SetupFailure(.notExecutable, "exec: \"\(name)\": \(reason(problem))")
      }
      return name
    }
    let path = environment.last { $0.hasPrefix("PATH=") }.map { String($0.dropFirst(5)) } ?? defaultPath
    for directory in path.split(separator: ":", omittingEmptySubsequences: true) {
      // A relative directory would find a file of the working directory, which Go's LookPath refuses too.
      guard directory.hasPrefix("/") else { continue }
      let candidate = "\(directory)/\(name)"
      var status = stat()
      if stat(candidate, &status) == 0, problem(candidate, status) == nil { return candidate }
    }
    throw SetupFailure(.commandNotFound, "exec: \"\(name)\": executable file not found in $PATH")
  }

  private static func problem(_ path: String, _ status: stat) -> Int32? {
    if status.st_mode & S_IFMT == S_IFDIR { return EACCES }
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 ? nil : EACCES
  }

  /// execve(2); returns only the failure.
  static func run(_ path: String, _ name: String, _ arguments: [String], _ environment: [String]) -> SetupFailure {
    withCStrings(arguments) { arguments in withCStrings(environment) { _ = execve(path, arguments, $0) } }
    let number = errno
    switch number {
    case ENOENT, ENOTDIR:
      // The file was there a moment ago, so it is the interpreter that its first line or its header names.
      return SetupFailure(.commandNotFound, "exec: \"\(name)\": no such file or directory")
    case EACCES, ENOEXEC, EISDIR, ETXTBSY, ELIBBAD, EPERM:
      return SetupFailure(
        .notExecutable, "exec: \"\(name)\": \(number == ENOEXEC ? "exec format error" : reason(number))")
    case E2BIG: return SetupFailure(.invalidArgument, "exec: \"\(name)\": \(reason(number))")
    default: return SetupFailure(.internalFailure, "exec: \"\(name)\": \(reason(number))")
    }
  }

  /// The signals that the shim ignores, by itself or since whoever started the engine did; found out once, ahead of the
  /// first container. execve(2) resets those that are caught.
  static let ignoredSignals: [Int32] = (1..<Int32(65)).filter { number in
    var action = sigaction()
    guard sigaction(number, nil, &action) == 0 else { return false }
    return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1  // SIG_IGN
  }

  /// Signals as a new program expects them: nothing ignored, nothing blocked (signal(7)).
  static func resetSignals() {
    for number in ignoredSignals { signal(number, SIG_DFL) }
    var none = sigset_t()
    sigemptyset(&none)
    sigprocmask(SIG_SETMASK, &none, nil)
  }
}

/// What `--init` puts in front of the command: PID 1, which hands signals on and reaps what is orphaned.
enum Init {
  /// Forks: returns in the child, which becomes the command; the parent never returns.
  static func start(_ process: ProcessPlan, status: Int32) throws(SetupFailure) {
    var all = sigset_t()
    sigfillset(&all)
    sigprocmask(SIG_SETMASK, &all, nil)
    var arguments = clone_args()
    arguments.exit_signal = UInt64(SIGCHLD)
    let child = linux_clone3(&arguments, MemoryLayout<clone_args>.size)
    if child < 0 { throw SetupFailure(.internalFailure, "starting the init process: clone3: \(reason(errno))") }
    if child == 0 { return }
    close(status)
    // Nothing more is done than waiting, yet it is as confined as the command; the status socket is closed, so what
    // goes wrong here ends the container.
    do { try Privileges.finish(process) } catch { _exit(126) }
    _ = "docker-init".withCString { linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
    supervise(Int32(child), &all)
  }

  private static func supervise(_ child: Int32, _ signals: inout sigset_t) -> Never {
    // The streams and the terminal are the command's: it must be able to close them for good.
    for number in 0..<Int32(3) { close(number) }
    while true {
      let number = sigwaitinfo(&signals, nil)
      if number != SIGCHLD {
        if number > 0 { kill(child, number) }
        continue
      }
      while true {
        var status: Int32 = 0
        let pid = waitpid(-1, &status, WNOHANG)
        if pid <= 0 { break }
        if pid == child { _exit(exitCode(status)) }
      }
    }
  }
}

/// A wait status as Docker reports it: the exit status, or 128 and the signal's number.
func exitCode(_ status: Int32) -> Int32 {
  linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
}
