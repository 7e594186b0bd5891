import CLinux
import Foundation
import Kernel
import LinuxSystem
import Testing

@Suite struct CodePagesTests {
  private let directory: String

  init() throws {
    var template = Array("/tmp/code-pages-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemCallError(call: "mkdtemp", number: errno) }
    directory = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// An executable with so many bytes of code (elf(5)) and a few behind it.
  private func makeProgram(code: Int) throws -> (path: String, content: [UInt8]) {
    var header = Elf64_Ehdr()
    header.e_phoff = UInt64(MemoryLayout<Elf64_Ehdr>.size)
    header.e_phnum = 1
    var segment = Elf64_Phdr()
    segment.p_type = 1  // PT_LOAD
    segment.p_flags = 5  // readable, executable
    segment.p_filesz = UInt64(code)
    var content = withUnsafeBytes(of: header, Array.init) + withUnsafeBytes(of: segment, Array.init)
    content += (content.count..<code + 5000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let path = "\(directory)/program-\(code)"
    try Files.replace(path, with: content, mode: 0o755, durable: false)
    return (path, content)
  }

  /// Whether it succeeds is the kernel's and the file system's affair (large folios: XFS, ext4 from Linux 6.16 on); that it
  /// changes nothing is not.
  @Test func theProgramStaysWhatItIs() throws {
    defer { try? Files.removeTree(directory) }
    let program = try makeProgram(code: 5 << 20)
    var pages = CodePages(path: program.path)
    let isHuge = pages.keepHuge()
    #expect(try Files.read(program.path) == program.content)
    // Once there, they are left alone; where they are not to be had, it comes to an end.
    for _ in 0..<6 {
      let isStillHuge = pages.keepHuge()
      #expect(isStillHuge == isHuge)
    }
    #expect(try Files.read(program.path) == program.content)
  }

  @Test func whatHasNoSuchCodeIsLeftAlone() throws {
    defer { try? Files.removeTree(directory) }
    let small = try makeProgram(code: 1 << 20)
    let text = "\(directory)/text"
    try Files.replace(text, with: Array("#!/bin/sh\n".utf8), durable: false)
    for path in [small.path, text, "\(directory)/nothing", directory] {
      var pages = CodePages(path: path)
      for _ in 0..<6 {
        let isHuge = pages.keepHuge()
        #expect(!isHuge, "\(path)")
      }
    }
  }
}
