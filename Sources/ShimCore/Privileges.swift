import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// Takes from the process what it must not have: limits, capabilities, identity, system calls.
enum Privileges {
  private static let lastCapability = 63
  private static let setPCap: UInt64 = 1 << 8
  private static let sysAdmin: UInt64 = 1 << 21

  /// Sets the resource limits. Where this process may not raise a hard limit (no CAP_SYS_RESOURCE), the limit becomes
  /// what is possible.
  static func set(_ limits: [ProcessPlan.Limit], warn: (String) -> Void) throws(SetupFailure) {
    for limit in limits {
      var wanted = rlimit(rlim_cur: rlim_t(limit.soft), rlim_max: rlim_t(limit.hard))
      let resource = __rlimit_resource_t(UInt32(bitPattern: limit.resource))
      if setrlimit(resource, &wanted) == 0 { continue }
      guard errno == EPERM else {
        throw SetupFailure(.invalidArgument, "setting the resource limit \(limit.resource): \(reason(errno))")
      }
      var present = rlimit()
      getrlimit(resource, &present)
      wanted.rlim_max = min(rlim_t(limit.hard), present.rlim_max)
      wanted.rlim_cur = min(rlim_t(limit.soft), wanted.rlim_max)
      if setrlimit(resource, &wanted) != 0 {
        throw SetupFailure(.internalFailure, "setting the resource limit \(limit.resource): \(reason(errno))")
      }
      warn("the resource limit \(limit.resource) was lowered to \(wanted.rlim_max): the engine may not raise it")
    }
  }

  /// Sets /proc/self/oom_score_adj; a value that this process may not set becomes the nearest one that it may.
  static func setScore(_ score: Int32, warn: (String) -> Void) throws(SetupFailure) {
    do {
      try Files.writeControl("/proc/self/oom_score_adj", String(score))
    } catch  where error.number == EACCES || error.number == EPERM {
      // Lowering needs CAP_SYS_RESOURCE: the score stays what it was.
      warn("the OOM score adjustment \(score) was not applied: the engine may not lower it")
    } catch {
      throw SetupFailure(.internalFailure, "setting the OOM score adjustment: \(error)")
    }
  }

  /// Becomes the user, keeping the capabilities that `finish` takes away; the bounding set is cut here.
  static func become(_ identity: Identity, capabilities: UInt64) throws(SetupFailure) {
    try stage("dropping capabilities") { () throws(SystemCallError) in
      for number in 0...lastCapability where capabilities & (1 << UInt64(number)) == 0 {
        if linux_prctl(PR_CAPBSET_DROP, UInt(number), 0, 0, 0) == 0 { continue }
        let failure = errno
        // A number past the last that the kernel knows, or one that is gone already.
        let present = linux_prctl(PR_CAPBSET_READ, UInt(number), 0, 0, 0)
        if present < 0 { break }
        if present == 1 { throw SystemCallError(call: "prctl(PR_CAPBSET_DROP)", number: failure) }
      }
      try SystemCallError.check("prctl(PR_SET_KEEPCAPS)") { linux_prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) }
    }
    try stage("changing the user") { () throws(SystemCallError) in
      // Always, also with none: what the engine was started with must not reach the container.
      try SystemCallError.check("setgroups") {
        linux_setgroups(identity.supplementary.count, identity.supplementary)
      }
      try SystemCallError.check("setresgid") { linux_setresgid(identity.group, identity.group, identity.group) }
      try SystemCallError.check("setresuid") { linux_setresuid(identity.user, identity.user, identity.user) }
    }
    try stage("keeping capabilities") { () throws(SystemCallError) in
      var effective: UInt64 = 0
      var permitted: UInt64 = 0
      var inheritable: UInt64 = 0
      try SystemCallError.check("capget") { linux_capget(&effective, &permitted, &inheritable) }
      // CAP_SYS_ADMIN loads the filter without no_new_privs; `finish` takes it away.
      let kept = permitted & (capabilities | sysAdmin)
      try SystemCallError.check("capset") { linux_capset(kept, kept, 0) }
    }
  }

  /// The last steps before execve(2): the filter, then the final capabilities. Inheritable stays empty, so that no file
  /// capability of the image adds to what was given (CVE-2022-24769).
  static func finish(_ plan: ProcessPlan) throws(SetupFailure) {
    if plan.noNewPrivileges {
      try stage("setting no_new_privs") { () throws(SystemCallError) in
        try SystemCallError.check("prctl(PR_SET_NO_NEW_PRIVS)") { linux_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }
      }
    }
    if !plan.seccomp.isEmpty { try load(plan.seccomp) }
    try stage("setting capabilities") { () throws(SystemCallError) in
      var effective: UInt64 = 0
      var permitted: UInt64 = 0
      var inheritable: UInt64 = 0
      try SystemCallError.check("capget") { linux_capget(&effective, &permitted, &inheritable) }
      let kept = permitted & plan.capabilities
      try SystemCallError.check("capset") { linux_capset(kept, kept, 0) }
    }
  }

  static func load(_ program: [UInt8]) throws(SetupFailure) {
    try stage("loading the seccomp filter") { () throws(SystemCallError) in
      var program = program
      let count = program.count / MemoryLayout<sock_filter>.stride
      try SystemCallError.check("seccomp") {
        program.withUnsafeMutableBytes { bytes in
          var header = sock_fprog()
          header.len = UInt16(truncatingIfNeeded: count)
          header.filter = bytes.baseAddress?.assumingMemoryBound(to: sock_filter.self)
          return linux_seccomp(UInt32(SECCOMP_SET_MODE_FILTER), 0, &header)
        }
      }
    }
  }
}
