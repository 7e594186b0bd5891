import CLinux
import CSeccomp
import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Compiles seccomp filters to the kernel's own form and keeps them: one a set of capabilities, because compiling takes
/// milliseconds and loading a microsecond's fraction of that.
final class SeccompFilters: Sendable {
  private let compiled = Mutex<[UInt64: [UInt8]]>([:])

  /// The filter's `struct sock_filter`s, or empty where nothing is filtered.
  func program(
    _ policy: RuntimeSpecification.SeccompPolicy, capabilities: UInt64, isPrivileged: Bool
  ) throws(EngineError) -> [UInt8] {
    if isPrivileged { return [] }
    switch policy {
    case .unconfined: return []
    case .profile:
      throw EngineError(
        .unsupported, "a seccomp profile of one's own is not supported yet: use the default or seccomp=unconfined")
    case .standard:
      if let program = compiled.withLock({ $0[capabilities] }) { return program }
      let program: [UInt8]
      do {
        program = try Self.compile(capabilities)
      } catch {
        throw EngineError(.internalFailure, "the seccomp filter cannot be compiled: \(error)")
      }
      compiled.withLock { $0[capabilities] = program }
      return program
    }
  }

  private static func compile(_ capabilities: UInt64) throws(SystemCallError) -> [UInt8] {
    guard let filter = seccomp_init(errno(EPERM)) else {
      throw SystemCallError(call: "seccomp_init", number: ENOMEM)
    }
    defer { seccomp_release(filter) }
    #if arch(x86_64)
      try check("seccomp_arch_add", seccomp_arch_add(filter, UInt32(AUDIT_ARCH_I386)))
      try check("seccomp_arch_add", seccomp_arch_add(filter, UInt32(SCMP_ARCH_X32)))
    #elseif arch(arm64)
      try check("seccomp_arch_add", seccomp_arch_add(filter, UInt32(AUDIT_ARCH_ARM)))
    #endif
    // A binary tree over the numbers: some nine comparisons a call instead of three hundred.
    try check("seccomp_attr_set", seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2))
    func has(_ capability: Int) -> Bool { capabilities & (1 << UInt64(capability)) != 0 }
    for name in SeccompRules.always { try add(filter, allow, name) }
    var granted: Set<String> = []
    for (capability, calls) in SeccompRules.byCapability where has(capability) {
      for name in calls where granted.insert(name).inserted { try add(filter, allow, name) }
    }
    for persona in SeccompRules.personalities {
      try add(filter, allow, "personality", [compare(0, SCMP_CMP_EQ, persona)])
    }
    if !granted.contains("clone") {
      try add(filter, allow, "clone", [compare(0, SCMP_CMP_MASKED_EQ, SeccompRules.namespaceFlags, 0)])
      // Its flags are in memory, where a filter can't look: ENOSYS makes the C library take clone(2) instead.
      try add(filter, errno(ENOSYS), "clone3")
    }
    let families = SeccompRules.refusedFamilies.sorted()
    // One rule a gap: comparisons of one argument are all of a rule's or none.
    var lowest: UInt64 = 0
    for family in families {
      if family > lowest + 1 {
        for number in lowest..<family where family - lowest <= 2 {
          try add(filter, allow, "socket", [compare(0, SCMP_CMP_EQ, number)])
        }
        if family - lowest > 2 { try add(filter, allow, "socket", [compare(0, SCMP_CMP_LT, family)]) }
      } else {
        try add(filter, allow, "socket", [compare(0, SCMP_CMP_EQ, lowest)])
      }
      lowest = family + 1
    }
    try add(filter, allow, "socket", [compare(0, SCMP_CMP_GE, lowest)])
    // The 32-bit form of every socket call, whose arguments are in memory.
    try add(filter, allow, "socketcall")
    return try export(filter)
  }

  private static let allow: UInt32 = 0x7fff_0000
  private static func errno(_ number: Int32) -> UInt32 { 0x0005_0000 | UInt32(number) }

  private static func compare(_ index: UInt32, _ operation: scmp_compare, _ a: UInt64, _ b: UInt64 = 0) -> scmp_arg_cmp
  {
    scmp_arg_cmp(arg: index, op: operation, datum_a: a, datum_b: b)
  }

  private static func add(
    _ filter: scmp_filter_ctx, _ action: UInt32, _ name: String, _ comparisons: [scmp_arg_cmp] = []
  ) throws(SystemCallError) {
    let number = seccomp_syscall_resolve_name(name)
    if number == __NR_SCMP_ERROR { return }
    let result = seccomp_rule_add_array(filter, action, number, UInt32(comparisons.count), comparisons)
    // An architecture without the call, or a rule that is there already, is as good.
    if result == -EDOM || result == -EEXIST { return }
    try check("seccomp_rule_add \(name)", result)
  }

  private static func check(_ call: String, _ result: Int32) throws(SystemCallError) {
    if result < 0 { throw SystemCallError(call: call, number: -result) }
  }

  private static func export(_ filter: scmp_filter_ctx) throws(SystemCallError) -> [UInt8] {
    let memory = OwnedDescriptor(
      adopting: try SystemCallError.check("memfd_create") { linux_memfd_create("seccomp", UInt32(MFD_CLOEXEC)) })
    try check("seccomp_export_bpf", seccomp_export_bpf(filter, memory.number))
    try SystemCallError.check("lseek") { lseek(memory.number, 0, SEEK_SET) }
    let program = try Files.readAll(memory.number)
    guard program.count % 8 == 0, program.count / 8 <= 4096 else {
      throw SystemCallError(call: "seccomp_export_bpf", number: E2BIG)
    }
    return program
  }
}
