import Contracts
import Glibc

/// The kernel's numbers behind the names of the runtime specification.
enum KernelNames {
  /// capabilities(7), in the order of their numbers.
  private static let capabilities = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
  ]
  private static let capabilityNumbers = Dictionary(
    uniqueKeysWithValues: capabilities.enumerated().map { ($0.element, UInt64($0.offset)) })

  /// getrlimit(2) on x86 and arm.
  private static let limits: [String: Int32] = [
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
  ]

  /// One bit a capability; with or without `CAP_`, in any case.
  static func capabilityMask(_ names: [String]) throws(EngineError) -> UInt64 {
    var mask: UInt64 = 0
    for name in names {
      let upper = name.uppercased()
      guard let number = capabilityNumbers[upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper] else {
        throw EngineError(.invalidArgument, "invalid capability: \"\(name)\": there is no such capability")
      }
      mask |= 1 << number
    }
    return mask
  }

  static func limit(_ name: String) throws(EngineError) -> Int32 {
    guard let number = limits[name] else { throw EngineError(.invalidArgument, "invalid ulimit type: \(name)") }
    return number
  }

  static func flag(_ namespace: RuntimeSpecification.Namespace) -> UInt32 {
    switch namespace {
    case .mount: UInt32(bitPattern: CLONE_NEWNS)
    case .pid: UInt32(bitPattern: CLONE_NEWPID)
    case .uts: UInt32(bitPattern: CLONE_NEWUTS)
    case .ipc: UInt32(bitPattern: CLONE_NEWIPC)
    case .cgroup: UInt32(bitPattern: CLONE_NEWCGROUP)
    case .network: UInt32(bitPattern: CLONE_NEWNET)
    }
  }

  /// `ctrl-p,ctrl-q` as bytes.
  static func detachKeys(_ text: String) throws(EngineError) -> [UInt8] {
    var keys: [UInt8] = []
    for key in text.split(separator: ",", omittingEmptySubsequences: true) {
      let bytes = Array(key.utf8)
      if bytes.count == 1 {
        keys.append(bytes[0])
      } else if key.lowercased().hasPrefix("ctrl-"), bytes.count == 6 {
        let letter = key.lowercased().utf8.last ?? 0
        switch letter {
        case 97...122: keys.append(letter - 96)
        case 64: keys.append(0)
        case 91...95: keys.append(letter - 64)
        default: throw unknownKey(key)
        }
      } else {
        throw unknownKey(key)
      }
    }
    return keys
  }

  private static func unknownKey(_ key: Substring) -> EngineError {
    EngineError(.invalidArgument, "invalid detach keys: unknown character: '\(key)'")
  }
}
