import Contracts
import Glibc

/// Signals by name or number, as `--stop-signal`, `kill -s` and STOPSIGNAL give them.
enum Signals {
  private static let numbers: [String: Int32] = [
    "HUP": SIGHUP, "INT": SIGINT, "QUIT": SIGQUIT, "ILL": SIGILL, "TRAP": SIGTRAP, "ABRT": SIGABRT, "IOT": SIGABRT,
    "BUS": SIGBUS, "FPE": SIGFPE, "KILL": SIGKILL, "USR1": SIGUSR1, "SEGV": SIGSEGV, "USR2": SIGUSR2, "PIPE": SIGPIPE,
    "ALRM": SIGALRM, "TERM": SIGTERM, "STKFLT": 16, "CHLD": SIGCHLD, "CLD": SIGCHLD, "CONT": SIGCONT, "STOP": SIGSTOP,
    "TSTP": SIGTSTP, "TTIN": SIGTTIN, "TTOU": SIGTTOU, "URG": SIGURG, "XCPU": SIGXCPU, "XFSZ": SIGXFSZ,
    "VTALRM": SIGVTALRM, "PROF": SIGPROF, "WINCH": SIGWINCH, "IO": SIGIO, "POLL": SIGIO, "PWR": SIGPWR, "SYS": SIGSYS,
    "RTMIN": 34, "RTMAX": 64,
  ]

  /// - Throws: `invalidArgument` for what is no signal.
  static func parse(_ text: String) throws(EngineError) -> Int32 {
    if let number = Int32(text) {
      guard (1...64).contains(number) else { throw invalid(text) }
      return number
    }
    var name = text.uppercased()
    if name.hasPrefix("SIG") { name.removeFirst(3) }
    if let number = numbers[name] { return number }
    if name.hasPrefix("RTMIN+"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) {
      return 34 + offset
    }
    if name.hasPrefix("RTMAX-"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) {
      return 64 - offset
    }
    throw invalid(text)
  }

  private static func invalid(_ text: String) -> EngineError {
    EngineError(.invalidArgument, "Invalid signal: \(text)")
  }
}
