import Foundation
import Glibc
import Testing

/// What a command printed and how it ended.
struct Outcome: CustomStringConvertible {
  var status: Int32
  var output: String
  var errors: String

  var lines: [String] { output.split(separator: "\n").map(String.init) }
  var text: String { output.trimmingCharacters(in: .whitespacesAndNewlines) }
  var description: String { "status \(status)\n--- output\n\(output)--- errors\n\(errors)" }
}

/// An engine of its own for one test: its root in a temporary directory, its daemon and its containers in network and
/// mount namespaces that nobody else has. What the test sets up is taken down last in, first out, also on failure.
final class Fixture {
  struct Problem: Error, CustomStringConvertible {
    let description: String
  }

  let directory: String
  let root: String
  private let holder: pid_t
  private let namespace: String?
  /// A process in the fixture's namespaces.
  var holderProcess: pid_t { holder }
  private var takeDown: [() -> Void] = []
  private var isDown = false

  init() throws {
    guard geteuid() == 0 else { throw Problem(description: "the end-to-end tests need root") }
    let directory = "/tmp/engine-e2e-\(UUID().uuidString.prefix(8).lowercased())"
    self.directory = directory
    root = "\(directory)/root"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    takeDown.append { _ = Self.command(["rm", "-rf", "--one-file-system", directory]) }
    holder = try Self.spawn(["unshare", "--net", "--mount", "sleep", "1000"])
    let holder = holder
    takeDown.append {
      kill(holder, SIGKILL)
      waitpid(holder, nil, 0)
    }
    // The namespaces are there once the process that was spawned has become `sleep`.
    for _ in 0..<500 {
      if let text = try? String(contentsOfFile: "/proc/\(holder)/comm", encoding: .utf8), text == "sleep\n" { break }
      usleep(2000)
    }
    namespace = Self.namespace(of: holder)
    // A new namespace forwards where the machine does, as one with a running Docker.
    _ = host(["sh", "-c", "ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward"])
  }

  /// Removes the containers, ends the daemon, and reports what either left behind.
  func end(sourceLocation: SourceLocation = #_sourceLocation) {
    guard !isDown else { return }
    isDown = true
    let containers = engine("ps", "-aq").lines
    if !containers.isEmpty { _ = engine(["rm", "-f", "-v"] + containers) }
    expectClean(sourceLocation: sourceLocation)
    killDaemons(SIGTERM, sourceLocation: sourceLocation)
    let left = processes(named: "engine")
    #expect(left.isEmpty, "processes are left: \(left)", sourceLocation: sourceLocation)
    for process in left { kill(process, SIGKILL) }
    for step in takeDown.reversed() { step() }
    takeDown = []
    let hash = runtimeHash
    _ = Self.command(["rm", "-rf", "/run/engine/\(hash)"])
    let cgroups = Self.command(["sh", "-c", "find /sys/fs/cgroup -maxdepth 3 -type d -name '*\(hash)*' | head"]).lines
    for path in cgroups {
      let inside = Self.command(["sh", "-c", "find \(path) -mindepth 1 -type d | head"]).lines
      #expect(inside.isEmpty, "cgroups are left: \(inside)", sourceLocation: sourceLocation)
      // The instance's own parent is kept by the engine, but this instance is gone for good.
      _ = Self.command(["sh", "-c", "find \(path) -depth -type d -exec rmdir {} +"])
    }
  }

  deinit { end() }

  // MARK: Commands

  /// Runs the engine's command line in the fixture's namespaces.
  func engine(
    _ arguments: [String], environment: [String: String] = [:], input: String? = nil
  ) -> Outcome {
    host([Self.binaries + "/engine", "--root", root] + arguments, environment: environment, input: input)
  }

  func engine(_ arguments: String...) -> Outcome { engine(arguments) }

  /// Runs an engine command that must succeed and returns what it printed, without the last line break.
  @discardableResult
  func succeed(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) -> String {
    let outcome = engine(arguments)
    #expect(
      outcome.status == 0, "engine \(arguments.joined(separator: " ")): \(outcome)", sourceLocation: sourceLocation)
    return outcome.text
  }

  /// Runs any command in the fixture's namespaces, where the engine's host is.
  func host(_ arguments: [String], environment: [String: String] = [:], input: String? = nil) -> Outcome {
    Self.command(hostCommand(arguments), environment: environment, input: input)
  }

  /// A command line that becomes the given one in the fixture's namespaces: it keeps its process.
  func hostCommand(_ arguments: [String]) -> [String] { ["nsenter", "-t", "\(holder)", "-n", "-m"] + arguments }

  /// Starts a program in the fixture's namespaces; the caller ends it.
  func spawnOnHost(_ arguments: [String]) throws -> pid_t {
    try Self.spawn(["nsenter", "-t", "\(holder)", "-n", "-m"] + arguments)
  }

  /// A page from the fixture's host.
  func fetch(_ url: String) -> Outcome { host(["curl", "-s", "-S", "--max-time", "5", url]) }

  /// A shell line that prints the last line of a page, for use inside containers: the wget of Debian's static busybox
  /// dies of its C library's resolver where there is no libc beside it, also for numeric addresses.
  static func request(_ address: String, _ port: Int, _ path: String) -> [String] {
    ["sh", "-c", "printf 'GET \(path) HTTP/1.0\\r\\n\\r\\n' | nc -w 2 \(address) \(port) | tail -n 1"]
  }

  /// Makes the image `bb`: Debian's busybox with its usual names.
  func importBusybox(_ name: String = "bb") throws {
    let archive = try Self.busyboxArchive.get()
    let outcome = engine("import", archive, name)
    guard outcome.status == 0 else { throw Problem(description: "import: \(outcome)") }
  }

  /// The PIDs of the processes in the fixture's mount namespace, which are those of the engine, whose executable's name
  /// begins with `name`.
  func processes(named name: String) -> [pid_t] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { entry -> pid_t? in
      guard let process = pid_t(entry),
        let data = FileManager.default.contents(atPath: "/proc/\(entry)/cmdline"),
        let status = try? String(contentsOfFile: "/proc/\(entry)/stat", encoding: .utf8), !status.contains(") Z ")
      else { return nil }
      let arguments = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      guard let program = arguments.first?.split(separator: "/").last, program.hasPrefix(name) else { return nil }
      return Self.namespace(of: process) == namespace ? process : nil
    }
  }

  /// The shims of containers, without those that stand by for one.
  var shims: [pid_t] {
    processes(named: "engine-shim").filter { process in
      let arguments = FileManager.default.contents(atPath: "/proc/\(process)/cmdline") ?? Data()
      return !String(decoding: arguments, as: UTF8.self).contains("\0standby")
    }
  }

  /// Kills the daemon, and whichever comes up meanwhile, until none holds the instance's lock: a process that is killed
  /// is a zombie before the last of its threads has let go of its sockets.
  func killDaemons(_ signal: Int32 = SIGKILL, sourceLocation: SourceLocation = #_sourceLocation) {
    let lock = open("/run/engine/\(runtimeHash)/engined.lock", O_RDWR | O_CLOEXEC)
    defer { if lock >= 0 { close(lock) } }
    let ended = Self.eventually {
      let daemons = processes(named: "engined")
      for daemon in daemons { kill(daemon, signal) }
      return daemons.isEmpty && (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) == 0)
    }
    #expect(ended, "a daemon does not end", sourceLocation: sourceLocation)
  }

  private static func namespace(of process: pid_t) -> String? {
    try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/mnt")
  }

  /// As the engine derives it from the root: FNV-1a 64, the low 32 bits.
  var runtimeHash: String { Self.instanceHash(root) }

  static func instanceHash(_ root: String) -> String {
    let hash = root.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    let digits = String(UInt32(truncatingIfNeeded: hash), radix: 16)
    return String(repeating: "0", count: 8 - digits.count) + digits
  }

  /// Expects that nothing differs from the records, once what drains has drained.
  func expectClean(sourceLocation: SourceLocation = #_sourceLocation) {
    var last = Outcome(status: -1, output: "", errors: "")
    Self.eventually {
      last = engine("system", "check")
      return last.status == 0 && !last.output.contains("draining")
    }
    #expect(last.status == 0, "system check: \(last)", sourceLocation: sourceLocation)
  }

  /// Makes the docker-archive of an image `small:latest` of one layer with one file; returns its path.
  func smallArchive() -> String {
    let made = Self.command([
      "sh", "-c",
      """
      set -e
      mkdir -p \(directory)/small/root
      cd \(directory)/small
      echo something >root/file
      tar -C root -cf layer.tar .
      digest=$(sha256sum layer.tar | cut -d' ' -f1)
      printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        $digest >config.json
      printf '[{"Config":"config.json","RepoTags":["small:latest"],"Layers":["layer.tar"]}]' >manifest.json
      tar -cf ../small.tar manifest.json config.json layer.tar
      """,
    ])
    #expect(made.status == 0, "\(made)")
    return "\(directory)/small.tar"
  }

  // MARK: Tools

  /// The directory of the binaries under test: `ENGINE_BINARIES`, or the debug build of this checkout.
  static let binaries: String = {
    if let path = ProcessInfo.processInfo.environment["ENGINE_BINARIES"] { return path }
    let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().path
    return "\(checkout)/.build/debug"
  }()

  static let busyboxArchive: Result<String, Problem> = {
    let directory = "/tmp/engine-e2e-busybox-\(getpid())"
    let archive = "\(directory)/busybox.tar"
    let outcome = command([
      "sh", "-c",
      """
      set -e
      mkdir -p \(directory)/root/bin \(directory)/root/etc \(directory)/root/tmp \(directory)/root/data
      chmod 1777 \(directory)/root/tmp
      cp /bin/busybox \(directory)/root/bin/
      for applet in $(/bin/busybox --list); do
        [ $applet = busybox ] || ln -sf busybox \(directory)/root/bin/$applet
      done
      printf 'root:x:0:0:root:/:/bin/sh\\nweb:x:1000:1001:web:/data:/bin/sh\\n' >\(directory)/root/etc/passwd
      printf 'root:x:0:\\nweb:x:1001:\\nextra:x:2000:web\\n' >\(directory)/root/etc/group
      echo 'from the image' >\(directory)/root/data/page
      chown -R 1000:1001 \(directory)/root/data
      tar -C \(directory)/root -cf \(archive) .
      rm -rf \(directory)/root
      """,
    ])
    atexit_b_remove(directory)
    return outcome.status == 0 ? .success(archive) : .failure(Problem(description: "busybox: \(outcome)"))
  }()

  /// Directories to remove when the test process ends.
  private static func atexit_b_remove(_ directory: String) {
    setenv("ENGINE_E2E_SCRATCH", directory, 1)
    atexit {
      guard let path = getenv("ENGINE_E2E_SCRATCH") else { return }
      unlink("\(String(cString: path))/busybox.tar")
      rmdir(path)
    }
  }

  /// Polls until `condition` holds, for at most ten seconds; says whether it did. The caller asserts on the state.
  @discardableResult
  static func eventually(_ condition: () -> Bool) -> Bool {
    // Most of what is waited for comes at once.
    for attempt in 0..<220 {
      if condition() { return true }
      usleep(attempt < 20 ? 4_000 : 50_000)
    }
    return condition()
  }

  static func spawn(_ arguments: [String], environment: [String: String] = [:]) throws -> pid_t {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    return process.processIdentifier
  }

  static func command(
    _ arguments: [String], environment: [String: String] = [:], input: String? = nil
  ) -> Outcome {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let scratch = "/tmp/engine-e2e-io-\(UUID().uuidString)"
    // Files rather than pipes: a daemon that a command started must not keep a test waiting for the end of a pipe.
    _ = FileManager.default.createFile(atPath: "\(scratch).out", contents: nil)
    _ = FileManager.default.createFile(atPath: "\(scratch).err", contents: nil)
    defer {
      for suffix in ["in", "out", "err"] { unlink("\(scratch).\(suffix)") }
    }
    process.standardOutput = FileHandle(forWritingAtPath: "\(scratch).out")
    process.standardError = FileHandle(forWritingAtPath: "\(scratch).err")
    if let input {
      _ = FileManager.default.createFile(atPath: "\(scratch).in", contents: Data(input.utf8))
      process.standardInput = FileHandle(forReadingAtPath: "\(scratch).in")
    } else {
      process.standardInput = FileHandle.nullDevice
    }
    do {
      try process.run()
    } catch {
      return Outcome(status: -1, output: "", errors: "\(arguments[0]): \(error)")
    }
    process.waitUntilExit()
    func text(_ suffix: String) -> String {
      String(decoding: FileManager.default.contents(atPath: "\(scratch).\(suffix)") ?? Data(), as: UTF8.self)
    }
    let status = process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus
    return Outcome(status: status, output: text("out"), errors: text("err"))
  }
}
