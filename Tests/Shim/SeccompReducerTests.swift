import Glibc
import Testing

@testable import LinuxRuntimePlugin

/// A reduced filter answers every system call as the one that it was made from does.
@Suite struct SeccompReducerTests {
  /// `struct seccomp_data`.
  struct SystemCall {
    var number: UInt32
    var architecture: UInt32
    var arguments: [UInt64] = [0, 0, 0, 0, 0, 0]

    func word(_ offset: UInt32) -> UInt32? {
      switch offset {
      case 0: return number
      case 4: return architecture
      case 16..<64 where offset % 4 == 0:
        let argument = arguments[Int(offset - 16) / 8]
        return UInt32(truncatingIfNeeded: offset % 8 == 0 ? argument : argument >> 32)
      default: return nil
      }
    }
  }

  /// Runs a filter as the kernel does; nil where it does what no filter may.
  static func run(_ program: [SeccompReducer.Instruction], _ call: SystemCall) -> UInt32? {
    var at = 0
    var held: UInt32 = 0
    while at < program.count {
      let instruction = program[at]
      at += 1
      func jump(_ isTrue: Bool) { at += Int(isTrue ? instruction.whenTrue : instruction.whenFalse) }
      switch instruction.code {
      case SeccompReducer.Code.load:
        guard let word = call.word(instruction.operand) else { return nil }
        held = word
      case SeccompReducer.Code.jump: at += Int(instruction.operand)
      case SeccompReducer.Code.equal: jump(held == instruction.operand)
      case SeccompReducer.Code.greater: jump(held > instruction.operand)
      case SeccompReducer.Code.greaterOrEqual: jump(held >= instruction.operand)
      case SeccompReducer.Code.anyBit: jump(held & instruction.operand != 0)
      case SeccompReducer.Code.and: held &= instruction.operand
      case SeccompReducer.Code.answer: return instruction.operand
      default: return nil
      }
    }
    return nil
  }

  static let architectures: [UInt32] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0, 1, .max]

  /// Every number that any architecture has, what lies around the bounds, and the numbers of x32.
  static let numbers: [UInt32] =
    Array(0...600) + (0...600).map { 0x4000_0000 + $0 } + [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, .max - 1, .max]
    + (0..<64).map { _ in UInt32.random(in: 0 ... .max) }

  static let values: [UInt64] =
    [0, 1, 2, 8, 16, 37, 38, 39, 40, 41, 42, 0x20000, 0x20008, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0028, .max]
    + [0x0002_0000, 0x0400_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x7e02_0000, 0x0081_0000, 1 << 40]

  private func compare(_ whole: [UInt8]) throws -> (whole: Int, reduced: Int) {
    let before = SeccompReducer.instructions(whole)
    let after = SeccompReducer.instructions(SeccompReducer.reduce(whole))
    var answers: Set<UInt32> = []
    for architecture in Self.architectures {
      for number in Self.numbers {
        var call = SystemCall(number: number, architecture: architecture)
        for value in Self.values {
          call.arguments = [value, value, value, value, value, value]
          let expected = try #require(Self.run(before, call))
          answers.insert(expected)
          let given = Self.run(after, call)
          if given != expected {
            Issue.record("\(call): \(String(describing: given)) instead of \(expected)")
            return (before.count, after.count)
          }
        }
      }
    }
    #expect(answers.count > 1)
    // No jump leads out, and the last instruction answers (seccomp(2) refuses anything else).
    #expect(after.last?.code == SeccompReducer.Code.answer)
    return (before.count, after.count)
  }

  @Test(arguments: [0xa804_25fb, 0, 1 << 21, 0x1ff_ffff_ffff] as [UInt64])
  func theDefaultRulesStayWhatTheyAre(_ capabilities: UInt64) throws {
    let (whole, reduced) = try compare(try SeccompFilters.standard(capabilities))
    #expect(reduced < whole / 3, "\(whole) instructions became \(reduced)")
  }

  @Test func aProfileStaysWhatItIs() throws {
    let profile = """
      {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
       "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
       "syscalls": [
        {"names": ["read", "write", "exit_group", "openat", "close"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount", "ptrace"], "action": "SCMP_ACT_KILL"},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}, {"index": 1, "value": 1, "op": "SCMP_CMP_GE"}]},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_TRAP",
         "args": [{"index": 0, "value": 4294967295, "op": "SCMP_CMP_EQ"}]},
        {"names": ["kill", "tkill"], "action": "SCMP_ACT_LOG",
         "args": [{"index": 1, "value": 1099511627776, "op": "SCMP_CMP_GT"}]}]}
      """
    _ = try compare(try SeccompFilters.program(profile, 0))
    let permissive = """
      {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "chmod", "unlink"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}
      """
    _ = try compare(try SeccompFilters.program(permissive, 0))
  }

  /// What the reducer does not know stays untouched, and so does what leads nowhere.
  @Test(
    arguments: [
      [(0x20, 0, 0, 0), (0x61, 0, 0, 1), (0x06, 0, 0, 0)],  // LDX, MEM
      [(0x20, 0, 0, 0), (0x15, 9, 0, 1), (0x06, 0, 0, 0)],  // out of the program
      [(0x15, 0, 0, 1), (0x06, 0, 0, 0)],  // compares nothing
      [(0x20, 0, 0, 4), (0x25, 0, 1, 7), (0x06, 0, 0, 1), (0x06, 0, 0, 0)],  // orders architectures
      [(0x20, 0, 0, 0), (0x54, 0, 0, 1), (0x15, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 0)],  // parity of numbers
      [],
    ] as [[(UInt16, UInt8, UInt8, UInt32)]])
  func leavesTheRestAlone(_ program: [(UInt16, UInt8, UInt8, UInt32)]) {
    let bytes = program.flatMap { code, yes, no, operand -> [UInt8] in
      [UInt8(code & 255), UInt8(code >> 8), yes, no] + withUnsafeBytes(of: operand) { Array($0) }
    }
    #expect(SeccompReducer.reduce(bytes) == bytes)
  }

  /// Filters as libseccomp might write them, at random: runs of numbers, and arguments for some.
  @Test func randomFiltersStayWhatTheyAre() throws {
    typealias Instruction = SeccompReducer.Instruction
    for _ in 0..<60 {
      var program: [Instruction] = [.load(4)]
      program.append(Instruction(code: 0x15, whenTrue: 1, whenFalse: 0, operand: 0xc000_003e))
      program.append(.answer(0))
      program.append(.load(0))
      for _ in 0..<Int.random(in: 1...60) {
        let number = UInt32.random(in: 0...500)
        switch Int.random(in: 0..<4) {
        case 0:
          program.append(Instruction(code: 0x15, whenTrue: 0, whenFalse: 1, operand: number))
          program.append(.answer(UInt32.random(in: 1...3)))
        case 1:
          program.append(Instruction(code: 0x35, whenTrue: 1, whenFalse: 0, operand: number))
          program.append(Instruction(code: 0x25, whenTrue: 0, whenFalse: 1, operand: number &+ 500))
          program.append(.answer(UInt32.random(in: 1...3)))
        case 2:
          program.append(Instruction(code: 0x15, whenTrue: 0, whenFalse: 4, operand: number))
          program.append(.load(16))
          program.append(Instruction(code: 0x54, operand: 0xff))
          program.append(Instruction(code: 0x15, whenTrue: 0, whenFalse: 1, operand: 38))
          program.append(.answer(4))
          program.append(.load(0))
        default: program.append(.jump(0))
        }
      }
      program.append(.answer(7))
      let bytes = SeccompReducer.bytes(program)
      let after = SeccompReducer.instructions(SeccompReducer.reduce(bytes))
      for number in Self.numbers {
        for value in [0, 38, 0x126] as [UInt64] {
          for architecture in [0xc000_003e, 0] as [UInt32] {
            let call = SystemCall(number: number, architecture: architecture, arguments: [value, 0, 0, 0, 0, 0])
            let (given, expected) = (Self.run(after, call), Self.run(program, call))
            if given != expected { Issue.record("\(call): \(given ?? 0) instead of \(expected ?? 0) by \(program)") }
          }
        }
      }
    }
  }
}
