import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import JSONFileLogsPlugin

@Suite("json-file logs")
struct JSONFileLogsTests {
  /// A plugin on a bus and a container whose log the test writes.
  final class Fixture: Sendable {
    let root = "/tmp/engine-logs-\(ObjectID.random().short)"
    let bus = Bus()
    let container = ObjectID.random()
    let plugin: JSONFileLogsPlugin
    let path: String

    init() async throws {
      try Files.makeDirectories(root)
      let manifest = JSONFileLogsPlugin.manifest
      let instance = Instance(
        root: root, runtimeDirectory: root, hash: "00000000", isDefault: false, daemonPath: "", shimPath: "",
        version: "0")
      plugin = try JSONFileLogsPlugin(
        host: PluginHost(
          manifest: manifest, bus: bus, instance: instance, journal: try Journal(path: root + "/journal")))
      try plugin.register(Registrar(bus: bus, manifest: manifest))
      try await plugin.start()
      path = try await bus.request(LogOpen(container: container, options: [:]), driver: "json-file").path
    }

    deinit { try? Files.removeTree(root) }

    static func line(_ number: Int, _ stream: String = "stdout") -> String {
      let second = number < 10 ? "0\(number)" : "\(number)"
      return "{\"log\":\"line \(number)\\n\",\"stream\":\"\(stream)\",\"time\":\"2024-01-01T00:00:\(second).5Z\"}\n"
    }

    func append(_ text: String) throws {
      let file = try Files.open(path, O_WRONLY | O_APPEND | O_CREAT, mode: 0o600)
      try Files.writeAll(file.number, Array(text.utf8))
    }

    func rotate() throws {
      if Files.exists(path + ".1") { rename(path + ".1", path + ".2") }
      rename(path, path + ".1")
    }

    /// What a reader is given on its two descriptors.
    func read(
      tail: Int? = nil, since: String? = nil, until: String? = nil, timestamps: Bool = false
    ) async throws -> (String, String) {
      let (output, error) = (try Pipe(), try Pipe())
      do {
        let request = LogRead(
          container: container, output: output.writer, error: error.writer, follow: false, running: nil, tail: tail,
          since: since.flatMap { Timestamp($0) }, until: until.flatMap { Timestamp($0) }, timestamps: timestamps)
        _ = try await Call(bus: bus).stream(request, driver: "json-file") { (_) async throws(EngineError) in }
      }
      return (try output.finish(), try error.finish())
    }
  }

  /// A pipe of which the writing end can be handed away.
  final class Pipe {
    let reader: Descriptor
    private(set) var writer: Descriptor

    init() throws {
      var ends: [Int32] = [0, 0]
      try SystemCallError.check("pipe2") { pipe2(&ends, O_CLOEXEC) }
      reader = Descriptor(adopting: ends[0])
      writer = Descriptor(adopting: ends[1])
    }

    /// Closes the writing end and reads what is there.
    func finish() throws -> String {
      writer = reader
      return String(decoding: try Files.readAll(reader.number), as: UTF8.self)
    }

    /// Reads until `text` has come.
    func wait(for text: String) throws -> String {
      var got = ""
      var chunk = [UInt8](repeating: 0, count: 4096)
      while !got.contains(text) {
        let count = try SystemCallError.check("read") { Glibc.read(reader.number, &chunk, chunk.count) }
        if count == 0 { break }
        got += String(decoding: chunk[..<count], as: UTF8.self)
      }
      return got
    }
  }

  @Test func keepsTheStreamsApartAndReadsRotatedFilesOldestFirst() async throws {
    let log = try await Fixture()
    try log.append(Fixture.line(1))
    try log.rotate()
    try log.append(Fixture.line(2, "stderr"))
    try log.rotate()
    try log.append(Fixture.line(3))
    #expect(try await log.read() == ("line 1\nline 3\n", "line 2\n"))
  }

  @Test(arguments: [
    (0, ""), (1, "line 5\n"), (2, "line 4\nline 5\n"), (4, "line 2\nline 3\nline 4\nline 5\n"),
    (9, "line 1\nline 2\nline 3\nline 4\nline 5\n"),
  ])
  func tailsAcrossFiles(count: Int, expected: String) async throws {
    let log = try await Fixture()
    try log.append(Fixture.line(1) + Fixture.line(2) + Fixture.line(3))
    try log.rotate()
    try log.append(Fixture.line(4) + Fixture.line(5))
    #expect(try await log.read(tail: count).0 == expected)
  }

  @Test func limitsByTimeAndPrintsIt() async throws {
    let log = try await Fixture()
    for number in 1...5 { try log.append(Fixture.line(number)) }
    let text = try await log.read(since: "2024-01-01T00:00:02Z", until: "2024-01-01T00:00:03.5Z", timestamps: true).0
    #expect(text == "2024-01-01T00:00:02.500000000Z line 2\n2024-01-01T00:00:03.500000000Z line 3\n")
  }

  @Test func aLineThatWasCutShortIsNotShown() async throws {
    let log = try await Fixture()
    try log.append(Fixture.line(1) + "{\"log\":\"half")
    #expect(try await log.read().0 == "line 1\n")
  }

  @Test(arguments: [
    (#"a\"b\\\/\n\t\r\b\f"#, "a\"b\\/\n\t\r\u{8}\u{c}"), (#"\u00e9\ud83d\ude00\u003c"#, "\u{e9}\u{1F600}<"),
    (#"\ud83dx"#, "\u{fffd}x"), ("", ""),
  ])
  func readsEscapes(escaped: String, expected: String) async throws {
    let log = try await Fixture()
    try log.append("{\"log\":\"\(escaped)\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:00Z\"}\n")
    #expect(try await log.read().0 == expected)
  }

  @Test func followsThroughRotationUntilTheContainerEnds() async throws {
    let log = try await Fixture()
    let (output, error, running) = (try Pipe(), try Pipe(), try Pipe())
    try log.append(Fixture.line(1))
    let request = LogRead(
      container: log.container, output: output.writer, error: error.writer, follow: true, running: running.reader,
      tail: nil, since: nil, until: nil, timestamps: false)
    let task = Task(executorPreference: log.bus.executor) {
      _ = try await Call(bus: log.bus).stream(request, driver: "json-file") { (_) async throws(EngineError) in }
    }
    #expect(try output.wait(for: "line 1\n") == "line 1\n")
    let third = Fixture.line(3)
    try log.append(Fixture.line(2) + String(third.prefix(20)))
    #expect(try output.wait(for: "line 2\n") == "line 2\n")
    try log.append(String(third.dropFirst(20)))
    #expect(try output.wait(for: "line 3\n") == "line 3\n")
    try log.rotate()
    try log.append(Fixture.line(4))
    #expect(try output.wait(for: "line 4\n") == "line 4\n")
    try log.append(Fixture.line(5))
    _ = try running.finish()
    try await task.value
    #expect(try output.wait(for: "line 5\n") == "line 5\n")
  }

  @Test(arguments: [true, false]) func endsWhenItIsCancelledOrNobodyReads(isCancelled: Bool) async throws {
    let log = try await Fixture()
    let (error, running) = (try Pipe(), try Pipe())
    var output: Pipe? = try Pipe()
    guard let writer = output?.writer else { return }
    try log.append(Fixture.line(1))
    let request = LogRead(
      container: log.container, output: writer, error: error.writer, follow: true, running: running.reader, tail: nil,
      since: nil, until: nil, timestamps: false)
    let task = Task(executorPreference: log.bus.executor) {
      _ = try await Call(bus: log.bus).stream(request, driver: "json-file") { (_) async throws(EngineError) in }
    }
    #expect(try output?.wait(for: "line 1\n") == "line 1\n")
    if isCancelled { task.cancel() } else { output = nil }
    try await task.value
    _ = output
  }

  @Test func refusesOptionsAndReportsWhatIsNobodys() async throws {
    let log = try await Fixture()
    await #expect(throws: EngineError(.invalidArgument, "unknown log opt 'colour' for json-file log driver")) {
      try await log.bus.request(
        LogOpen(container: log.container, options: ["colour": "red"]), driver: "json-file")
    }
    let name = JSONFileLogsPlugin.manifest.name
    let fine = try await log.bus.request(
      PluginCheck(known: [log.container], running: [], repair: true), driver: name)
    #expect(fine.isEmpty)
    let found = try await log.bus.request(PluginCheck(known: [], running: [], repair: true), driver: name)
    #expect(found.map(\.kind) == [.leftover])
    #expect(!Files.exists(log.path))
    #expect(try await log.bus.request(PluginCheck(known: [], running: [], repair: false), driver: name).isEmpty)
  }

  @Test(
    arguments: [
      ("10m", 10 << 20), ("1k", 1024), ("2GB", 2 << 30), ("1.5k", 1536), ("7", 7), ("-1", Int64.max), ("x", nil),
      ("-5", nil), ("0", nil), ("", nil), ("99999999999g", nil),
    ] as [(String, Int64?)])
  func readsSizes(text: String, size: Int64?) { #expect(LogOptions.size(text) == size) }
}
