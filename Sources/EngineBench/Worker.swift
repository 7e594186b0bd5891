import BenchmarkSupport
import CLinux
import Glibc
import LinuxRuntimePlugin
import LinuxSystem
import ShimCore

/// What is measured in processes that are cloned, done by a process with one thread, as a container's shim is: only such
/// a one may go on in Swift in a clone of itself, and what a clone costs grows with the memory that it has.
package enum Worker {
  package static let argument = "--worker"
  /// The descriptor of its end of the connection.
  static let connection: Int32 = 3

  enum Task {
    /// A new process in new namespaces; those of the second set are made by the process itself.
    case process(Side, clone: UInt64, unshare: UInt64)
    case seccomp(Side)
    /// A new process that enters groups: of version 1 by their `tasks`, of version 2 by their directory.
    case enter(Side, tasks: [String], unified: String)
    /// A whole container by raw system calls.
    case container(hasNetwork: Bool)
    /// A process in the namespaces of another one, by raw system calls.
    case exec(pid: Int32, tasks: [String], unified: String)

    var words: [String] {
      switch self {
      case .process(let side, let clone, let unshare): ["process", side.rawValue, String(clone), String(unshare)]
      case .seccomp(let side): ["seccomp", side.rawValue]
      case .enter(let side, let tasks, let unified): ["enter", side.rawValue, unified] + tasks
      case .container(let hasNetwork): ["container", hasNetwork ? "1" : "0"]
      case .exec(let pid, let tasks, let unified): ["exec", String(pid), unified] + tasks
      }
    }
  }

  /// - Parameter arguments: a root file system, a directory for writable layers, and the cgroup hierarchies in which raw
  ///   containers get a group, then the name of that.
  package static func serve(_ arguments: [String]) -> Int32 {
    guard arguments.count >= 3 else { return 1 }
    var state = WorkerState(
      rootfs: arguments[0], directory: arguments[1], group: arguments[2], hierarchies: Array(arguments[3...]))
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = recv(connection, &buffer, buffer.count, 0)
      if count <= 0 { return 0 }
      let words = buffer[..<count].split(separator: 0, omittingEmptySubsequences: false)
        .map { String(decoding: $0, as: UTF8.self) }
      var answer: String
      do throws(SystemCallError) {
        answer = String(try state.run(words))
      } catch {
        answer = "!\(error)"
      }
      let bytes = Array(answer.utf8)
      guard send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { return 1 }
    }
  }
}

private struct WorkerState {
  let rootfs: String
  let directory: String
  let group: String
  let hierarchies: [String]
  /// A page that clones share, for the times that they take themselves.
  private let page: UnsafeMutablePointer<Int64>
  private var program: [UInt8] = []
  private var floor: RawFloor?

  init(rootfs: String, directory: String, group: String, hierarchies: [String]) {
    self.rootfs = rootfs
    self.directory = directory
    self.group = group
    self.hierarchies = hierarchies
    let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
    page = (memory ?? UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)).assumingMemoryBound(
      to: Int64.self)
  }

  mutating func run(_ words: [String]) throws(SystemCallError) -> Int64 {
    let side = words.count > 1 ? Side(rawValue: words[1]) ?? .raw : .raw
    switch words.first {
    case "process": return try process(side, UInt64(words[2]) ?? 0, UInt64(words[3]) ?? 0)
    case "seccomp": return try seccomp(side)
    case "enter": return try enter(side, unified: words[2], tasks: Array(words[3...]))
    case "container": return try container(hasNetwork: words[1] == "1")
    case "exec": return try exec(Int32(words[1]) ?? -1, unified: words[2], tasks: Array(words[3...]))
    default: throw SystemCallError(call: "bench", subject: words.joined(separator: " "), number: ENOSYS)
    }
  }

  /// From before the clone until the process is where it shall be.
  private func process(_ side: Side, _ flags: UInt64, _ unshared: UInt64) throws(SystemCallError) -> Int64 {
    let begin = MonotonicClock.now
    return try inClone(side, flags) { () throws(SystemCallError) in
      if unshared != 0 {
        switch side {
        case .engine: try SystemCallError.check("unshare") { unshare(Int32(bitPattern: UInt32(unshared))) }
        case .raw: unshare(Int32(bitPattern: UInt32(unshared)))
        }
      }
      return MonotonicClock.now - begin
    }
  }

  private mutating func seccomp(_ side: Side) throws(SystemCallError) -> Int64 {
    if program.isEmpty { program = try RuntimeSteps.standardFilter() }
    var program = program
    return try inClone(side, 0) { () throws(SystemCallError) in
      let begin = MonotonicClock.now
      switch side {
      case .engine: try ShimSteps.loadFilter(program)
      case .raw:
        let isLoaded = program.withUnsafeMutableBytes { bytes in
          var header = sock_fprog(
            len: UInt16(truncatingIfNeeded: bytes.count / 8),
            filter: bytes.baseAddress?.assumingMemoryBound(to: sock_filter.self))
          return linux_seccomp(UInt32(SECCOMP_SET_MODE_FILTER), 0, &header) == 0
        }
        if !isLoaded { throw SystemCallError(call: "seccomp", number: errno) }
      }
      return MonotonicClock.now - begin
    }
  }

  private func enter(_ side: Side, unified: String, tasks: [String]) throws(SystemCallError) -> Int64 {
    var numbers: [Int32] = []
    defer { for number in numbers { close(number) } }
    for path in tasks { numbers.append(try Files.open(path, O_WRONLY).release()) }
    if unified.isEmpty {
      return try inClone(side, 0) { () throws(SystemCallError) in
        let begin = MonotonicClock.now
        switch side {
        case .engine: try ShimSteps.enterGroups(numbers)
        case .raw: for number in numbers { _ = write(number, "0", 1) }
        }
        return MonotonicClock.now - begin
      }
    }
    let directory = try Files.open(unified, O_RDONLY | O_DIRECTORY)
    let begin = MonotonicClock.now
    return try inClone(side, 0, cgroup: directory.number) { MonotonicClock.now - begin }
  }

  private mutating func container(hasNetwork: Bool) throws(SystemCallError) -> Int64 {
    if floor == nil {
      floor = RawFloor(rootfs: rootfs, directory: directory, hierarchies: hierarchies, group: group)
    }
    guard let time = floor?.run(hasNetwork: hasNetwork) else {
      throw SystemCallError(call: "the raw container", number: EIO)
    }
    return time
  }

  /// A process that enters a container's groups and namespaces and executes its `/bin/true`, until it has ended.
  private func exec(_ pid: Int32, unified: String, tasks: [String]) throws(SystemCallError) -> Int64 {
    let begin = MonotonicClock.now
    let target = OwnedDescriptor(adopting: try SystemCallError.check("pidfd_open") { pidfd_open(pid, 0) })
    let own = try Files.open("/proc/self/ns/pid", O_RDONLY)
    var numbers: [Int32] = []
    defer { for number in numbers { close(number) } }
    for path in tasks { numbers.append(try Files.open(path, O_WRONLY).release()) }
    var group: Int32 = -1
    if !unified.isEmpty { group = try Files.open(unified, O_RDONLY | O_DIRECTORY).release() }
    defer { close(group) }
    try SystemCallError.check("setns") { setns(target.number, CLONE_NEWPID) }
    let child = Self.clone(0, group)
    if child == 0 {
      for number in numbers { _ = write(number, "0", 1) }
      setns(target.number, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)
      var argv: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
      var envp: [UnsafeMutablePointer<CChar>?] = [nil]
      execve("/bin/true", &argv, &envp)
      _exit(127)
    }
    setns(own.number, CLONE_NEWPID)
    let status = Self.wait(child)
    guard child > 0, status == 0 else { throw SystemCallError(call: "the raw exec", number: EIO) }
    return MonotonicClock.now - begin
  }

  /// Runs `body` in a clone and waits for its end.
  ///
  /// - Returns: what `body` returned there.
  private func inClone(
    _ side: Side, _ flags: UInt64, cgroup: Int32 = -1, _ body: () throws(SystemCallError) -> Int64
  ) throws(SystemCallError) -> Int64 {
    page.pointee = -EIO64
    let child: Int32
    switch side {
    case .engine:
      let (pid, pidfd) = try ShimSteps.clone(flags: flags, cgroup: cgroup)
      child = pid
      if pid > 0 { close(pidfd) }
    case .raw:
      child = Self.clone(flags, cgroup)
      if child < 0 { throw SystemCallError(call: "clone3", number: errno) }
    }
    if child == 0 {
      do throws(SystemCallError) {
        page.pointee = try body()
      } catch {
        page.pointee = -Int64(error.number)
      }
      _exit(0)
    }
    _ = Self.wait(child)
    if page.pointee < 0 { throw SystemCallError(call: "in the new process", number: Int32(-page.pointee)) }
    return page.pointee
  }

  private var EIO64: Int64 { Int64(EIO) }

  private static func clone(_ flags: UInt64, _ cgroup: Int32) -> Int32 {
    var arguments = clone_args()
    var pidfd: Int32 = -1
    let pid = withUnsafeMutablePointer(to: &pidfd) { pointer -> Int in
      arguments.flags = flags | UInt64(CLONE_PIDFD)
      arguments.pidfd = UInt64(UInt(bitPattern: pointer))
      arguments.exit_signal = UInt64(SIGCHLD)
      if cgroup >= 0 {
        arguments.flags |= 0x2_0000_0000  // CLONE_INTO_CGROUP
        arguments.cgroup = UInt64(cgroup)
      }
      return linux_clone3(&arguments, MemoryLayout<clone_args>.size)
    }
    if pid > 0 { close(pidfd) }
    return Int32(pid)
  }

  private static func wait(_ child: Int32) -> Int32 {
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0 && errno == EINTR {}
    return status
  }
}
