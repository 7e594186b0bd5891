import CLinux
import Contracts
import Glibc
import LinuxSystem

/// What the engine relies on in a volume driver.
struct VolumeConformance<Subject: ConformanceSubject> {
  let subject: Subject
  let settings: ConformanceSettings
  let points: Points

  private let first = ObjectID.random()
  private let second = ObjectID.random()
  private let name = "conformance-\(ObjectID.random().short)"

  init(subject: Subject, settings: ConformanceSettings, points: Points) {
    self.subject = subject
    self.settings = settings
    self.points = points
  }

  func run() async {
    let name = name
    await points.check("create") {
      let reply = try await create(name)
      guard reply.mountpoint.isEmpty || reply.mountpoint.hasPrefix("/") else {
        throw Fault("the mountpoint is no absolute path: \(reply.mountpoint)")
      }
    }
    await points.check("create twice") {
      let (one, two) = (try await create(name), try await create(name))
      guard one == two else { throw Fault("the second answer differs: \(one.mountpoint), \(two.mountpoint)") }
    }
    await points.check("mount") {
      try await ensure(name)
      let mounted = try await mount(name, first)
      try Self.write("first", mounted)
      try Self.expect("first", mounted)
    }
    await points.check("mount twice") {
      try await ensure(name)
      try Self.write("twice", try await mount(name, first))
      try Self.expect("twice", try await mount(name, second))
    }
    await points.check("unmount") {
      try await ensure(name)
      try Self.write("kept", try await mount(name, first))
      try await unmount(name, second)
      try await unmount(name, second)
      try Self.expect("kept", try await mount(name, second))
      try await unmount(name, second)
    }
    await points.check("remove in use") {
      try await ensure(name)
      let mounted = try await mount(name, first)
      try Self.write("used", mounted)
      try await points.expectRefusal("the removal of a mounted volume", [.inUse]) { try await remove(name) }
      try Self.expect("used", mounted)
      try await unmount(name, first)
    }
    await points.check("remove twice") {
      try await ensure(name)
      try await remove(name)
      try await remove(name)
    }
    await points.check("unknown name") {
      // Refused, or made on first use; but never somebody else's data.
      do {
        let mount = VolumeDriverMount(volume: "\(name)-unknown", container: first, options: [:])
        note("\(name)-unknown")
        let directory = try Self.directory(try await subject.ask(mount))
        if (try? Files.open(at: directory.number, "conformance", O_RDONLY)) != nil {
          throw Fault("a volume that was never made has another one's data")
        }
      } catch let error as EngineError {
        guard [.notFound, .invalidArgument].contains(error.code) else { throw error }
      }
      try await unmount("\(name)-unknown", first)
      try await remove("\(name)-unknown")
    }
    await points.check("unknown option") {
      let options = settings.options.merging(["no-such-option": "1"]) { $1 }
      try await points.expectRefusal("an unknown option", [.invalidArgument], naming: "no-such-option") {
        try await create("\(name)-option", options)
      }
      try await remove("\(name)-option")
    }
    await points.check("slow reply") {
      note("\(name)-slow")
      try await subject.askAndCancel(VolumeDriverCreate(volume: "\(name)-slow", options: settings.options))
      _ = try await create("\(name)-slow")
      try await remove("\(name)-slow")
    }
    await points.check("oversized reply") {
      let options = ["no-such-option": String(repeating: "x", count: 1 << 20)]
      try await points.expectRefusal("an option of a mebibyte", [.invalidArgument]) {
        try await create("\(name)-large", options)
      }
      try await remove("\(name)-large")
    }
    await points.check("crash in the middle") {
      let name = "\(name)-crash"
      note(name)
      try await subject.askAndKill(VolumeDriverCreate(volume: name, options: settings.options))
      _ = try await create(name)
      try await subject.askAndKill(VolumeDriverMount(volume: name, container: first, options: settings.options))
      try Self.write("after", try await mount(name, first))
      try await unmount(name, first)
      try await subject.askAndKill(VolumeDriverRemove(volume: name))
      try await remove(name)
    }
    await points.check("restart with state") {
      let name = "\(name)-state"
      _ = try await create(name)
      try Self.write("kept", try await mount(name, first))
      try await unmount(name, first)
      try await subject.restart()
      try Self.expect("kept", try await mount(name, second))
      try await unmount(name, second)
      try await remove(name)
    }
  }

  // MARK: The messages

  /// What the kit makes under this name is removed at the end, also where a point fails.
  private func note(_ name: String) {
    points.note("the volume \(name)") {
      try await unmount(name, first)
      try await unmount(name, second)
      try await remove(name)
    }
  }

  @discardableResult
  private func create(_ name: String, _ options: [String: String]? = nil) async throws -> VolumeDriverCreate.Reply {
    note(name)
    return try await subject.ask(VolumeDriverCreate(volume: name, options: options ?? settings.options))
  }

  /// The volume is there, also where an earlier point failed.
  private func ensure(_ name: String) async throws {
    if !points.has("the volume \(name)") { try await create(name) }
  }

  private func remove(_ name: String) async throws {
    _ = try await subject.ask(VolumeDriverRemove(volume: name))
    points.forget("the volume \(name)")
  }

  private func unmount(_ name: String, _ container: ObjectID) async throws {
    _ = try await subject.ask(VolumeDriverUnmount(volume: name, container: container))
  }

  /// - Returns: the volume's directory, opened.
  private func mount(_ name: String, _ container: ObjectID) async throws -> Descriptor {
    try Self.directory(
      try await subject.ask(VolumeDriverMount(volume: name, container: container, options: settings.options)))
  }

  private static func directory(_ reply: VolumeDriverMount.Reply) throws -> Descriptor {
    let directory: Descriptor
    if let mount = reply.mount {
      directory = mount
    } else {
      guard reply.path.hasPrefix("/") else { throw Fault("the path is not absolute: \"\(reply.path)\"") }
      do {
        directory = Descriptor(adopting: try Files.open(reply.path, O_RDONLY | O_DIRECTORY).release())
      } catch {
        throw Fault("the path that it tells is no directory: \(error)")
      }
    }
    var status = stat()
    guard fstat(directory.number, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
      throw Fault("what it gives is no directory")
    }
    return directory
  }

  private static func write(_ text: String, _ directory: Descriptor) throws {
    let file = try Files.open(at: directory.number, "conformance", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    try Files.writeAll(file.number, Array(text.utf8))
  }

  private static func expect(_ text: String, _ directory: Descriptor) throws {
    let found: String
    do {
      let file = try Files.open(at: directory.number, "conformance", O_RDONLY)
      found = String(decoding: try Files.readAll(file.number), as: UTF8.self)
    } catch {
      throw Fault("what was written is not there: \(error)")
    }
    if found != text { throw Fault("the volume holds \"\(found)\" and not \"\(text)\"") }
  }
}
