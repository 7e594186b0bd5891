import CLinux
import Foundation
import Glibc

/// A command at a terminal of its own, as a person at a keyboard has it: the command leads a session whose controlling
/// terminal is a pty that the test holds the other end of.
final class TerminalSession {
  let process: pid_t
  /// The terminal's device: what the command has as its standard streams.
  let terminalPath: String
  private let master: Int32
  /// Everything that was on the screen, and what of it no look has come across yet.
  private(set) var transcript = ""
  private var unseen = ""
  private var ended: Int32?

  /// Starts a command line of the engine in the fixture's namespaces.
  convenience init(_ fixture: Fixture, _ arguments: String..., rows: UInt16 = 24, columns: UInt16 = 80) throws {
    try self.init(fixture, arguments, rows: rows, columns: columns)
  }

  convenience init(_ fixture: Fixture, _ arguments: [String], rows: UInt16 = 24, columns: UInt16 = 80) throws {
    try self.init(
      fixture.hostCommand([Fixture.binaries + "/engine", "--root", fixture.root] + arguments), rows, columns)
  }

  private init(_ command: [String], _ rows: UInt16, _ columns: UInt16) throws {
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)
    guard master >= 0, grantpt(master) == 0, unlockpt(master) == 0, let name = ptsname(master) else {
      throw Fixture.Problem(description: "no terminal can be made")
    }
    let path = String(cString: name)
    terminalPath = path
    Self.resize(master, rows: rows, columns: columns)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // The first terminal that a session's leader opens becomes the session's own (tty_ioctl(4)).
    posix_spawn_file_actions_addopen(&actions, 0, path, O_RDWR, 0)
    posix_spawn_file_actions_adddup2(&actions, 0, 1)
    posix_spawn_file_actions_adddup2(&actions, 0, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | 0x80)  // SETSID
    var pointers: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
    defer { for pointer in pointers { free(pointer) } }
    var spawned: pid_t = 0
    let result = posix_spawnp(&spawned, command[0], &actions, &attributes, &pointers, linux_environment())
    guard result == 0 else { throw Fixture.Problem(description: "\(command[0]): \(String(cString: strerror(result)))") }
    process = spawned
  }

  deinit {
    if ended == nil {
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
    }
    close(master)
  }

  /// Presses keys.
  func type(_ keys: String) {
    let bytes = Array(keys.utf8)
    _ = write(master, bytes, bytes.count)
  }

  /// The window takes another size: the kernel tells the foreground process group with SIGWINCH.
  func resize(rows: UInt16, columns: UInt16) { Self.resize(master, rows: rows, columns: columns) }

  private static func resize(_ master: Int32, rows: UInt16, columns: UInt16) {
    var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
    _ = linux_ioctl_pointer(master, UInt(TIOCSWINSZ), &size)
  }

  /// Looks at the screen until `text` has come since the last look, for at most ten seconds.
  func shows(_ text: String) -> Bool {
    Fixture.eventually {
      read()
      guard let range = unseen.range(of: text) else { return false }
      unseen.removeSubrange(..<range.upperBound)
      return true
    }
  }

  /// Waits for the first prompt, and for the client to have heard that its container runs: only then do the keys go
  /// there as they are typed.
  func isPrompting(_ text: String) -> Bool { shows(text) && Fixture.eventually { !isCooked } }

  private func read() {
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = Glibc.read(master, &buffer, buffer.count)
      guard count > 0 else { return }
      // A carriage return and a line feed are one character to Swift.
      let text = String(decoding: buffer[..<count].filter { $0 != 13 }, as: UTF8.self)
      transcript += text
      unseen += text
    }
  }

  /// The exit status as a shell shows it, or nil when the command has not ended within ten seconds.
  func status() -> Int32? {
    Fixture.eventually {
      read()
      var status: Int32 = 0
      guard ended == nil, waitpid(process, &status, WNOHANG) == process else { return ended != nil }
      ended = linux_wait_exited(status) != 0 ? linux_wait_exit_status(status) : 128 + linux_wait_signal(status)
      return true
    }
    read()
    return ended
  }

  /// Whether typed keys are shown and lines edited, as at a terminal that no program has in raw mode.
  var isCooked: Bool {
    var settings = termios()
    guard tcgetattr(master, &settings) == 0 else { return false }
    return settings.c_lflag & tcflag_t(ECHO) != 0 && settings.c_lflag & tcflag_t(ICANON) != 0
  }
}

/// A command of the engine that runs beside the test, with its output in files.
final class BackgroundCommand {
  private let running = Process()
  private let scratch = "/tmp/engine-e2e-io-\(UUID().uuidString)"

  init(
    _ fixture: Fixture, _ arguments: String..., input: FileHandle = .nullDevice, output: FileHandle? = nil
  ) throws {
    let command = fixture.hostCommand([Fixture.binaries + "/engine", "--root", fixture.root] + arguments)
    running.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    running.arguments = command
    for suffix in ["out", "err"] {
      _ = FileManager.default.createFile(atPath: "\(scratch).\(suffix)", contents: nil)
    }
    running.standardInput = input
    running.standardOutput = output ?? FileHandle(forWritingAtPath: "\(scratch).out")
    running.standardError = FileHandle(forWritingAtPath: "\(scratch).err")
    try running.run()
  }

  deinit {
    if running.isRunning { kill(process, SIGKILL) }
    for suffix in ["out", "err"] { unlink("\(scratch).\(suffix)") }
  }

  /// The engine's own process: what stands before it on the command line has become it.
  var process: pid_t { running.processIdentifier }
  var output: String { text("out") }
  var errors: String { text("err") }

  private func text(_ suffix: String) -> String {
    String(decoding: FileManager.default.contents(atPath: "\(scratch).\(suffix)") ?? Data(), as: UTF8.self)
  }

  /// The exit status as a shell shows it, or nil when the command has not ended within ten seconds.
  func status() -> Int32? {
    guard Fixture.eventually({ !running.isRunning }) else { return nil }
    return running.terminationReason == .exit ? running.terminationStatus : 128 + running.terminationStatus
  }
}
