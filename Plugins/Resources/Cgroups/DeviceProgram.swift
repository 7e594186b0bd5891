import CLinux
import Contracts
import LinuxSystem

/// `DeviceRules` where there is no v1 devices hierarchy: a program that the kernel asks at every open and making of a
/// device node by a process in a v2 group (cgroup-v2, "Device controller"; bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).
enum DeviceProgram {
  // The eBPF instructions used here (linux/bpf.h): operation, registers, jump offset and constant in one word.
  private static func instruction(
    _ code: UInt8, _ target: UInt8, source: UInt8 = 0, offset: Int = 0, constant: Int32 = 0
  ) -> UInt64 {
    UInt64(code) | UInt64(target | source << 4) << 8 | UInt64(UInt16(truncatingIfNeeded: offset)) << 16
      | UInt64(UInt32(bitPattern: constant)) << 32
  }
  private static let loadWord: UInt8 = 0x61
  private static let moveRegister: UInt8 = 0xbf
  private static let move: UInt8 = 0xb7
  private static let and: UInt8 = 0x57
  private static let shiftRight: UInt8 = 0x77
  private static let jumpIfEqual: UInt8 = 0x15
  private static let jumpIfNotEqual: UInt8 = 0x55
  private static let exit: UInt8 = 0x95

  /// Its only input is `struct bpf_cgroup_dev_ctx` in register 1: access in the upper and kind in the lower half of a
  /// word, then major and minor. It returns 1 to allow.
  ///
  /// - Parameter devices: character devices that may be opened; a nil minor stands for all.
  static func instructions(allowing devices: [(major: Int32, minor: Int32?)]) -> [UInt64] {
    let (kindRegister, accessRegister, majorRegister, minorRegister): (UInt8, UInt8, UInt8, UInt8) = (2, 3, 4, 5)
    let readOrWrite: Int32 = 2 | 4
    let characterDevice: Int32 = 2
    var body = [
      instruction(loadWord, kindRegister, source: 1, offset: 0),
      instruction(moveRegister, accessRegister, source: kindRegister),
      instruction(shiftRight, accessRegister, constant: 16),
      instruction(and, accessRegister, constant: readOrWrite),
      instruction(and, kindRegister, constant: 0xffff),
      instruction(loadWord, majorRegister, source: 1, offset: 4),
      instruction(loadWord, minorRegister, source: 1, offset: 8),
    ]
    /// Where in `body` a jump to the end that allows has to be filled in, and what it compares.
    var allowing: [Int] = []
    func allow(if register: UInt8, is constant: Int32) {
      allowing.append(body.count)
      body.append(instruction(jumpIfEqual, register, constant: constant))
    }
    // Making a node without opening it.
    allow(if: accessRegister, is: 0)
    // The two instructions that refuse follow the rules; what is no character device goes there at once.
    let length = devices.reduce(0) { $0 + ($1.minor == nil ? 1 : 2) }
    body.append(instruction(jumpIfNotEqual, kindRegister, offset: length, constant: characterDevice))
    for device in devices {
      if let minor = device.minor {
        body.append(instruction(jumpIfNotEqual, majorRegister, offset: 1, constant: device.major))
        allow(if: minorRegister, is: minor)
      } else {
        allow(if: majorRegister, is: device.major)
      }
    }
    body += [instruction(move, 0, constant: 0), instruction(exit, 0)]
    for index in allowing { body[index] |= UInt64(body.count - index - 1) << 16 }
    return body + [instruction(move, 0, constant: 1), instruction(exit, 0)]
  }

  static func load() throws(SystemCallError) -> Descriptor {
    let program = instructions(allowing: DeviceRules.opened)
    return Descriptor(
      adopting: try SystemCallError.check("bpf(BPF_PROG_LOAD)") {
        linux_bpf_load_device_program(program, UInt32(program.count))
      })
  }

  static func attach(_ program: Descriptor, to group: Descriptor) throws(SystemCallError) {
    try SystemCallError.check("bpf(BPF_PROG_ATTACH)") {
      linux_bpf_attach_device_program(group.number, program.number)
    }
  }
}
