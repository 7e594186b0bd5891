import BenchmarkSupport
import CLinux
import Glibc

/// Starts what is compared, each in namespaces of its own, and takes everything down again.
final class Peers {
  let options: Options
  let directory: String
  private var takeDown: [() -> Void] = []
  /// The hierarchy that crun and runc must not see, and this process does not see after them.
  private let unified = linux_open("/sys/fs/cgroup/unified", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
  private(set) var rootfs = ""
  /// What is compared, and why what is missing is missing.
  private(set) var found: [Results.Peer] = []

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
    Processes.ignoreInterruption()
    for step in takeDown.reversed() { step() }
    takeDown = []
    if unified >= 0 { close(unified) }
  }

  func afterwards(_ step: @escaping () -> Void) { takeDown.append(step) }

  // MARK: Who is there

  func note(_ name: String, version: String) {
    found.append(Results.Peer(name: name, version: version, absence: nil))
  }

  func note(_ name: String, absence: String) {
    found.append(Results.Peer(name: name, version: nil, absence: absence))
    print("\(name) is not compared: \(absence)")
  }

  /// Sets a peer up if it is asked for and installed, and notes why it is not there otherwise.
  func attempt<Value>(_ name: String, programs: [String], _ body: () throws -> Value) throws -> Value? {
    guard options.peers.contains(name) else {
      note(name, absence: "it was not asked for")
      return nil
    }
    if let missing = programs.first(where: { !Processes.isInstalled($0) }) {
      note(name, absence: "\(missing) is not installed; `make bench-peers` installs it")
      return nil
    }
    do {
      return try body()
    } catch let interruption as Processes.Interruption {
      throw interruption
    } catch {
      note(name, absence: "it does not run on this machine: \(error)")
      return nil
    }
  }

  /// The last word of the first line that a program prints of itself: `runc version 1.1.5+ds1`.
  static func version(_ arguments: [String], environment: [String] = []) -> String {
    let text = (try? Processes.output(arguments, environment: environment)) ?? ""
    return text.prefix { $0 != "\n" }.split(separator: " ").last.map(String.init) ?? ""
  }

  // MARK: What is run

  static let applets = ["true", "sh", "sleep", "yes", "head", "wc"]

  func makeRootFileSystem() throws {
    rootfs = try makeRootFileSystem("rootfs")
    try archive("rootfs")
  }

  /// A root file system of busybox and nothing else.
  func makeRootFileSystem(_ name: String) throws -> String {
    let path = "\(directory)/\(name)"
    try Processes.run(["mkdir", "-p"] + ["bin", "proc", "sys", "dev", "tmp"].map { "\(path)/\($0)" })
    try Processes.run(["cp", "/bin/busybox", "\(path)/bin/busybox"])
    for applet in Self.applets { symlink("busybox", "\(path)/bin/\(applet)") }
    return path
  }

  func archive(_ name: String) throws {
    try Processes.run(["tar", "-C", "\(directory)/\(name)", "-cf", "\(directory)/\(name).tar", "."])
  }

  // MARK: Daemons

  /// Gives all that is started from here on a /run in memory, as it is on every Debian machine, where this one has it on a
  /// disk: there the engines keep what a reboot clears.
  func keepRunInMemory() {
    var system = statfs()
    guard statfs("/run", &system) == 0, system.f_type != Int(TMPFS_MAGIC), unshare(CLONE_NEWNS) == 0 else { return }
    mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil)
    mount("tmpfs", "/run", "tmpfs", UInt(MS_NOSUID | MS_NODEV), "mode=755")
  }

  func startEngine() throws -> Peer {
    let root = "\(directory)/engine"
    let configuration = "\(directory)/engine.toml"
    // The others may keep it waiting longer than an idle engine stays.
    try Processes.write("[engine]\nidle_seconds = 86400\n", to: configuration)
    let instance = ["--root", root, "--config", configuration]
    let client = [options.binaries + "/engine"] + instance
    // The daemon is the one that is started here: no command may start another one, outside the namespaces.
    let environment = ["ENGINE_DAEMON=/bin/false"]
    let daemon = try startDaemon(["\(options.binaries)/engined"] + instance, log: "\(directory)/engined.log") {
      try Processes.run(client + ["ps"], environment: environment)
    }
    let archive = "\(directory)/rootfs.tar"
    try Processes.run(client + ["import", archive, "bench"], environment: environment, log: "\(directory)/import.log")
    let runtimeDirectory = try Processes.output(
      client + ["info", "--format", "{{.RuntimeDir}}"], environment: environment)
    afterwards { try? Processes.run(["rm", "-rf", String(runtimeDirectory.prefix { $0 != "\n" })]) }
    let version = Self.version(client + ["version", "--format", "{{.Server.Version}}"], environment: environment)
    let peer = Peer(
      name: "engine", version: version, client: client, environment: environment, home: daemon,
      crowds: [0, 1, 50, 100, 200, 300]
    ) { process in
      process.process == daemon || process.parent == daemon && process.command.hasPrefix("engine-shim")
    }
    note("engine", version: version)
    afterwards { try? peer.removeAll() }
    return peer
  }

  /// Docker with its state, its sockets, its network and its mounts apart from any other Docker of the machine.
  func startDocker() throws -> Peer? {
    try attempt("docker", programs: ["dockerd", "docker", "unshare", "ip"]) {
      let directory = directory
      let socket = "unix://\(directory)/docker.sock"
      let environment = ["DOCKER_HOST=\(socket)"]
      let client = Self.dockerClient()
      let group = "engine-benchmarks-\(getpid())"
      let arguments = [
        "dockerd", "--data-root", "\(directory)/docker", "--exec-root", "/run\(directory)/docker", "-H", socket,
        "--pidfile", "\(directory)/docker.pid", "--cgroup-parent", "/\(group)",
      ]
      afterwards { [unowned self] in removeGroups(group) }
      let daemon = try startDaemon(arguments, log: "\(directory)/dockerd.log") {
        try Processes.run([client, "ps"], environment: environment)
      }
      try Processes.run([client, "import", "\(directory)/rootfs.tar", "bench"], environment: environment)
      let version = Self.version([client, "version", "--format", "{{.Server.Version}}"], environment: environment)
      let peer = Peer(
        name: "docker", version: version, client: [client], environment: environment, home: daemon,
        crowds: [0, 1, 50, 100, 200]
      ) { process in
        let program = process.command.split(separator: " ").first?.split(separator: "/").last ?? ""
        return process.command.contains(directory) && (program == "dockerd" || program.hasPrefix("containerd"))
          || program == "docker-proxy" && process.parent == daemon
      }
      note("docker", version: version)
      afterwards { try? peer.removeAll() }
      return peer
    }
  }

  /// The client that came with the daemon, where there are several: they differ in what they ask the daemon for.
  private static func dockerClient() -> String {
    func number(_ program: String) -> String {
      let text = (try? Processes.output([program, "--version"])) ?? ""
      return text.split(separator: ",").first.map(String.init) ?? ""
    }
    let wanted = number("dockerd")
    return Processes.installed("docker").first { number($0) == wanted } ?? "docker"
  }

  /// Starts a daemon in network and mount namespaces of its own and waits until it answers.
  ///
  /// - Parameter setUp: what a shell does there before; it ends with `&&`.
  func startDaemon(
    _ arguments: [String], setUp: String = "", log: String, answers: () throws -> Void
  ) throws -> pid_t {
    let shell = "ip link set lo up && \(setUp) exec \"$@\""
    let process = try Processes.spawn(
      ["unshare", "--net", "--mount", "sh", "-c", shell, "sh"] + arguments, log: log, isApart: true)
    afterwards {
      kill(process, SIGTERM)
      Processes.wait(process, atMost: 20)
    }
    for _ in 0..<300 {
      do {
        try answers()
        return process
      } catch let interruption as Processes.Interruption {
        throw interruption
      } catch {
        usleep(100_000)
      }
    }
    throw Processes.Failure(description: "\(arguments[0]) does not answer; see \(log)")
  }

  /// Takes away the groups that a peer leaves behind; what is in use stays.
  func removeGroups(_ name: String) {
    unlinkat(unified, name, AT_REMOVEDIR)
    guard let hierarchies = opendir("/sys/fs/cgroup") else { return }
    defer { closedir(hierarchies) }
    rmdir("/sys/fs/cgroup/\(name)")
    while let entry = readdir(hierarchies) {
      let hierarchy = withUnsafeBytes(of: entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if !hierarchy.hasPrefix(".") { rmdir("/sys/fs/cgroup/\(hierarchy)/\(name)") }
    }
  }

  // MARK: The floor

  /// The raw system calls, in a process of their own.
  ///
  /// - Returns: nil where the machine does not let it.
  func startRawFloor() throws -> RawFloorProcess? {
    signal(SIGPIPE, SIG_IGN)
    let floor = try makeRawFloor(0)
    guard (try? floor.time()) != nil else {
      note(Names.floor, absence: "they do not run on this machine")
      return nil
    }
    return floor
  }

  /// - Parameter index: tells several apart; each has its own namespaces, bridge and directory.
  func makeRawFloor(_ index: Int) throws -> RawFloorProcess {
    let base = "\(directory)/floor\(index)"
    try Processes.run(["mkdir", "-p", "\(base)/root"])
    let floor = try RawFloorProcess(rootfs: rootfs, directory: base)
    afterwards { floor.end() }
    return floor
  }
}
