import Contracts
import Glibc
import LinuxSystem

/// Whole commands of an engine of the benchmarks' own, as a user types them.
enum ContainerProbes: ProbeGroup {
  static let name = "containers"
  private static let exec = FigureName(name: "exec", floor: "a process in the container's namespaces, execve, its end")
  private static let isolated = FigureName(
    name: "container, no network", floor: "namespaces, cgroups, mounts, masks, seccomp, execve, the end of all")
  private static let bridged = FigureName(
    name: "container, bridge", floor: "the same, with a veth on a bridge, an address and a route")
  static let figures = [exec, isolated, bridged]

  static func probes(_ names: Set<String>, _ stage: Stage) async throws -> [Probe] {
    guard let engine = stage.engine else { return [] }
    var probes: [Probe] = []
    if names.contains(exec.name) {
      probes += try await stage.attempt([exec]) {
        let target = try engine.startTarget()
        let groups = groups(of: target, stage.sandbox.cgroups)
        return [
          Probe(.containers, exec) { side in
            switch side {
            case .engine: try engine.run(["exec", "target", "/bin/true"])
            case .raw: try stage.worker.run(.exec(pid: target, tasks: groups.tasks, unified: groups.unified))
            }
          }
        ]
      }
    }
    for (figure, flags) in [(isolated, ["--network", "none"]), (bridged, [])] where names.contains(figure.name) {
      probes.append(
        Probe(.containers, figure) { side in
          switch side {
          case .engine: try engine.run(["run", "--rm"] + flags + ["bench", "/bin/true"])
          case .raw: try stage.worker.run(.container(hasNetwork: flags.isEmpty))
          }
        })
    }
    return probes
  }

  /// The groups that a process is in (cgroups(7), /proc/pid/cgroup) among those that the engine made.
  private static func groups(of process: Int32, _ places: CgroupPlaces) -> (tasks: [String], unified: String) {
    var result: (tasks: [String], unified: String) = ([], "")
    for line in ((try? Files.readText("/proc/\(process)/cgroup")) ?? "").split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3, parts[2].contains("/engine-") else { continue }
      for hierarchy in places.hierarchies {
        let path = "\(hierarchy.path)\(parts[2])"
        if hierarchy.isUnified {
          if parts[1].isEmpty, Files.isDirectory(path) { result.unified = path }
        } else if hierarchy.controllers.contains(where: { parts[1].split(separator: ",").contains(Substring($0)) }),
          Files.exists("\(path)/tasks")
        {
          result.tasks.append("\(path)/tasks")
        }
      }
    }
    return result
  }
}
