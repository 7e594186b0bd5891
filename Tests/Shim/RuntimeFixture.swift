import CLinux
import Contracts
import Foundation
import Glibc
import Kernel
import LinuxRuntimePlugin
import LinuxSystem
import Testing

/// A runtime of one's own in a temporary directory, with a root file system made of busybox.
final class RuntimeFixture: Sendable {
  let directory: String
  let bus: Bus
  let journal: Journal
  let instance: Instance
  let exits = Recorder<RuntimeExited>()
  let detached = Recorder<RuntimeDetached>()

  private let shims = Recorder<Descriptor>()

  /// Starts a container, and remembers its shim for the end of the test.
  func launch(
    _ request: RuntimeCreate, on bus: Bus? = nil, files: [String: String] = [:]
  ) async throws -> RuntimeStart.Reply {
    let bus = bus ?? self.bus
    _ = try await bus.request(request)
    let reply = try await bus.request(RuntimeStart(container: request.container, files: files))
    let pidfd = pidfd_open(reply.shimPID, 0)
    if pidfd >= 0 { shims.add(Descriptor(adopting: pidfd)) }
    return reply
  }

  /// The names of the directories of containers, and of shims that stand by for one.
  var runtimeDirectories: [String] {
    ((try? Files.list("\(directory)/run/runtime-linux")) ?? []).filter { !$0.hasPrefix(DirectoryPool.prefix) }.sorted()
  }

  static var isRoot: Bool { geteuid() == 0 }

  /// The built shim: beside the test bundle, or where ENGINE_SHIM says.
  static var shimPath: String {
    if let path = getenv("ENGINE_SHIM") { return String(cString: path) }
    let bundle = CommandLine.arguments.first { $0.contains(".xctest") } ?? "/proc/self/exe"
    var folder = URL(fileURLWithPath: bundle).resolvingSymlinksInPath()
    while folder.path != "/" {
      folder.deleteLastPathComponent()
      let candidate = folder.appendingPathComponent("engine-shim").path
      if Files.exists(candidate) { return candidate }
    }
    return "\(FileManager.default.currentDirectoryPath)/.build/debug/engine-shim"
  }

  /// How many shims stand by.
  private let standby: Int

  init(daemonPath: String = "", standby: Int = 0) throws {
    self.standby = standby
    var template = Array("/tmp/shim-test-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemCallError(call: "mkdtemp", number: errno) }
    directory = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    try Self.makeRoot("\(directory)/root")
    try Files.makeDirectories("\(directory)/run")
    instance = Instance(
      root: "\(directory)/state", runtimeDirectory: "\(directory)/run", hash: "deadbeef", isDefault: false,
      daemonPath: daemonPath, shimPath: Self.shimPath, version: "test")
    bus = Bus()
    journal = try Journal(path: "\(directory)/run/journal")
    try connect(bus)
  }

  /// Registers a runtime, as a fresh engine would.
  @discardableResult
  func connect(_ bus: Bus) throws -> LinuxRuntimePlugin {
    let plugin = try LinuxRuntimePlugin(
      host: PluginHost(
        manifest: LinuxRuntimePlugin.manifest, bus: bus, instance: instance, journal: journal,
        configuration: ["standby-shims": "\(standby)"]))
    try plugin.register(Registrar(bus: bus, manifest: LinuxRuntimePlugin.manifest))
    let exits = exits
    let detached = detached
    bus.subscribe(to: RuntimeExited.self) { exits.add($0) }
    bus.subscribe(to: RuntimeDetached.self) { detached.add($0) }
    return plugin
  }

  deinit {
    // Of a test that failed: the shims' deaths are their containers' too.
    for pidfd in shims.all { _ = pidfd_send_signal(pidfd.number, SIGKILL, nil, 0) }
    try? FileManager.default.removeItem(atPath: directory)
  }

  private static func makeRoot(_ root: String) throws {
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "home"] {
      try Files.makeDirectories("\(root)/\(name)", mode: 0o755)
    }
    chmod("\(root)/tmp", 0o1777)
    // Copied by a process of its own: a descriptor open for writing here could be in a child that another test forks,
    // and then execve(2) says ETXTBSY.
    let copy = Process()
    copy.executableURL = URL(fileURLWithPath: "/bin/cp")
    copy.arguments = ["/bin/busybox", "\(root)/bin/busybox"]
    try copy.run()
    copy.waitUntilExit()
    let applets = [
      "sh", "true", "false", "cat", "echo", "ls", "id", "sleep", "grep", "kill", "mount", "pwd", "env", "hostname",
      "stat",
      "tty", "stty", "wc", "dd", "head", "seq", "ps", "touch", "mkdir", "readlink", "chroot", "umount", "yes",
      "unshare",
    ]
    for applet in applets { symlink("busybox", "\(root)/bin/\(applet)") }
    let files = [
      "passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n",
      "group": "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\naudio:x:63:alice,bob\n",
    ]
    for (name, text) in files {
      try Files.replace("\(root)/etc/\(name)", with: Array(text.utf8), mode: 0o644, durable: false)
    }
  }

  static let defaultCapabilities = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
  ]

  func process(_ arguments: [String]) -> RuntimeSpecification.Process {
    var process = RuntimeSpecification.Process(arguments: arguments)
    process.environment = ["PATH=/usr/bin:/bin", "TERM=xterm"]
    process.capabilities = Self.defaultCapabilities
    return process
  }

  func specification(_ arguments: [String]) -> RuntimeSpecification {
    var specification = RuntimeSpecification(process: process(arguments), hostname: "box")
    specification.maskedPaths = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/missing"]
    specification.readOnlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    return specification
  }

  func request(
    _ id: ObjectID, _ specification: RuntimeSpecification, streams: StandardStreams = StandardStreams(),
    mounts: [VolumeMount.Mounted] = []
  ) throws -> RuntimeCreate {
    RuntimeCreate(
      container: id, specification: specification,
      root: Descriptor(adopting: try Mounts.clone("\(directory)/root", recursive: false).release()), mounts: mounts,
      networkNamespace: nil, cgroupEntries: [], unifiedCgroup: nil, streams: streams,
      logPath: "\(directory)/\(id.short).log", logMaximumSize: 0, logMaximumFiles: 1)
  }

  struct Ended {
    var code: Int32
    var output: String
    var error: String
    var warnings: [String]
  }

  /// Runs to the end; what the container wrote comes through pipes of the test's own.
  func run(
    _ specification: RuntimeSpecification, mounts: [VolumeMount.Mounted] = [], input: String? = nil, on bus: Bus? = nil,
    change: (inout RuntimeCreate) -> Void = { _ in }
  ) async throws -> Ended {
    let bus = bus ?? self.bus
    let id = ObjectID.random()
    let output = try Pipe(), error = try Pipe()
    var streams = StandardStreams(output: output.writing(), error: error.writing())
    if let input {
      let pipe = try Pipe()
      streams.input = pipe.reading()
      streams.keepsInputOpen = true
      let writing = pipe.writing()
      let bytes = Array(input.utf8)
      Foundation.Thread.detachNewThread {
        try? Files.writeAll(writing.number, bytes); withExtendedLifetime(writing) {}
      }
      pipe.close()
    }
    var request = try request(id, specification, streams: streams, mounts: mounts)
    streams = StandardStreams()
    change(&request)
    output.closeWriting()
    error.closeWriting()
    async let first = output.readToEnd()
    async let second = error.readToEnd()
    let reply: RuntimeStart.Reply
    do {
      reply = try await launch(request, on: bus)
      request.streams = StandardStreams()
    } catch {
      request.streams = StandardStreams()
      _ = await (first, second)
      throw error
    }
    let exit = try await exits.first { $0.container == id }
    let texts = await (first, second)
    _ = try await bus.request(RuntimeRemove(container: id))
    return Ended(code: exit.status.code, output: texts.0, error: texts.1, warnings: reply.warnings)
  }
}

/// Waits for a process's end; until it is reaped it is one of the dead.
func gone(_ pid: Int32) async {
  for _ in 0..<20_000 {
    guard let stat = try? Files.readText("/proc/\(pid)/stat"), !stat.contains(") Z ") else { return }
    try? await Task.sleep(nanoseconds: 1_000_000)
  }
  Issue.record("the process \(pid) is still there")
}

/// Remembers events, and lets tests wait for one.
final class Recorder<Value: Sendable>: Sendable {
  private let values = NSLockedArray<Value>()

  func add(_ value: Value) { values.append(value) }
  var all: [Value] { values.all }

  /// Waits for the first that fits, at most two minutes.
  func first(_ fits: (Value) -> Bool) async throws -> Value {
    for _ in 0..<120_000 {
      if let found = values.all.first(where: fits) { return found }
      try await Task.sleep(nanoseconds: 1_000_000)
    }
    throw EngineError(.deadlineExceeded, "what the test waits for did not happen")
  }
}

final class NSLockedArray<Value: Sendable>: @unchecked Sendable {
  // Unchecked: everything is under the lock.
  private let lock = NSLock()
  private var values: [Value] = []
  func append(_ value: Value) { lock.withLock { values.append(value) } }
  var all: [Value] { lock.withLock { values } }
}

/// A pipe of the test.
final class Pipe: @unchecked Sendable {
  // Unchecked: used by one test at a time, reading from one task.
  private var ends: [Int32] = [-1, -1]

  init() throws { try SystemCallError.check("pipe2") { pipe2(&ends, O_CLOEXEC) } }
  deinit { close() }

  func writing() -> Descriptor { Descriptor(adopting: fcntl(ends[1], F_DUPFD_CLOEXEC, 3)) }
  func reading() -> Descriptor { Descriptor(adopting: fcntl(ends[0], F_DUPFD_CLOEXEC, 3)) }
  func closeWriting() {
    if ends[1] >= 0 { Glibc.close(ends[1]) }
    ends[1] = -1
  }
  func close() {
    closeWriting()
    if ends[0] >= 0 { Glibc.close(ends[0]) }
    ends[0] = -1
  }
  func readToEnd() async -> String {
    let number = ends[0]
    return await withCheckedContinuation { continuation in
      Foundation.Thread.detachNewThread {
        let bytes = (try? Files.readAll(number, limit: 1 << 28)) ?? []
        continuation.resume(returning: String(decoding: bytes, as: UTF8.self))
      }
    }
  }
}
