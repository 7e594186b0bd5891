import BenchmarkSupport
import CLinux
import Glibc

/// Something that runs containers and understands Docker's command line, with a daemon of its own.
struct Peer {
  var name: String
  /// The program and its global flags.
  var client: [String]
  var environment: [String] = []
  var daemon: pid_t
  /// Whether a process is the peer's own: not the payload of a container.
  var owns: (_ process: (process: pid_t, parent: pid_t, command: String)) -> Bool

  func time(_ arguments: [String]) throws -> Double {
    try Processes.time(client + arguments, environment: environment)
  }

  func run(_ arguments: [String]) throws { try Processes.run(client + arguments, environment: environment) }

  func output(_ arguments: [String]) throws -> String {
    try Processes.output(client + arguments, environment: environment)
  }

  /// Kilobytes of PSS of the daemons and the processes beside containers, and of RSS of the daemons alone.
  var sizes: (proportional: Int, resident: Int) {
    var proportional = 0
    var resident = 0
    for process in Processes.all() where owns(process) {
      proportional += Processes.kilobytes("Pss", of: process.process, in: "smaps_rollup")
      let program = process.command.split(separator: " ").first?.split(separator: "/").last ?? ""
      if !program.contains("shim") && !program.contains("proxy") {
        resident += Processes.kilobytes("VmRSS", of: process.process, in: "status")
      }
    }
    return (proportional, resident)
  }

  /// Containers that sleep, `count` of them, some started at once.
  func fill(_ count: Int, atOnce: Int) throws {
    let arguments = client + ["run", "-d", "--label", "fill=1", "bench", "sleep", "100000"]
    _ = try Processes.many(count, atOnce: atOnce, { _ in arguments }, environment: environment)
  }

  /// Removes what `fill` made.
  func empty() throws {
    let all = try output(["ps", "-aq", "--filter", "label=fill=1"]).split(separator: "\n").map(String.init)
    var rest = all[...]
    while !rest.isEmpty {
      try run(["rm", "-f"] + rest.prefix(25))
      rest = rest.dropFirst(25)
    }
  }
}

/// Starts what is compared, each in namespaces of its own, and takes everything down again.
final class Peers {
  private let options: Options
  let directory: String
  private var takeDown: [() -> Void] = []
  private(set) var rootfs = ""

  init(_ options: Options) throws {
    self.options = options
    var template = Array("/tmp/engine-benchmarks.XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw Processes.Failure(description: "no temporary directory: \(String(cString: strerror(errno)))")
    }
    directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let directory = directory
    takeDown.append { try? Processes.run(["rm", "-rf", "--one-file-system", directory]) }
  }

  /// Last set up, first taken down.
  func tearDown() {
    for step in takeDown.reversed() { step() }
    takeDown = []
  }

  func makeRootFileSystem() throws {
    rootfs = "\(directory)/rootfs"
    try Processes.run([
      "mkdir", "-p", "\(rootfs)/bin", "\(rootfs)/proc", "\(rootfs)/sys", "\(rootfs)/dev", "\(rootfs)/tmp",
    ])
    try Processes.run(["cp", "/bin/busybox", "\(rootfs)/bin/busybox"])
    for name in ["true", "sh", "sleep"] { symlink("busybox", "\(rootfs)/bin/\(name)") }
    try Processes.run(["tar", "-C", rootfs, "-cf", "\(directory)/rootfs.tar", "."])
  }

  func startEngine() throws -> Peer {
    let root = "\(directory)/engine"
    let client = [options.binaries + "/engine", "--root", root]
    // The daemon is the one that is started here: no command may start another one, outside the namespaces.
    let environment = ["ENGINE_DAEMON=/bin/false"]
    let daemon = try startDaemon(["\(options.binaries)/engined", "--root", root], log: "\(directory)/engined.log") {
      try Processes.run(client + ["ps"], environment: environment)
    }
    let archive = "\(directory)/rootfs.tar"
    try Processes.run(client + ["import", archive, "bench"], environment: environment, log: "\(directory)/import.log")
    let runtimeDirectory = try Processes.output(
      client + ["info", "--format", "{{.RuntimeDir}}"], environment: environment)
    takeDown.append { try? Processes.run(["rm", "-rf", String(runtimeDirectory.prefix { $0 != "\n" })]) }
    let peer = Peer(name: "engine", client: client, environment: environment, daemon: daemon) { process in
      process.process == daemon || process.parent == daemon && process.command.hasPrefix("engine-shim")
    }
    takeDown.append { Self.removeAll(peer) }
    return peer
  }

  func startDocker() throws -> Peer? {
    guard Processes.isInstalled("dockerd") else {
      print("docker is not installed; `make bench-peers` installs it")
      return nil
    }
    let directory = directory
    let socket = "unix://\(directory)/docker.sock"
    let environment = ["DOCKER_HOST=\(socket)"]
    let arguments = [
      "dockerd", "--data-root", "\(directory)/docker", "--exec-root", "\(directory)/docker-exec", "-H", socket,
      "--pidfile", "\(directory)/docker.pid",
    ]
    let daemon = try startDaemon(arguments, log: "\(directory)/dockerd.log") {
      try Processes.run(["docker", "ps"], environment: environment)
    }
    try Processes.run(["docker", "import", "\(directory)/rootfs.tar", "bench"], environment: environment)
    let peer = Peer(name: "docker", client: ["docker"], environment: environment, daemon: daemon) { process in
      let program = process.command.split(separator: " ").first?.split(separator: "/").last ?? ""
      return process.command.contains(directory) && (program == "dockerd" || program.hasPrefix("containerd"))
        || program == "docker-proxy" && process.parent == daemon
    }
    takeDown.append { Self.removeAll(peer) }
    return peer
  }

  private static func removeAll(_ peer: Peer) {
    let all = (try? peer.output(["ps", "-aq"]).split(separator: "\n").map(String.init)) ?? []
    if !all.isEmpty { try? peer.run(["rm", "-f"] + all) }
  }

  /// Starts a daemon in network and mount namespaces of its own and waits until it answers.
  private func startDaemon(_ arguments: [String], log: String, answers: () throws -> Void) throws -> pid_t {
    let shell = "ip link set lo up && exec \"$@\""
    let process = try Processes.spawn(
      ["unshare", "--net", "--mount", "sh", "-c", shell, "sh"] + arguments, log: log)
    takeDown.append {
      kill(process, SIGTERM)
      Processes.wait(process)
    }
    for _ in 0..<300 {
      if (try? answers()) != nil { return process }
      usleep(100_000)
    }
    throw Processes.Failure(description: "\(arguments[0]) does not answer; see \(log)")
  }

  /// The raw system calls, in a process of their own.
  ///
  /// - Returns: what takes the time of one container; nil where the machine does not let it.
  func startRawFloor() throws -> (() throws -> Double)? {
    var down: [Int32] = [-1, -1]
    var up: [Int32] = [-1, -1]
    pipe2(&down, O_CLOEXEC)
    pipe2(&up, O_CLOEXEC)
    let base = "\(directory)/floor"
    try Processes.run(["mkdir", "-p", "\(base)/root"])
    let process = try Processes.spawn(
      ["unshare", "--net", "--mount", "/proc/\(getpid())/exe", RawFloor.argument, rootfs, base],
      pipes: (down[0], up[1]))
    close(down[0])
    close(up[1])
    let (request, answer) = (down[1], up[0])
    takeDown.append {
      close(request)
      close(answer)
      Processes.wait(process)
    }
    let measure = { () throws -> Double in
      var time = 0.0
      guard write(request, "r", 1) == 1, read(answer, &time, MemoryLayout<Double>.size) == MemoryLayout<Double>.size,
        time > 0
      else { throw Processes.Failure(description: "the raw system calls failed") }
      return time
    }
    signal(SIGPIPE, SIG_IGN)
    guard (try? measure()) != nil else {
      print("the raw system calls do not run on this machine")
      return nil
    }
    return measure
  }

  /// crun and runc on a bundle of the same root file system, namespaces and command.
  ///
  /// After this the processes started here see no unified hierarchy, without which crun takes the machine for v1.
  func prepareRuntimes() throws -> [Candidate] {
    var candidates: [Candidate] = []
    guard unshare(CLONE_NEWNS) == 0 else { return [] }
    mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil)
    umount2("/sys/fs/cgroup/unified", Int32(MNT_DETACH))
    for runtime in ["crun", "runc"] where Processes.isInstalled(runtime) {
      let bundle = "\(directory)/\(runtime)"
      try Processes.run(["mkdir", "-p", bundle])
      try Processes.run(["cp", "-a", rootfs, "\(bundle)/rootfs"])
      try Processes.run(["sh", "-c", "cd \(bundle) && \(runtime) spec"])
      try Processes.run([
        "sed", "-i", "s/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"true\"/", "\(bundle)/config.json",
      ])
      let arguments = [runtime, "--root", "\(directory)/\(runtime)-state", "run", "-b", bundle, "bench"]
      do {
        try Processes.run(arguments, log: "\(directory)/\(runtime).log")
        candidates.append(Candidate("\(runtime) run") { try Processes.time(arguments, environment: []) })
      } catch {
        print("\(runtime) does not run on this machine: \(error)")
      }
    }
    return candidates
  }
}
