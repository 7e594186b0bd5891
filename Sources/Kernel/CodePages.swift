import CLinux
import Glibc
import LinuxSystem

/// Keeps the code of an executable in huge pages of the page cache. The client's is executed anew by every command: with
/// 2 MiB a page fault instead of 64 KiB it is started and ended a third of a millisecond sooner.
///
/// Whoever wrote or read the file first decides about the size of its pages, and that is nearly always small ones. So they
/// are let go of and read again through a mapping that asks for huge ones (madvise(2), MADV_HUGEPAGE), which file systems
/// with large folios obey (XFS, ext4 from Linux 6.16 on). It changes nothing that anybody could see.
public struct CodePages: Sendable {
  private let path: String
  /// How often it may fail: on a file system that has no such pages, or while clients use the small ones.
  private var triesLeft = 4

  public init(path: String) { self.path = path }

  /// Looks whether the code is in huge pages, and reads it anew where it is not, which takes as long as reading 10 MB. It
  /// does nothing any more when that has not helped four times.
  ///
  /// - Returns: whether it is in huge pages now.
  @discardableResult
  public mutating func keepHuge() -> Bool {
    guard triesLeft > 0, let size = Self.hugePage else { return false }
    do throws(SystemCallError) {
      let file = try Files.open(path, O_RDONLY)
      let length = try Self.codeLength(file.number) / size * size
      guard length > 0 else { return false }
      if try Self.mapped(file.number, length) == length { return true }
      triesLeft -= 1
      // Pages that are not written yet are not let go of.
      try SystemCallError.check("fsync", path) { fsync(file.number) }
      posix_fadvise(file.number, 0, off_t(length), POSIX_FADV_DONTNEED)
      guard try Self.mapped(file.number, length) == length else { return false }
      triesLeft += 1
      return true
    } catch {
      triesLeft -= 1
      return false
    }
  }

  /// The bytes of a huge page; nil for a kernel without them.
  private static var hugePage: Int? {
    let text = try? Files.readText("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
    return text.flatMap { Int($0.filter(\.isNumber)) }.flatMap { $0 > 0 ? $0 : nil }
  }

  /// How many bytes from the beginning of an executable are mapped as its code (elf(5), PT_LOAD with PF_X); 0 where its
  /// code is elsewhere.
  static func codeLength(_ file: Int32) throws(SystemCallError) -> Int {
    var header = Elf64_Ehdr()
    try readAll(file, &header, at: 0)
    for index in 0..<Int(header.e_phnum) {
      var segment = Elf64_Phdr()
      try readAll(file, &segment, at: Int(header.e_phoff) + index * MemoryLayout<Elf64_Phdr>.size)
      if segment.p_type == 1, segment.p_flags & 1 != 0, segment.p_offset == 0 { return Int(segment.p_filesz) }
    }
    return 0
  }

  private static func readAll<Value: BitwiseCopyable>(
    _ file: Int32, _ value: inout Value, at offset: Int
  ) throws(SystemCallError) {
    let size = MemoryLayout<Value>.size
    let count = withUnsafeMutableBytes(of: &value) { pread(file, $0.baseAddress, size, off_t(offset)) }
    if count != size { throw SystemCallError(call: "pread", number: count < 0 ? errno : ENOEXEC) }
  }

  /// Reads the first bytes of a file through a mapping.
  ///
  /// - Returns: how many of them were mapped as huge pages (proc_pid_smaps(5), FilePmdMapped).
  private static func mapped(_ file: Int32, _ length: Int) throws(SystemCallError) -> Int {
    guard let start = mmap(nil, length, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0), start != MAP_FAILED else {
      throw SystemCallError(call: "mmap", number: errno)
    }
    defer { munmap(start, length) }
    try SystemCallError.check("madvise") { madvise(start, length, MADV_HUGEPAGE) }
    try SystemCallError.check("madvise") { madvise(start, length, MADV_POPULATE_READ) }
    let prefix = "\(String(UInt(bitPattern: start), radix: 16))-"
    var isThere = false
    for line in try Files.readText("/proc/self/smaps").split(separator: "\n") {
      if line.hasPrefix(prefix) { isThere = true }
      if isThere, line.hasPrefix("FilePmdMapped:") {
        return (Int(line.split(separator: " ").dropFirst().first ?? "") ?? 0) << 10
      }
    }
    return 0
  }
}
