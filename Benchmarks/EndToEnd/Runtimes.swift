import BenchmarkSupport
import CLinux
import Glibc

/// The peers without a daemon.
extension Peers {
  /// Podman with its state and its network apart from any other Podman of the machine.
  ///
  /// Debian's crun takes a machine with the hierarchies of cgroup v1 and a unified one beside them for neither, so that
  /// one is not mounted where Podman runs; /run and /dev/shm are its own, because its locks lie there.
  func startPodman() throws -> Peer? {
    try attempt("podman", programs: ["podman", "unshare", "nsenter", "ip"]) {
      let configuration = "\(directory)/containers.conf"
      try Processes.write("[containers]\ndefault_ulimits = [\(Self.limits)]\n", to: configuration)
      let environment = ["CONTAINERS_CONF=\(configuration)"]
      let setUp =
        "mount --make-rprivate / && { umount -l /sys/fs/cgroup/unified 2>/dev/null || true; }"
        + " && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm &&"
      let arguments = [
        "podman", "--root", "\(directory)/podman", "--runroot", "/run/podman-benchmark", "--storage-driver", "overlay",
        "--cgroup-manager", "cgroupfs", "--events-backend", "file",
      ]
      let wasThere = access("/sys/fs/cgroup/memory/libpod_parent", F_OK) == 0
      afterwards { [unowned self] in if !wasThere { removeGroups("libpod_parent") } }
      // It holds the namespaces.
      let home = try Processes.spawn(
        ["unshare", "--net", "--mount", "sh", "-c", "ip link set lo up && \(setUp) exec sleep 100000"], isApart: true)
      afterwards {
        kill(home, SIGKILL)
        Processes.wait(home)
      }
      let client = ["nsenter", "--net=/proc/\(home)/ns/net", "--mount=/proc/\(home)/ns/mnt"] + arguments
      // The namespaces are there when the process that holds them has become what it is to be.
      for _ in 0..<100 where !Processes.read("/proc/\(home)/cmdline").hasPrefix("sleep") { usleep(20_000) }
      for arguments in [["import", "\(directory)/rootfs.tar", "bench"], ["run", "--rm", "bench", "true"]] {
        try Processes.run(client + arguments, environment: environment, log: "\(directory)/podman.log")
      }
      let directory = directory
      let version = Self.version(["podman", "--version"])
      var peer = Peer(
        name: "podman", version: version, client: client, environment: environment, home: home, crowds: [0, 1, 50]
      ) { process in
        process.command.contains(directory) && process.command.split(separator: " ").first?.hasSuffix("conmon") == true
      }
      peer.removal = ["rm", "-f", "-t", "0"]
      peer.pull = ["pull", "-q", "--tls-verify=false"]
      peer.wait = ["wait", "--interval", "10ms"]
      note("podman", version: version)
      let found = peer
      afterwards { try? found.removeAll() }
      return peer
    }
  }

  /// Podman gives every container a million files and processes unless it is told otherwise, which fails where limits
  /// may not be raised.
  private static var limits: String {
    // RLIMIT_NOFILE and RLIMIT_NPROC of getrlimit(2) on x86 and arm.
    [("nofile", 7), ("nproc", 6)].map { (name, resource: UInt32) in
      var limit = rlimit()
      getrlimit(__rlimit_resource_t(resource), &limit)
      let most = min(limit.rlim_max, 1024)
      return "\"\(name)=\(most):\(most)\""
    }.joined(separator: ", ")
  }

  /// crun and runc on a bundle of the same root file system, namespaces and command, and bubblewrap on the root file
  /// system itself, which it only gives namespaces.
  ///
  /// After this the processes started here see no unified hierarchy, without which crun takes the machine for v1.
  func prepareRuntimes() throws -> [Candidate] {
    guard unshare(CLONE_NEWNS) == 0 else {
      for name in ["crun", "runc", "bubblewrap"] { note(name, absence: "no mount namespace can be made") }
      return []
    }
    mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil)
    umount2("/sys/fs/cgroup/unified", Int32(MNT_DETACH))
    var candidates: [Candidate] = []
    for runtime in ["crun", "runc"] {
      candidates += try attempt(runtime, programs: [runtime]) { try bundle(runtime) }.map { [$0] } ?? []
    }
    let wrapped = try attempt("bubblewrap", programs: ["bwrap"]) {
      let arguments = [
        "bwrap", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--unshare-ipc", "--unshare-pid",
        "--unshare-net", "--unshare-uts", "--unshare-cgroup-try", "true",
      ]
      try Processes.run(arguments, log: "\(directory)/bubblewrap.log")
      note("bubblewrap", version: Self.version(["bwrap", "--version"]))
      return Candidate("bubblewrap") { try Processes.time(arguments, environment: []) }
    }
    return candidates + (wrapped.map { [$0] } ?? [])
  }

  private func bundle(_ runtime: String) throws -> Candidate {
    let bundle = "\(directory)/\(runtime)"
    try Processes.run(["mkdir", "-p", bundle])
    try Processes.run(["cp", "-a", rootfs, "\(bundle)/rootfs"])
    try Processes.run(["sh", "-c", "cd \(bundle) && \(runtime) spec"])
    try Processes.run([
      "sed", "-i", "s/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"true\"/", "\(bundle)/config.json",
    ])
    let arguments = [runtime, "--root", "\(directory)/\(runtime)-state", "run", "-b", bundle, "bench"]
    try Processes.run(arguments, log: "\(directory)/\(runtime).log")
    note(runtime, version: Self.version([runtime, "--version"]))
    return Candidate("\(runtime) run") { try Processes.time(arguments, environment: []) }
  }
}
