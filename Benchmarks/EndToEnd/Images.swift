import BenchmarkSupport
import CLinux
import Contracts
import Glibc
import Wire

/// An image pulled and unpacked, and what a container writes.
extension Suite {
  private static let layers = 4
  private static let megabytes = 60
  private static let image = "127.0.0.1:5000/benchmark:latest"

  /// Pulls an image of a few layers from a registry of this machine, which each peer has on its own loopback interface.
  func images(_ daemons: [Peer], until deadline: Double) throws {
    let programs = ["docker-registry", "skopeo", "python3", "nsenter"]
    if let missing = programs.first(where: { !Processes.isInstalled($0) }) {
      return omit("images: \(missing) is not installed; `make bench-peers` installs it")
    }
    let registry = "\(peers.directory)/registry"
    let layout = "\(peers.directory)/layout"
    try Processes.run(["mkdir", "-p", registry, layout])
    guard let maker = imageMaker else { return omit("images: Benchmarks/Pull/make-image is not there") }
    let made = try Processes.output([maker, layout, "\(Self.layers)", "\(Self.megabytes)"])
    // "N bytes in N layers, N compressed"
    let numbers = made.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }
    guard numbers.count == 3 else { throw Processes.Failure(description: "make-image says \(made)") }
    for peer in daemons { try serve(registry, beside: peer) }
    try Processes.run(
      daemons[0].besideContainers([
        "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:\(layout):latest",
        "docker://\(Self.image)",
      ]), log: "\(peers.directory)/skopeo.log")
    var times: [String: [Double]] = [:]
    for round in 0..<6 where round < 2 || Processes.microseconds() < deadline {
      for peer in daemons {
        sync()
        let time = try peer.time(peer.pull + [Self.image])
        if round > 0 { times[peer.name, default: []].append(time) }
        try peer.run(["rmi", Self.image])
        try settle(peer)
      }
    }
    print("\nan image of \(Self.layers) layers, \(numbers[0] / 1_000_000) MB unpacked, from a registry, milliseconds")
    for peer in daemons {
      let samples = Samples(times[peer.name] ?? [])
      let range = [Int(samples.percentile(0)), Int(samples.percentile(1))]
      results.images.append(
        Results.Image(
          peer: peer.name, layers: Self.layers, packed: numbers[2], unpacked: numbers[0], pull: Int(samples.median),
          pullRange: range))
      print(Text.row(peer.name, Text.decimal(samples.median / 1000, 0)))
    }
  }

  /// Beside the sources: the benchmarks are run in the project's directory.
  private var imageMaker: String? {
    ["Benchmarks/Pull/make-image", "\(options.binaries)/../../Benchmarks/Pull/make-image"]
      .first { access($0, X_OK) == 0 }
  }

  private func serve(_ storage: String, beside peer: Peer) throws {
    let configuration = "\(peers.directory)/registry.yml"
    try Processes.write(
      """
      version: 0.1
      log: {level: error}
      storage: {filesystem: {rootdirectory: \(storage)}}
      http: {addr: 127.0.0.1:5000}

      """, to: configuration)
    let process = try Processes.spawn(
      peer.besideContainers(["docker-registry", "serve", configuration]), log: "\(peers.directory)/registry.log",
      isApart: true)
    peers.afterwards {
      kill(process, SIGKILL)
      Processes.wait(process)
    }
    for _ in 0..<100 {
      let line = ": 0100007F:1388 00000000:0000 0A"
      if Processes.read("/proc/\(process)/net/tcp").contains(line) { return }
      // A registry that listens on the IPv6 socket for both.
      if Processes.read("/proc/\(process)/net/tcp6").contains(":1388 ") { return }
      usleep(50_000)
    }
    throw Processes.Failure(description: "docker-registry does not answer; see \(peers.directory)/registry.log")
  }

  /// The engine deletes layers in the background; nobody waits for that but these measurements.
  private func settle(_ peer: Peer) throws {
    if !peer.isEngine { return }
    for _ in 0..<100 where try peer.output(["system", "check"]).contains("draining") { usleep(50_000) }
  }

  // MARK: Logs

  private static let lines = 200_000
  private static let line = String(repeating: "a line of a log ", count: 6)

  /// A container that writes lines as fast as its log driver takes them, and `logs` that reads them all back.
  func logs(_ daemons: [Peer], until deadline: Double) throws {
    let bytes = Self.lines * (Self.line.utf8.count + 1)
    print("\nlogs: \(Self.lines) lines, \(bytes / 1_000_000) MB; MB a second")
    print(Text.row("", "write", "read"))
    var written: [String: [Double]] = [:]
    var read: [String: [Double]] = [:]
    for round in 0..<4 where round < 2 || Processes.microseconds() < deadline {
      for peer in daemons {
        let begin = Processes.microseconds()
        // Without a limit the engine keeps the last 30 MB.
        try peer.run(
          ["run", "-d", "--name", "writer", "--log-opt", "max-size=1g", "bench"]
            + ["sh", "-c", "yes '\(Self.line)' | head -n \(Self.lines)"])
        try peer.run(peer.wait + ["writer"])
        let time = Processes.microseconds() - begin
        if round == 0 {
          let count = try peer.output(["logs", "writer"]).utf8.reduce(0) { $1 == 10 ? $0 + 1 : $0 }
          guard count == Self.lines else {
            throw Processes.Failure(description: "\(peer.name) logs has \(count) of \(Self.lines) lines")
          }
        } else {
          written[peer.name, default: []].append(time)
          read[peer.name, default: []].append(try peer.time(["logs", "writer"]))
        }
        try peer.run(peer.removal + ["writer"])
      }
    }
    for peer in daemons {
      let log = Results.Log(
        peer: peer.name, lines: Self.lines, bytes: bytes, write: Int(Samples(written[peer.name] ?? []).median),
        read: Int(Samples(read[peer.name] ?? []).median))
      results.logs.append(log)
      print(Text.row(peer.name, Text.decimal(log.writeRate, 1), Text.decimal(log.readRate, 1)))
    }
  }
}

extension Results.Log {
  /// Megabytes a second.
  var writeRate: Double { Double(bytes) / Double(max(1, write)) }
  var readRate: Double { Double(bytes) / Double(max(1, read)) }
}
