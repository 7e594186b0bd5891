import Contracts
import Testing

@testable import LinuxRuntimePlugin

@Suite struct SeccompProfileTests {
  private static let machine = SeccompProfile.Machine(
    architecture: "amd64", capabilities: 1 << 21 | 1 << 18, kernel: [6, 18])

  private func read(_ text: String) throws -> SeccompProfile { try SeccompProfile(text, on: Self.machine) }

  @Test func readsActionsArgumentsAndArchitectures() throws {
    let profile = try read(
      """
      {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
       "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}},
        {"name": "personality", "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 4294967295, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}
      """)
    #expect(profile.defaultAction == 0x0005_0026)
    #expect(profile.architectures == ["x86_64", "x86", "x32"])
    let comparison = SeccompProfile.Comparison(index: 0, operation: .maskedEqual, value: 0xffff_ffff, second: 1)
    #expect(
      profile.rules == [
        .init(names: ["read", "write"], action: 0x7fff_0000, comparisons: []),
        .init(names: ["personality"], action: 0x7fff_0000, comparisons: [comparison]),
        .init(names: ["mount"], action: 0x0005_0001, comparisons: []),
      ])
  }

  @Test(arguments: [
    (#"{"includes": {"caps": ["CAP_SYS_ADMIN"]}}"#, true),
    (#"{"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_SYS_BOOT"]}}"#, false),
    (#"{"includes": {"arches": ["arm64", "amd64"]}}"#, true),
    (#"{"includes": {"arches": ["s390x"]}}"#, false),
    (#"{"includes": {"minKernel": "6.18"}}"#, true),
    (#"{"includes": {"minKernel": "6.19"}}"#, false),
    (#"{"includes": {"minKernel": "4.8", "caps": ["CAP_SYS_BOOT"]}}"#, false),
    (#"{"excludes": {"caps": ["CAP_SYS_BOOT", "CAP_SYS_CHROOT"]}}"#, false),
    (#"{"excludes": {"caps": ["CAP_SYS_BOOT"]}}"#, true),
    (#"{"excludes": {"arches": ["amd64"]}}"#, false),
    (#"{"excludes": {"minKernel": "5.0"}}"#, false),
    (#"{"excludes": {}, "includes": null}"#, true),
  ])
  func narrows(filters: String, isIncluded: Bool) throws {
    let rule = #"{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "# + filters.dropFirst()
    let profile = try read(#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [\#(rule)]}"#)
    #expect(profile.rules.count == (isIncluded ? 1 : 0))
  }

  @Test(arguments: [
    ("[]", "the profile must be a JSON object"),
    (#"{"syscalls": [{"names": ["x"], "action": "SCMP_ACT_ALLOW"}]}"#, "defaultAction is missing"),
    (#"{"defaultAction": "SCMP_ACT_NO"}"#, "defaultAction: \"SCMP_ACT_NO\" is not an action"),
    (#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}"#, "defaultErrnoRet: a whole number"),
    (#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}"#, "syscalls: an array was expected"),
    (
      #"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"]}]}"#,
      "syscalls[0].action: an action is missing"
    ),
    (
      #"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x", 1], "action": "SCMP_ACT_LOG"}]}"#,
      "syscalls[0].names[1]: a string was expected"
    ),
    (
      #"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "op": "EQ"}]}]}"#,
      "syscalls[0].args[0].op: \"EQ\" is not a comparison"
    ),
    (
      #"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "includes": {"caps": ["CAP_X"]}}]}"#,
      "syscalls[0].includes.caps[0]: \"CAP_X\" is not a capability"
    ),
    (
      #"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}"#,
      "both 'architectures' and 'archMap' are specified"
    ),
    (#"{"defaultAction": "SCMP_ACT_ALLOW",}"#, "a key is missing"),
  ])
  func namesThePlace(text: String, words: String) {
    let error = #expect(throws: EngineError.self) { try read(text) }
    #expect(error?.message.hasPrefix("Decoding seccomp profile failed: ") == true)
    #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
    #expect(error?.message.contains("\n") == false)
  }

  @Test func compilesForTheKernel() throws {
    let filters = SeccompFilters()
    func program(_ text: String) throws -> [UInt8] {
      try filters.program(.profile(text), capabilities: 0, isPrivileged: false)
    }
    let some = try program(
      """
      {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
        {"names": ["mount", "no_such_call"], "action": "SCMP_ACT_ERRNO"}, {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
         "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 10, "op": "SCMP_CMP_EQ"}]}]}
      """)
    #expect(some.count > 8 && some.count % 8 == 0)
    #expect(try program("{}").isEmpty)
    #expect(throws: EngineError.self) {
      try program(#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}"#)
    }
  }
}
