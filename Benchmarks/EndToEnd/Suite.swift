import CLinux
import Glibc

/// One command to be timed, and the one it is compared with.
struct Candidate {
  var name: String
  var arguments: [String]
  var environment: [String] = []
  /// The name of the candidate whose median this one's is a ratio of.
  var comparedWith: String?
}

/// Starts what is compared, each in namespaces of its own, times it, and takes everything down again.
final class Suite {
  private let options: Options
  private let directory: String
  private var takeDown: [() -> Void] = []

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

  func run() throws {
    guard geteuid() == 0 else { throw Processes.Failure(description: "the benchmarks need root") }
    let rootfs = try makeRootFileSystem()
    var candidates = try startEngine(rootfs)
    if let docker = try startDocker(rootfs) { candidates += docker }
    // After this the processes started here see no unified hierarchy, without which crun takes the machine for v1.
    candidates += try prepareRuntimes(rootfs)
    var results: [String] = []
    for (mode, pause) in [("hot", UInt32(0)), ("with pauses of \(options.pause / 1000) ms", options.pause)] {
      results.append(try measure(candidates, mode: mode, pause: pause))
    }
    try write("{\"unit\":\"microseconds\",\"runs\":\(options.runs),\"modes\":[\(results.joined(separator: ","))]}\n")
  }

  /// Every candidate in turn, again and again, so that what disturbs the machine disturbs all of them.
  private func measure(_ candidates: [Candidate], mode: String, pause: UInt32) throws -> String {
    var times: [String: [Double]] = [:]
    for round in 0..<options.runs + 3 {
      for candidate in candidates {
        if pause > 0 { usleep(pause) }
        let time = try Processes.time(candidate.arguments, environment: candidate.environment)
        if round >= 3 { times[candidate.name, default: []].append(time) }
      }
    }
    print("\n\(mode), \(options.runs) runs, milliseconds")
    print(Self.row("command", "p50", "p90", "min", "compared"))
    var entries: [String] = []
    for candidate in candidates {
      guard let samples = times[candidate.name].map(Samples.init) else { continue }
      var comparison = ""
      if let other = candidate.comparedWith, let peer = times[other].map(Samples.init) {
        let ratio = samples.median / peer.median
        comparison = ratio < 1 ? "1/\(Self.decimal(1 / ratio, 1)) of \(other)" : "\(Self.decimal(ratio, 2)) x \(other)"
      }
      print(
        Self.row(
          candidate.name, Self.decimal(samples.median / 1000, 2), Self.decimal(samples.percentile(0.9) / 1000, 2),
          Self.decimal(samples.percentile(0) / 1000, 2), comparison))
      entries.append(
        "{\"name\":\"\(candidate.name)\",\"p50\":\(Int(samples.median)),\"p90\":\(Int(samples.percentile(0.9)))}")
    }
    return "{\"mode\":\"\(mode)\",\"results\":[\(entries.joined(separator: ","))]}"
  }

  private static func row(_ cells: String...) -> String {
    zip(cells, [34, 9, 9, 9, 0]).map { $0 + String(repeating: " ", count: max(0, $1 - $0.count)) }.joined()
  }

  static func decimal(_ value: Double, _ digits: Int) -> String {
    let scale = digits == 1 ? 10.0 : 100.0
    let scaled = Int((value * scale).rounded())
    let fraction = String(scaled % Int(scale))
    return "\(scaled / Int(scale)).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
  }

  // MARK: What is compared

  private func makeRootFileSystem() throws -> String {
    let rootfs = "\(directory)/rootfs"
    try Processes.run([
      "mkdir", "-p", "\(rootfs)/bin", "\(rootfs)/proc", "\(rootfs)/sys", "\(rootfs)/dev", "\(rootfs)/tmp",
    ])
    try Processes.run(["cp", "/bin/busybox", "\(rootfs)/bin/busybox"])
    for name in ["true", "sh", "sleep"] { symlink("busybox", "\(rootfs)/bin/\(name)") }
    try Processes.run(["tar", "-C", rootfs, "-cf", "\(directory)/rootfs.tar", "."])
    return rootfs
  }

  private func startEngine(_ rootfs: String) throws -> [Candidate] {
    let root = "\(directory)/engine"
    let engine = [options.binaries + "/engine", "--root", root]
    try startDaemon(["\(options.binaries)/engined", "--root", root], log: "\(directory)/engined.log") {
      try Processes.run(engine + ["ps"])
    }
    try Processes.run(engine + ["import", "\(directory)/rootfs.tar", "bench"], log: "\(directory)/import.log")
    return [
      Candidate(name: "engine run", arguments: engine + ["run", "--rm", "bench", "true"], comparedWith: "docker run"),
      Candidate(
        name: "engine run -p -m --cpus",
        arguments: engine + ["run", "--rm", "-p", "80", "-m", "64m", "--cpus", "1", "bench", "true"],
        comparedWith: "docker run -p -m --cpus"),
      Candidate(
        name: "engine run --network none", arguments: engine + ["run", "--rm", "--network", "none", "bench", "true"],
        comparedWith: "crun run"),
      Candidate(name: "engine ps", arguments: engine + ["ps"], comparedWith: "docker ps"),
    ]
  }

  private func startDocker(_ rootfs: String) throws -> [Candidate]? {
    guard Processes.isInstalled("dockerd") else {
      print("docker is not installed; `make bench-peers` installs it")
      return nil
    }
    let socket = "unix://\(directory)/docker.sock"
    let environment = ["DOCKER_HOST=\(socket)"]
    let daemon = [
      "dockerd", "--data-root", "\(directory)/docker", "--exec-root", "\(directory)/docker-exec", "-H", socket,
      "--pidfile", "\(directory)/docker.pid",
    ]
    try startDaemon(daemon, log: "\(directory)/dockerd.log") {
      try Processes.run(["docker", "ps"], environment: environment)
    }
    try Processes.run(["docker", "import", "\(directory)/rootfs.tar", "bench"], environment: environment)
    return [
      Candidate(name: "docker run", arguments: ["docker", "run", "--rm", "bench", "true"], environment: environment),
      Candidate(
        name: "docker run -p -m --cpus",
        arguments: ["docker", "run", "--rm", "-p", "80", "-m", "64m", "--cpus", "1", "bench", "true"],
        environment: environment),
      Candidate(name: "docker ps", arguments: ["docker", "ps"], environment: environment),
    ]
  }

  /// Starts a daemon in network and mount namespaces of its own and waits until it answers.
  private func startDaemon(_ arguments: [String], log: String, answers: () throws -> Void) throws {
    let shell = "ip link set lo up && exec \"$@\""
    let process = try Processes.spawn(
      ["unshare", "--net", "--mount", "sh", "-c", shell, "sh"] + arguments, log: log)
    takeDown.append {
      kill(process, SIGTERM)
      Processes.wait(process)
    }
    for _ in 0..<300 {
      if (try? answers()) != nil { return }
      usleep(100_000)
    }
    throw Processes.Failure(description: "\(arguments[0]) does not answer; see \(log)")
  }

  /// crun and runc on a bundle of the same root file system, namespaces and command.
  private func prepareRuntimes(_ rootfs: String) throws -> [Candidate] {
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
        candidates.append(Candidate(name: "\(runtime) run", arguments: arguments))
      } catch {
        print("\(runtime) does not run on this machine: \(error)")
      }
    }
    return candidates
  }

  private func write(_ text: String) throws {
    if let slash = options.output.lastIndex(of: "/") {
      try Processes.run(["mkdir", "-p", String(options.output[..<slash])])
    }
    let file = linux_open(options.output, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard file >= 0 else { throw Processes.Failure(description: "\(options.output) cannot be written") }
    defer { close(file) }
    let bytes = Array(text.utf8)
    _ = Glibc.write(file, bytes, bytes.count)
    print("\nwritten to \(options.output)")
  }
}
