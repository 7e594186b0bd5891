/// One mounted cgroup hierarchy, as /proc/self/mountinfo tells (cgroups(7), proc_pid_mountinfo(5)).
struct CgroupMount: Sendable, Equatable {
  enum Version: String, Sendable {
    case v1
    case v2
  }

  var version: Version
  /// Where it is mounted, without a trailing slash.
  var path: String
  /// The controllers that it carries; none for a unified hierarchy beside v1.
  var controllers: [String]
}

/// Which hierarchies this machine has and which controller is where: v1, v2 or both (hybrid), told controller by
/// controller, because a machine may mount some of them in either.
struct CgroupLayout: Sendable, Equatable {
  var mounts: [CgroupMount]

  /// The names of controllers among a v1 mount's options; everything else there is an option (`xattr`, `name=...`).
  private static let controllerNames: Set<Substring> = [
    "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls", "net_prio",
    "perf_event", "pids", "rdma",
  ]

  /// - Parameters:
  ///   - mountinfo: the content of /proc/self/mountinfo.
  ///   - subsystems: the content of /proc/cgroups: a controller that it says is disabled is left out.
  ///   - unifiedControllers: the content of `cgroup.controllers` of the unified hierarchy mounted at a path.
  init(mountinfo: String, subsystems: String, unifiedControllers: (String) -> String) {
    let disabled = Set(
      subsystems.split(separator: "\n").compactMap { line -> Substring? in
        let fields = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
        return fields.count == 4 && fields[3] == "0" ? fields[0] : nil
      })
    var found: [(device: Substring, isWhole: Bool, mount: CgroupMount)] = []
    for line in mountinfo.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count >= 9, let dash = fields.firstIndex(of: "-"), dash + 3 < fields.count else { continue }
      let path = Self.unescape(fields[4])
      let mount: CgroupMount
      switch fields[dash + 1] {
      case "cgroup":
        let controllers = fields[dash + 3].split(separator: ",")
          .filter { Self.controllerNames.contains($0) && !disabled.contains($0) }
        if controllers.isEmpty { continue }
        mount = CgroupMount(version: .v1, path: path, controllers: controllers.map(String.init))
      case "cgroup2":
        let controllers = unifiedControllers(path).split(whereSeparator: \.isWhitespace).map(String.init)
        mount = CgroupMount(version: .v2, path: path, controllers: controllers)
      default: continue
      }
      // A hierarchy may be mounted several times (bind mounts into containers); the one that shows it whole counts.
      if let known = found.firstIndex(where: { $0.device == fields[2] }) {
        if !found[known].isWhole && fields[3] == "/" { found[known] = (fields[2], true, mount) }
      } else {
        found.append((fields[2], fields[3] == "/", mount))
      }
    }
    mounts = found.map(\.mount)
  }

  /// The unified hierarchy, with or without controllers.
  var unified: CgroupMount? { mounts.first { $0.version == .v2 } }

  /// `1`, `2` or `hybrid`, as `info` shows it; empty where no hierarchy is mounted.
  var version: String {
    switch (mounts.contains { $0.version == .v1 }, unified != nil) {
    case (true, true): "hybrid"
    case (true, false): "1"
    case (false, true): "2"
    case (false, false): ""
    }
  }

  /// Controller name to `v1` or `v2`.
  var controllers: [String: String] {
    var result: [String: String] = [:]
    for mount in mounts { for controller in mount.controllers { result[controller] = mount.version.rawValue } }
    return result
  }

  /// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits.
  private static func unescape(_ text: Substring) -> String {
    guard text.contains("\\") else { return String(text) }
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "\\"), rest.count >= 3,
        let value = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
      {
        bytes.append(value)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
