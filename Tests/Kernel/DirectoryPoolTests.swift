import Foundation
import Glibc
import LinuxSystem
import Testing

@testable import Kernel

@Suite("Directories made ahead", .timeLimit(.minutes(1)))
struct DirectoryPoolTests {
  private let bus = Bus()
  private let parent: String

  init() throws {
    parent = NSTemporaryDirectory() + "directories-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(parent)
  }

  private func pool(capacity: Int = 3) -> DirectoryPool {
    DirectoryPool(in: parent, capacity: capacity, limit: 5, bus: bus, refills: false) {
      (path) throws(SystemCallError) in
      try SystemCallError.check("mkdir", path) { mkdir("\(path)/inside", 0o750) }
    }
  }

  private var spares: Int {
    get throws { try Files.list(parent).filter { $0.hasPrefix(DirectoryPool.prefix) }.count }
  }

  private func mode(_ path: String) throws -> mode_t {
    let status = try #require(Files.status(path))
    return status.st_mode & 0o7777
  }

  /// One that was ready, one that was made for it, and one that somebody gave back are the same to who takes them.
  @Test func areAlike() async throws {
    defer { try? Files.removeTree(parent) }
    let pool = pool(capacity: 1)
    try pool.take(as: "\(parent)/fresh")
    await pool.fill()
    #expect(try spares == 1)
    try pool.take(as: "\(parent)/ready")
    #expect(try spares == 0)
    try Files.makeDirectories("\(parent)/ready/inside/deep/er")
    #expect(symlink("/", "\(parent)/ready/link") == 0)
    let number = try #require(Files.status("\(parent)/ready")).st_ino
    try pool.give(back: "\(parent)/ready")
    #expect(try spares == 1)
    try pool.take(as: "\(parent)/again")
    #expect(Files.status("\(parent)/again")?.st_ino == number)
    for name in ["fresh", "again"] {
      #expect(try mode("\(parent)/\(name)") == 0o700)
      #expect(try Files.list("\(parent)/\(name)") == ["inside"])
      #expect(try mode("\(parent)/\(name)/inside") == 0o750)
      #expect(try Files.list("\(parent)/\(name)/inside") == [])
    }
    await pool.close()
  }

  @Test func whatIsThereIsNeverReplaced() async throws {
    defer { try? Files.removeTree(parent) }
    let pool = pool()
    await pool.fill()
    for name in ["empty", "file"] {
      if name == "file" {
        try Files.replace("\(parent)/file", with: [1], durable: false)
      } else {
        try Files.makeDirectory("\(parent)/empty")
      }
      #expect {
        try pool.take(as: "\(parent)/\(name)")
      } throws: { ($0 as? SystemCallError)?.number == EEXIST }
    }
    #expect(try Files.list("\(parent)/empty") == [])
    try pool.ensure("\(parent)/empty")
    #expect(try spares == 3, "what could not be used is still there for the next")
    await pool.close()
  }

  @Test func keepsNoMoreThanItsLimitAndNothingInTheEnd() async throws {
    defer { try? Files.removeTree(parent) }
    let pool = pool()
    await pool.fill()
    #expect(try spares == 3)
    for number in 0..<9 { try pool.take(as: "\(parent)/\(number)") }
    #expect(try spares == 0)
    for number in 0..<9 { try pool.give(back: "\(parent)/\(number)") }
    #expect(try spares == 5)
    try pool.give(back: "\(parent)/nothing")
    #expect(try spares == 5)
    await pool.close()
    #expect(try Files.list(parent) == [])
    // It still serves whoever comes late.
    try pool.take(as: "\(parent)/late")
    try pool.give(back: "\(parent)/late")
    await pool.fill()
    #expect(try Files.list(parent) == [])
  }

  @Test func replacesWhatWasTaken() async throws {
    defer { try? Files.removeTree(parent) }
    let pool = DirectoryPool(in: parent, capacity: 2, bus: bus)
    try pool.take(as: "\(parent)/first")
    while try spares < 2 { try await Task.sleep(for: .milliseconds(5)) }
    try pool.take(as: "\(parent)/second")
    while try spares < 2 { try await Task.sleep(for: .milliseconds(5)) }
    await pool.close()
    #expect(try Files.list(parent).sorted() == ["first", "second"])
  }

  @Test func whatAKilledEngineLeftGoes() async throws {
    defer { try? Files.removeTree(parent) }
    let former = pool()
    await former.fill()
    try former.take(as: "\(parent)/container")
    pool().clean()
    #expect(try Files.list(parent) == ["container"])
  }
}
