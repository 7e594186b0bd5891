import Contracts
import Glibc
import LinuxSystem

/// New processes in new namespaces, and the filter that they load.
enum ProcessProbes: ProbeGroup {
  static let name = "namespaces"

  private struct Kind {
    var name: String
    var clone: Int32 = 0
    var unshare: Int32 = 0
  }

  private static let kinds = [
    Kind(name: "new process"), Kind(name: "namespace mnt", clone: CLONE_NEWNS),
    Kind(name: "namespace uts", clone: CLONE_NEWUTS), Kind(name: "namespace ipc", clone: CLONE_NEWIPC),
    Kind(name: "namespace pid", clone: CLONE_NEWPID), Kind(name: "namespace net", clone: CLONE_NEWNET),
    // The first process of a container makes this one itself, after it has entered its groups.
    Kind(name: "namespace cgroup", unshare: CLONE_NEWCGROUP), Kind(name: "namespace user", clone: CLONE_NEWUSER),
    Kind(
      name: "all namespaces", clone: CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET,
      unshare: CLONE_NEWCGROUP),
  ]

  static let figures = kinds.map { FigureName(name: $0.name, floor: "clone3, until the process runs") }

  static func probes(_ names: Set<String>, _ stage: Stage) throws -> [Probe] {
    zip(kinds, figures).filter { names.contains($0.0.name) }.map { kind, figure in
      Probe(.processes, figure) { side in
        try stage.worker.run(
          .process(
            side, clone: UInt64(UInt32(bitPattern: kind.clone)), unshare: UInt64(UInt32(bitPattern: kind.unshare))))
      }
    }
  }
}

/// What the process loads before it becomes the container's command.
enum SeccompProbes: ProbeGroup {
  static let name = "seccomp"
  static let figures = [FigureName(name: "seccomp load", floor: "seccomp(SECCOMP_SET_MODE_FILTER)")]

  static func probes(_ names: Set<String>, _ stage: Stage) throws -> [Probe] {
    [Probe(.processes, figures[0]) { try stage.worker.run(.seccomp($0)) }]
  }
}
