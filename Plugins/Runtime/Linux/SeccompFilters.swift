import CLinux
import CSeccomp
import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Compiles seccomp filters to the kernel's own form and keeps them: one a set of capabilities, because compiling takes
/// milliseconds and loading a microsecond's fraction of that.
final class SeccompFilters: Sendable {
  private struct Key: Hashable {
    var capabilities: UInt64
    /// Empty for the default rules.
    var profile: String
  }

  /// So many filters of users' own profiles are kept at most.
  private static let limit = 32
  private let compiled = Mutex<[Key: [UInt8]]>([:])

  /// The filter that nearly every container gets; compiling it takes some 20 ms.
  @discardableResult
  func usual() throws(EngineError) -> [UInt8] {
    try program(.standard, capabilities: Self.usualCapabilities, isPrivileged: false)
  }

  /// The 14 capabilities (capabilities(7)) that a container has unless it asks for others.
  private static let usualCapabilities: UInt64 = 0xa804_25fb

  /// The filter's `struct sock_filter`s, or empty where nothing is filtered.
  func program(
    _ policy: RuntimeSpecification.SeccompPolicy, capabilities: UInt64, isPrivileged: Bool
  ) throws(EngineError) -> [UInt8] {
    if isPrivileged { return [] }
    let key: Key
    switch policy {
    case .unconfined: return []
    case .profile(let text): key = Key(capabilities: capabilities, profile: text)
    case .standard: key = Key(capabilities: capabilities, profile: "")
    }
    if let program = compiled.withLock({ $0[key] }) { return program }
    let program = SeccompReducer.reduce(
      try key.profile.isEmpty ? Self.standard(capabilities) : Self.program(key.profile, capabilities))
    compiled.withLock { compiled in
      if compiled.count >= Self.limit, !key.profile.isEmpty { compiled = compiled.filter { $0.key.profile.isEmpty } }
      compiled[key] = program
    }
    return program
  }

  /// The default rules as libseccomp writes them.
  static func standard(_ capabilities: UInt64) throws(EngineError) -> [UInt8] {
    do {
      return try compile(capabilities)
    } catch {
      throw EngineError(.internalFailure, "the seccomp filter cannot be compiled: \(error)")
    }
  }

  // MARK: Profiles of users

  /// A profile as libseccomp writes it.
  static func program(_ text: String, _ capabilities: UInt64) throws(EngineError) -> [UInt8] {
    let machine = SeccompProfile.Machine(
      architecture: architecture, capabilities: capabilities, kernel: kernelVersion)
    let profile = try SeccompProfile(text, on: machine)
    guard let action = profile.defaultAction else { return [] }
    do {
      return try compile(profile, defaultAction: action)
    } catch {
      throw EngineError(.invalidArgument, "the seccomp profile cannot be compiled: \(error)")
    }
  }

  private static func compile(
    _ profile: SeccompProfile, defaultAction: UInt32
  ) throws(SystemCallError) -> [UInt8] {
    guard let filter = seccomp_init(defaultAction) else {
      throw SystemCallError(call: "seccomp_init", number: EINVAL)
    }
    defer { seccomp_release(filter) }
    for name in profile.architectures {
      let number = seccomp_arch_resolve_name(name)
      if number == 0 { throw SystemCallError(call: "seccomp_arch_resolve_name", subject: name, number: EINVAL) }
      let result = seccomp_arch_add(filter, number)
      if result != -EEXIST { try check("seccomp_arch_add \(name)", result) }
    }
    try check("seccomp_attr_set", seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2))
    // libseccomp refuses a rule that says what is done anyway.
    for rule in profile.rules where rule.action != defaultAction {
      let comparisons = rule.comparisons.map { item in
        compare(item.index, item.operation.scmp, item.value, item.second)
      }
      // Several comparisons of one argument cannot be one rule: each is one of its own, as runc has it.
      let repeats = Set(comparisons.map(\.arg)).count < comparisons.count
      for name in rule.names {
        if repeats {
          for comparison in comparisons { try add(filter, rule.action, name, [comparison]) }
        } else {
          try add(filter, rule.action, name, comparisons)
        }
      }
    }
    return try export(filter)
  }

  #if arch(arm64)
    private static let architecture = "arm64"
  #else
    private static let architecture = "amd64"
  #endif

  /// Major and minor version of the running kernel (uname(2)).
  private static let kernelVersion: [Int] = {
    var names = utsname()
    uname(&names)
    let text = withUnsafeBytes(of: names.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    return text.split(separator: ".").prefix(2).map { part in Int(part.prefix { $0.isNumber }) ?? 0 }
  }()

  // MARK: The default rules

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

extension SeccompProfile.Operation {
  fileprivate var scmp: scmp_compare {
    switch self {
    case .notEqual: SCMP_CMP_NE
    case .less: SCMP_CMP_LT
    case .lessOrEqual: SCMP_CMP_LE
    case .equal: SCMP_CMP_EQ
    case .greaterOrEqual: SCMP_CMP_GE
    case .greater: SCMP_CMP_GT
    case .maskedEqual: SCMP_CMP_MASKED_EQ
    }
  }
}
