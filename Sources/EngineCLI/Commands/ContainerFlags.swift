import Contracts

/// The flags that say what a container is to be: those of `run` and `create`.
enum ContainerFlags {
  static func create() -> [Flag] { identity() + process() + resources() + storage() + network() + security() + later() }

  static func run() -> [Flag] {
    create() + [
      .boolean("detach", "d", "Run container in background and print container ID"),
      .string("detach-keys", nil, "Override the key sequence for detaching a container", check: DetachKeys.check),
      .boolean(
        "plan", nil, "Print the messages that the run would send and what each would change, and change nothing"),
      .boolean("sig-proxy", nil, "Proxy received signals to the process", initially: true),
    ]
  }

  private static func identity() -> [Flag] {
    [
      .string("name", nil, "Assign a name to the container"),
      .list("label", "l", "Set meta data on a container", check: KeyValues.checkLabel),
      .list("label-file", nil, "Read in a line delimited file of labels"),
      CommandTrace.flag,
      .string("cidfile", nil, "Write the container ID to the file"),
      .boolean("rm", nil, "Automatically remove the container and its associated anonymous volumes when it exits"),
      .string("restart", nil, "Restart policy to apply when a container exits (default \"no\")"),
      .string(
        "pull", nil, "Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")"),
      .string("platform", nil, "Set platform if server is multi-platform capable"),
      .boolean("quiet", "q", "Suppress the pull output"),
      .string("log-driver", nil, "Logging driver for the container"),
      .list("log-opt", nil, "Log driver options"),
    ]
  }

  private static func process() -> [Flag] {
    [
      .list("attach", "a", "Attach to STDIN, STDOUT or STDERR") { (text) throws(EngineError) in
        guard ["stdin", "stdout", "stderr"].contains(text.lowercased()) else {
          throw EngineError(.invalidArgument, "valid streams are STDIN, STDOUT and STDERR")
        }
      },
      .boolean("interactive", "i", "Keep STDIN open even if not attached"),
      .boolean("tty", "t", "Allocate a pseudo-TTY"),
      .list("env", "e", "Set environment variables", check: KeyValues.checkEnvironment),
      .list("env-file", nil, "Read in a file of environment variables"),
      .string("entrypoint", nil, "Overwrite the default ENTRYPOINT of the image"),
      .string("workdir", "w", "Working directory inside the container"),
      .string("user", "u", "Username or UID (format: <name|uid>[:<group|gid>])"),
      .list("group-add", nil, "Add additional groups to join"),
      .boolean("init", nil, "Run an init inside the container that forwards signals and reaps processes"),
      .string("stop-signal", nil, "Signal to stop the container"),
      .integer("stop-timeout", nil, "Timeout (in seconds) to stop a container"),
      .string("pid", nil, "PID namespace to use"),
      .string("ipc", nil, "IPC mode to use"),
      .string("uts", nil, "UTS namespace to use"),
      .string(
        "cgroupns", nil,
        "Cgroup namespace to use (host|private)\n'host':    Run the container in the host's cgroup namespace\n"
          + "'private': Run the container in its own private cgroup namespace (default)"),
    ]
  }

  private static func resources() -> [Flag] {
    let size: @Sendable (String) throws(EngineError) -> Void = { (text) throws(EngineError) in
      _ = try ByteSize(parsing: text)
    }
    return [
      .string("cpus", nil, "Number of CPUs", type: "decimal") { (text) throws(EngineError) in
        _ = try CPUCount(parsing: text)
      },
      .integer("cpu-period", nil, "Limit CPU CFS (Completely Fair Scheduler) period"),
      .integer("cpu-quota", nil, "Limit CPU CFS (Completely Fair Scheduler) quota"),
      .integer("cpu-shares", "c", "CPU shares (relative weight)"),
      .string("cpuset-cpus", nil, "CPUs in which to allow execution (0-3, 0,1)"),
      .string("cpuset-mems", nil, "MEMs in which to allow execution (0-3, 0,1)"),
      .string("memory", "m", "Memory limit", type: "bytes", check: size),
      .string("memory-reservation", nil, "Memory soft limit", type: "bytes", check: size),
      .string(
        "memory-swap", nil, "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", type: "bytes"
      ) { (text) throws(EngineError) in _ = try ByteSize.parseAllowingUnlimited(text) },
      .string("kernel-memory", nil, "Kernel memory limit (deprecated, ignored)", type: "bytes", check: size),
      .integer("pids-limit", nil, "Tune container pids limit (set -1 for unlimited)"),
      .string(
        "blkio-weight", nil, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
        type: "uint16"
      ) { (text) throws(EngineError) in _ = try Integer.parse(text, as: UInt16.self) },
      .boolean("oom-kill-disable", nil, "Disable OOM Killer"),
      .integer("oom-score-adj", nil, "Tune host's OOM preferences (-1000 to 1000)"),
      .list("ulimit", nil, "Ulimit options (default [])", type: "ulimit") { (text) throws(EngineError) in
        _ = try Ulimit.parse(text)
      },
      .string("shm-size", nil, "Size of /dev/shm", type: "bytes", check: size),
    ]
  }

  /// Those that can change while a container runs.
  static func update() -> [Flag] {
    let names: Set<String> = [
      "cpus", "cpu-period", "cpu-quota", "cpu-shares", "cpuset-cpus", "cpuset-mems", "memory", "memory-reservation",
      "memory-swap", "pids-limit", "blkio-weight",
    ]
    return resources().filter { names.contains($0.name) } + [
      .string("restart", nil, "Restart policy to apply when a container exits")
    ]
  }

  private static func storage() -> [Flag] {
    [
      .list("volume", "v", "Bind mount a volume"),
      .list("mount", nil, "Attach a filesystem mount to the container", type: "mount") { (text) throws(EngineError) in
        _ = try MountSpecification.parse(text)
      },
      .list("tmpfs", nil, "Mount a tmpfs directory"),
      .list("volumes-from", nil, "Mount volumes from the specified container(s)"),
      .string("volume-driver", nil, "Optional volume driver for the container"),
      .boolean("read-only", nil, "Mount the container's root filesystem as read only"),
    ]
  }

  private static func network() -> [Flag] {
    [
      .list(
        "network", nil, "Connect a container to a network", type: "network", aliases: ["net"]
      ) { (text) throws(EngineError) in _ = try NetworkSpecification.parse(text) },
      .list("network-alias", nil, "Add network-scoped alias for the container", aliases: ["net-alias"]),
      .string("ip", nil, "IPv4 address (e.g., 172.30.100.104)"),
      .string("mac-address", nil, "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
      .list("publish", "p", "Publish a container's port(s) to the host"),
      .boolean("publish-all", "P", "Publish all exposed ports to random ports"),
      .list("expose", nil, "Expose a port or a range of ports"),
      .string("hostname", "h", "Container host name"),
      .string("domainname", nil, "Container NIS domain name"),
      .list("add-host", nil, "Add a custom host-to-IP mapping (host:ip)") { (text) throws(EngineError) in
        _ = try NetworkSpecification.extraHost(text)
      },
      .list("dns", nil, "Set custom DNS servers", check: NetworkSpecification.dnsServer),
      .list("dns-option", nil, "Set DNS options", aliases: ["dns-opt"]),
      .list("dns-search", nil, "Set custom DNS search domains", check: NetworkSpecification.dnsSearch),
    ]
  }

  private static func security() -> [Flag] {
    [
      .boolean("privileged", nil, "Give extended privileges to this container"),
      .list("cap-add", nil, "Add Linux capabilities"),
      .list("cap-drop", nil, "Drop Linux capabilities"),
      .list("security-opt", nil, "Security Options"),
      .list("sysctl", nil, "Sysctl options (default map[])", type: "map") { (text) throws(EngineError) in
        guard text.contains("="), !text.hasPrefix("=") else {
          throw EngineError(.invalidArgument, "sysctl '\(text)' is not allowed")
        }
      },
    ]
  }

  /// Docker's flags that this engine does not have yet.
  private static func later() -> [Flag] {
    [
      "annotation", "blkio-weight-device", "cgroup-parent", "cpu-rt-period", "cpu-rt-runtime", "device",
      "device-cgroup-rule", "device-read-bps", "device-read-iops", "device-write-bps", "device-write-iops", "gpus",
      "health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period",
      "health-timeout", "ip6", "isolation", "link", "link-local-ip", "memory-swappiness", "runtime", "storage-opt",
      "userns",
    ].map { Flag.unavailable($0) } + [.ignored("no-healthcheck"), .ignored("disable-content-trust")]
  }
}
