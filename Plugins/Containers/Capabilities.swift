import Contracts
import LinuxSystem

/// The capabilities of a container's processes (capabilities(7)).
enum Capabilities {
  /// Docker's 14 defaults.
  static let standard = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
  ]

  /// Every capability in the order of its number in linux/capability.h.
  static let all = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
  ]

  /// What the engine itself may give: a capability outside its bounding set cannot be had by any child.
  static let available: [String] = {
    guard let status = try? Files.readText("/proc/self/status"),
      let line = status.split(separator: "\n").first(where: { $0.hasPrefix("CapBnd:") }),
      let mask = UInt64(line.dropFirst(7).trimmingWhitespace(), radix: 16)
    else { return all }
    return all.enumerated().filter { mask & (1 << UInt64($0.offset)) != 0 }.map(\.element)
  }()

  /// Docker's rules: `ALL` may be added or dropped as a whole; what is named on the other side then still counts.
  ///
  /// - Parameter available: what `ALL` stands for.
  /// - Throws: `invalidArgument` that names an unknown capability.
  static func resolve(
    added: [String], dropped: [String], isPrivileged: Bool, available: @autoclosure () -> [String] = available
  ) throws(EngineError) -> [String] {
    let added = try normalize(added)
    let dropped = try normalize(dropped)
    if isPrivileged { return available() }
    var result: [String]
    if added.contains("ALL") {
      result = available().filter { !dropped.contains($0) }
    } else if dropped.contains("ALL") {
      result = []
    } else {
      result = standard.filter { !dropped.contains($0) }
    }
    for name in added where name != "ALL" && !result.contains(name) { result.append(name) }
    return result
  }

  private static func normalize(_ names: [String]) throws(EngineError) -> [String] {
    var result: [String] = []
    for name in names {
      let upper = name.uppercased()
      if upper == "ALL" {
        result.append(upper)
        continue
      }
      let full = upper.hasPrefix("CAP_") ? upper : "CAP_\(upper)"
      guard all.contains(full) else { throw EngineError(.invalidArgument, "invalid capability: \"\(name)\"") }
      result.append(full)
    }
    return result
  }
}

extension StringProtocol {
  /// Without spaces and tabs at both ends.
  func trimmingWhitespace() -> String {
    let isSpace = { (character: Character) in character == " " || character == "\t" }
    let front = drop(while: isSpace)
    guard let last = front.lastIndex(where: { !isSpace($0) }) else { return "" }
    return String(front[...last])
  }
}
