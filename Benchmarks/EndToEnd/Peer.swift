import BenchmarkSupport
import CLinux
import Glibc

/// Something that runs containers and understands Docker's command line.
struct Peer {
  var name: String
  var version: String
  /// The program and its global flags.
  var client: [String]
  var environment: [String] = []
  /// The process in whose network namespace the containers' host is: the daemon, or one that only holds namespaces.
  var home: pid_t
  /// What `rm -f` needs beside, in order not to wait for processes that ignore SIGTERM.
  var removal = ["rm", "-f"]
  /// What `pull` needs for a registry without TLS.
  var pull = ["pull", "-q"]
  /// What `wait` needs in order to look often enough.
  var wait = ["wait"]
  /// The numbers of idle containers with which it is looked at.
  var crowds: [Int]
  /// Whether a process is the peer's own: not the payload of a container.
  var owns: (_ process: (process: pid_t, parent: pid_t, command: String)) -> Bool

  var isEngine: Bool { name == "engine" }

  func time(_ arguments: [String]) throws -> Double {
    try Processes.time(client + arguments, environment: environment)
  }

  func run(_ arguments: [String]) throws { try Processes.run(client + arguments, environment: environment) }

  func output(_ arguments: [String]) throws -> String {
    try Processes.output(client + arguments, environment: environment)
  }

  /// Runs a program of the host beside the containers, in the peer's network namespace.
  func besideContainers(_ arguments: [String]) -> [String] { ["nsenter", "--net=/proc/\(home)/ns/net"] + arguments }

  func address(of container: String) throws -> String {
    let text = try output(["inspect", "--format", "{{.NetworkSettings.IPAddress}}", container])
    return String(text.prefix { !$0.isWhitespace })
  }

  /// Kilobytes of PSS of the daemons and the processes beside containers, and of RSS of the daemons alone.
  var sizes: (proportional: Int, resident: Int) {
    var proportional = 0
    var resident = 0
    for process in Processes.all() where owns(process) {
      proportional += Processes.kilobytes("Pss", of: process.process, in: "smaps_rollup")
      let program = process.command.split(separator: " ").first?.split(separator: "/").last ?? ""
      if !program.contains("shim") && !program.contains("proxy") && program != "conmon" {
        resident += Processes.kilobytes("VmRSS", of: process.process, in: "status")
      }
    }
    return (proportional, resident)
  }

  /// Containers that sleep, `count` of them, some started at once.
  func fill(_ count: Int, atOnce: Int) throws {
    let arguments = client + ["run", "-d", "--label", "fill=1", "bench", "sleep", "100000"]
    try Processes.many(count, atOnce: atOnce, { _ in arguments }, environment: environment)
  }

  /// Removes what `fill` made.
  func empty() throws { try remove(try identifiers(["--filter", "label=fill=1"])) }

  func removeAll() throws { try remove(try identifiers([])) }

  private func identifiers(_ filter: [String]) throws -> [String] {
    try output(["ps", "-aq"] + filter).split(separator: "\n").map(String.init)
  }

  private func remove(_ containers: [String]) throws {
    let size = 10
    let parts = stride(from: 0, to: containers.count, by: size).map {
      containers[$0..<min($0 + size, containers.count)]
    }
    try Processes.many(parts.count, atOnce: 4, { client + removal + parts[$0] }, environment: environment)
  }
}
