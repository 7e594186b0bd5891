import CLinux
import Contracts
import Glibc
import LinuxSystem

/// What the engine relies on in a log driver. The container's shim writes the file that the driver names, one JSON
/// object a line as Docker's json-file does.
struct LogConformance<Subject: ConformanceSubject> {
  let subject: Subject
  let settings: ConformanceSettings
  let points: Points

  func run() async {
    let container = ObjectID.random()
    var path = ""
    await points.check("create") {
      path = try await open(container).path
      guard path.isEmpty || path.hasPrefix("/") else { throw Fault("the path is not absolute: \(path)") }
      try write("first", path)
    }
    await points.check("create twice") {
      let again = try await open(container).path
      if again != path { throw Fault("the path differs the second time: \(again)") }
      try await expect("first", container, path)
    }
    await points.check("read") {
      try await ensure(container, &path)
      try await expect("first", container, path)
    }
    await points.check("unknown name") {
      // Empty or refused: either will do, as long as it answers.
      _ = try? await read(.random())
    }
    await points.check("unknown option") {
      let options = settings.options.merging(["no-such-option": "1"]) { $1 }
      let other = ObjectID.random()
      try await points.expectRefusal("an unknown option", [.invalidArgument], naming: "no-such-option") {
        try await open(other, options)
      }
      try await remove(other)
    }
    await points.check("slow reply") {
      let other = ObjectID.random()
      note(other)
      try await subject.askAndCancel(LogOpen(container: other, options: settings.options))
      _ = try await open(other)
      try await remove(other)
    }
    await points.check("oversized reply") {
      let other = ObjectID.random()
      let options = ["no-such-option": String(repeating: "x", count: 1 << 20)]
      try await points.expectRefusal("an option of a mebibyte", [.invalidArgument]) {
        try await open(other, options)
      }
      try await remove(other)
    }
    await points.check("crash in the middle") {
      let other = ObjectID.random()
      note(other)
      try await subject.askAndKill(LogOpen(container: other, options: settings.options))
      let path = try await open(other).path
      try write("after", path)
      try await expect("after", other, path)
      try await subject.askAndKill(LogRemove(container: other))
      try await remove(other)
    }
    await points.check("restart with state") {
      try await ensure(container, &path)
      try await subject.restart()
      try await expect("first", container, path)
    }
    await points.check("remove twice") {
      try await remove(container)
      try await remove(container)
      if !path.isEmpty, Files.exists(path) { throw Fault("the file \(path) is still there") }
    }
  }

  /// What the kit makes for this container is removed at the end, also where a point fails.
  private func note(_ container: ObjectID) {
    points.note("the log of the container \(container.short)") { try await remove(container) }
  }

  @discardableResult
  private func open(_ container: ObjectID, _ options: [String: String]? = nil) async throws -> LogOpen.Reply {
    note(container)
    return try await subject.ask(LogOpen(container: container, options: options ?? settings.options))
  }

  private func remove(_ container: ObjectID) async throws {
    _ = try await subject.ask(LogRemove(container: container))
    points.forget("the log of the container \(container.short)")
  }

  /// The log is there with its line, also where an earlier point failed.
  private func ensure(_ container: ObjectID, _ path: inout String) async throws {
    if points.has("the log of the container \(container.short)") { return }
    path = try await open(container).path
    try write("first", path)
  }

  private func write(_ text: String, _ path: String) throws {
    if path.isEmpty { return }
    let file = try Files.open(path, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
    let line = "{\"log\":\"\(text)\\n\",\"stream\":\"stdout\",\"time\":\"\(Timestamp.now)\"}\n"
    try Files.writeAll(file.number, Array(line.utf8))
  }

  private func read(_ container: ObjectID) async throws -> String {
    var ends: [Int32] = [-1, -1]
    try SystemCallError.check("pipe2") { pipe2(&ends, O_CLOEXEC) }
    let reading = OwnedDescriptor(adopting: ends[0])
    let writing = Descriptor(adopting: ends[1])
    try await ask(container, writing)
    let number = reading.number
    linux_fcntl(number, F_SETFL, Int(O_NONBLOCK))
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = Glibc.read(number, &buffer, buffer.count)
    return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
  }

  private func ask(_ container: ObjectID, _ output: Descriptor) async throws {
    _ = try await subject.ask(
      LogRead(
        container: container, output: output, error: output, follow: false, running: nil, tail: nil, since: nil,
        until: nil, timestamps: false))
  }

  private func expect(_ text: String, _ container: ObjectID, _ path: String) async throws {
    if path.isEmpty { return }
    let found = try await read(container)
    if found != text + "\n" { throw Fault("the log reads as \"\(found)\" and not as \"\(text)\"") }
  }
}
