import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import SQLiteRecordsPlugin

@Suite("Records in SQLite")
struct RecordsTests {
  /// A directory of the test's own, removed with it.
  final class Directory {
    let path: String
    init() throws {
      path = "/tmp/engine-records-\(ObjectID.random().short)"
      try Files.makeDirectories(path)
    }
    deinit { try? Files.removeTree(path) }
  }

  static func put(_ key: String, _ value: String, _ durability: Durability = .process) -> RecordWrite {
    RecordWrite(put: [Record(kind: "k", key: key, value: value)], durability: durability)
  }

  static func error(_ body: () throws(EngineError) -> Void) -> EngineError? {
    do {
      try body()
      return nil
    } catch {
      return error
    }
  }

  @Test func answersThroughTheBusAndKeepsWhatItWasGiven() async throws {
    let directory = try Directory()
    let bus = Bus()
    let instance = Instance(
      root: directory.path, runtimeDirectory: directory.path, hash: "00000000", isDefault: false, daemonPath: "",
      shimPath: "", version: "0")
    let journal = try Journal(path: directory.path + "/journal")
    for round in 0..<2 {
      let bus = round == 0 ? bus : Bus()
      let manifest = SQLiteRecordsPlugin.manifest
      let plugin = try SQLiteRecordsPlugin(
        host: PluginHost(manifest: manifest, bus: bus, instance: instance, journal: journal))
      try plugin.register(Registrar(bus: bus, manifest: manifest))
      try await plugin.start()
      if round == 0 {
        _ = try await bus.request(Self.put("b", "{\"a\":\"\u{1F600}\"}", .power))
        _ = try await bus.request(Self.put("a", ""))
      }
      let records = try await bus.request(RecordRead(kind: "k"))
      #expect(records.map(\.key) == ["a", "b"])
      #expect(records.map(\.value) == ["", "{\"a\":\"\u{1F600}\"}"])
      #expect(try await bus.request(RecordRead(kind: "other")).isEmpty)
      await plugin.stop()
    }
    let path = directory.path + "/records-sqlite/records.db"
    #expect(Files.status(path).map { $0.st_mode & 0o777 } == 0o600)
    #expect(!Files.exists(path + "-wal"))
  }

  @Test func putAndDeleteAreOneTransaction() throws {
    let directory = try Directory()
    let store = try RecordStore(path: directory.path + "/records.db")
    try store.write(Self.put("old", "1"))
    try store.write(
      RecordWrite(
        put: [Record(kind: "k", key: "new", value: "2")], delete: [.init(kind: "k", key: "old")], durability: .power))
    #expect(try store.read(kind: "k") == [Record(kind: "k", key: "new", value: "2")])
  }

  /// A copy of the files under an open store is what a killed process leaves: nothing was closed or folded.
  @Test func committedRecordsAreThereWithoutAClose() throws {
    let directory = try Directory()
    let store = try RecordStore(path: directory.path + "/records.db")
    for number in 0..<100 { try store.write(Self.put("\(number)", "x")) }
    let copy = directory.path + "/copy.db"
    for suffix in ["", "-wal"] {
      try Files.replace(
        copy + suffix, with: try Files.read(directory.path + "/records.db" + suffix), durable: false)
    }
    #expect(try RecordStore(path: copy).read(kind: "k").count == 100)
  }

  @Test func theLogIsFoldedWhileWritersGoOn() throws {
    let directory = try Directory()
    let path = directory.path + "/records.db"
    let store = try RecordStore(path: path)
    let value = String(repeating: "x", count: 3000)
    for number in 0..<6000 { try store.write(Self.put("\(number % 50)", value)) }
    #expect(try store.read(kind: "k").count == 50)
    #expect((Files.status(path + "-wal")?.st_size ?? 0) < 40 << 20)
    // Not for each of the writers that keep it from beginning anew.
    #expect((1...100).contains(store.folds.load(ordering: .relaxed)))
  }

  @Test(arguments: [0, 200]) func aCorruptFileIsNamed(offset: Int) throws {
    let directory = try Directory()
    let path = directory.path + "/records.db"
    let store = try RecordStore(path: path)
    for number in 0..<500 { try store.write(Self.put("\(number)", "some value")) }
    store.close()
    var bytes = try Files.read(path)
    for index in offset..<min(bytes.count, offset + 12_000) { bytes[index] = 0xa5 }
    try Files.replace(path, with: bytes, durable: false)
    let error = Self.error { () throws(EngineError) in _ = try RecordStore(path: path) }
    #expect(error?.code == .corrupt)
    #expect(error?.message.contains(path) == true)
  }

  @Test func aNewerSchemaIsRefused() throws {
    let directory = try Directory()
    let path = directory.path + "/records.db"
    try RecordStore(path: path).close()
    // The user version is the big-endian word at byte 60 of the file (sqlite.org/fileformat.html).
    var bytes = try Files.read(path)
    bytes[63] = 99
    try Files.replace(path, with: bytes, durable: false)
    let error = Self.error { () throws(EngineError) in _ = try RecordStore(path: path) }
    #expect(error?.code == .versionMismatch)
    #expect(error?.message.contains("version 99") == true)
  }

  private final class Outcome: Sendable {
    let error = Mutex<EngineError?>(nil)
    let written = Mutex(0)
    let read = Mutex(-1)
  }

  /// The full disk is a tmpfs in a mount namespace of one thread, which is thrown away: nothing is mounted on the host.
  @Test(.enabled(if: geteuid() == 0, "needs root for a file system of its own"))
  func aFullDiskLosesNothing() throws {
    let directory = try Directory()
    let (path, outcome) = (directory.path, Outcome())
    let finished = eventfd(0, Int32(EFD_CLOEXEC))
    defer { close(finished) }
    let started = Thread.start {
      defer { eventfd_write(finished, 1) }
      guard unshare(CLONE_NEWNS) == 0, mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0,
        mount("tmpfs", path, "tmpfs", 0, "size=256k") == 0, let store = try? RecordStore(path: path + "/records.db")
      else { return }
      let value = String(repeating: "x", count: 4000)
      for number in 0..<1000 {
        if let error = Self.error({ () throws(EngineError) in try store.write(Self.put("\(number)", value)) }) {
          outcome.error.withLock { $0 = error }
          break
        }
        outcome.written.withLock { $0 += 1 }
      }
      let count = try? store.read(kind: "k").count
      outcome.read.withLock { $0 = count ?? -1 }
      store.close()
    }
    #expect(started)
    var signal: eventfd_t = 0
    eventfd_read(finished, &signal)
    #expect(outcome.error.withLock { $0?.code } == .resourceExhausted)
    #expect(outcome.read.withLock { $0 } == outcome.written.withLock { $0 })
    #expect(outcome.written.withLock { $0 } > 0)
  }
}
