import Contracts
import Glibc
import LinuxSystem

/// The smallest image: two programs of a few bytes, so that a container's time is the engine's.
struct RootFileSystem {
  /// The root as a tree, for containers by raw system calls.
  let tree: String
  /// Where those have their writable layers.
  let directory: String
  /// The root as an archive.
  let archive: String

  init(at directory: String) throws(EngineError) {
    tree = "\(directory)/rootfs"
    self.directory = directory
    archive = "\(directory)/rootfs.tar"
    let directories = ["bin", "dev", "proc", "sys", "tmp"]
    let files = [("bin/true", TinyProgram.exits), ("bin/wait", TinyProgram.waits)]
    do {
      try Files.makeDirectories("\(directory)/root", mode: 0o755)
      var bytes: [UInt8] = []
      for name in directories {
        try Files.makeDirectories("\(tree)/\(name)", mode: 0o755)
        bytes += Archive.directory(name)
      }
      for (name, content) in files {
        let file = try Files.open("\(tree)/\(name)", O_WRONLY | O_CREAT, mode: 0o755)
        try Files.writeAll(file.number, content)
        bytes += Archive.file(name, content)
      }
      let file = try Files.open(archive, O_WRONLY | O_CREAT, mode: 0o644)
      try Files.writeAll(file.number, bytes + Archive.end)
    } catch {
      throw EngineError(.internalFailure, "the image for the benchmarks cannot be made: \(error)")
    }
  }
}

/// Entries of a tar archive (POSIX.1-1988 ustar).
enum Archive {
  static func directory(_ name: String) -> [UInt8] { header("\(name)/", size: 0, mode: 0o755, type: "5") }

  static func file(_ name: String, _ content: [UInt8]) -> [UInt8] {
    header(name, size: content.count, mode: 0o755, type: "0") + content
      + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
  }

  static let end = [UInt8](repeating: 0, count: 1024)

  private static func header(_ name: String, size: Int, mode: Int, type: Character) -> [UInt8] {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, _ offset: Int) {
      for (index, byte) in text.utf8.enumerated() { block[offset + index] = byte }
    }
    func octal(_ value: Int, _ width: Int) -> String {
      let digits = String(value, radix: 8)
      return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
    }
    put(name, 0)
    put(octal(mode, 7), 100)
    put(octal(0, 7), 108)
    put(octal(0, 7), 116)
    put(octal(size, 11), 124)
    put(octal(0, 11), 136)
    put("        ", 148)
    put(String(type), 156)
    put("ustar", 257)
    put("00", 263)
    put(octal(block.reduce(0) { $0 + Int($1) }, 6) + "\0 ", 148)
    return block
  }
}

/// Static ELF executables of one segment (elf(5)), written by hand: what they cost is what execve(2) costs.
enum TinyProgram {
  #if arch(arm64)
    private static let machine: UInt16 = 183
    /// exit_group(0)
    private static let exit: [UInt8] = [
      0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4,
    ]
    /// nanosleep(&time, NULL), where the time stands 32 bytes after the first instruction.
    private static let sleep: [UInt8] = [
      0x00, 0x01, 0x00, 0x10, 0x01, 0x00, 0x80, 0xd2, 0xa8, 0x0c, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4,
    ]
  #else
    private static let machine: UInt16 = 62
    private static let exit: [UInt8] = [0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05]
    private static let sleep: [UInt8] = [0x48, 0x8d, 0x3d, 25, 0, 0, 0, 0x31, 0xf6, 0xb8, 35, 0, 0, 0, 0x0f, 0x05]
  #endif

  /// Ends at once, with 0.
  static let exits = executable(exit)

  /// Ends after ten days.
  static let waits: [UInt8] = {
    let code = sleep + exit
    return executable(code + [UInt8](repeating: 0, count: 32 - code.count) + bytes(UInt64(864_000)) + bytes(UInt64(0)))
  }()

  private static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian, Array.init)
  }

  private static func executable(_ code: [UInt8]) -> [UInt8] {
    let base: UInt64 = 0x400000
    let size = UInt64(120 + code.count)
    var header: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0] + [UInt8](repeating: 0, count: 8)
    header += bytes(UInt16(2)) + bytes(machine) + bytes(UInt32(1)) + bytes(base + 120) + bytes(UInt64(64))
    header += bytes(UInt64(0)) + bytes(UInt32(0)) + bytes(UInt16(64)) + bytes(UInt16(56)) + bytes(UInt16(1))
    header += bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(UInt16(0))
    header += bytes(UInt32(1)) + bytes(UInt32(5)) + bytes(UInt64(0)) + bytes(base) + bytes(base)
    header += bytes(size) + bytes(size) + bytes(UInt64(0x10000))
    return header + code
  }
}
