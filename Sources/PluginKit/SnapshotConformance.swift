import CLinux
import Contracts
import Glibc
import LinuxSystem

/// What the engine relies on in a snapshot driver: layers kept under their chain IDs, and containers' file systems above
/// them.
struct SnapshotConformance<Subject: ConformanceSubject> {
  let subject: Subject
  let points: Points

  private let first = ObjectID.random()
  private let second = ObjectID.random()
  /// Its files are named after the run, so that no layer is one that the driver has already.
  private let mark = ObjectID.random().short

  init(subject: Subject, points: Points) {
    self.subject = subject
    self.points = points
  }

  func run() async {
    // Chain IDs of the lower and the upper layer.
    var layers: [Digest] = []
    await points.check("create") {
      let reply = try await apply(lower, above: nil)
      guard reply.chainID == reply.differenceID else {
        throw Fault("the chain ID of a lowest layer is not the digest of its stream")
      }
      try await expectLayers([reply.chainID], there: true)
    }
    await points.check("create twice") {
      let (one, two) = (try await apply(lower, above: nil), try await apply(lower, above: nil))
      guard one == two else { throw Fault("the second answer differs: \(one.chainID), \(two.chainID)") }
    }
    await points.check("a layer above") {
      try await ensure(&layers)
      guard Set(layers).count == 2 else { throw Fault("both layers have the chain ID \(layers[0])") }
      try await expectLayers(layers, there: true)
    }
    await points.check("mount") {
      try await ensure(&layers)
      let root = try await mount(first, layers)
      try Self.expect("lower", root, "kept")
      try Self.expect("upper", root, "over")
      if Self.text(root, "gone") != nil { throw Fault("a file that the upper layer removes (.wh.) is there") }
      try Self.write("written", root, "note")
    }
    await points.check("mount twice") {
      try await ensure(&layers)
      try Self.write("written", try await mount(first, layers), "note")
      try Self.expect("written", try await mount(first, layers), "note")
      let other = try await mount(second, layers)
      if Self.text(other, "note") != nil { throw Fault("a container sees what another one has written") }
    }
    await points.check("differences and usage") {
      try await ensure(&layers)
      try Self.write("written", try await mount(first, layers), "note")
      let differences = try await subject.ask(SnapshotDifferences(container: first, layers: layers, ignored: []))
      guard differences == [FileDifference(kind: .added, path: "/note")] else {
        throw Fault("the differences are \(differences.map { "\($0.kind.rawValue) \($0.path)" }) and not A /note")
      }
      let bytes = try await subject.ask(SnapshotUsage(container: first))
      if bytes < 7 { throw Fault("the writable layer has 7 bytes in a file, and the answer is \(bytes)") }
    }
    await points.check("export") {
      try await ensure(&layers)
      try Self.write("exported-\(mark)", try await mount(first, layers), "note")
      let output = try Self.memory([])
      _ = try await subject.ask(SnapshotExport(container: first, layers: layers, output: output))
      let archive = String(decoding: try Self.content(output), as: UTF8.self)
      for word in ["note", "exported-\(mark)", "kept"] where !archive.contains(word) {
        throw Fault("the archive has no \"\(word)\"")
      }
    }
    await points.check("unknown name") {
      guard let unknown = Digest("sha256:" + String(repeating: "0", count: 64)) else { return }
      try await points.expectRefusal("a layer that was never made", [.notFound, .invalidArgument]) {
        try await mount(second, [unknown])
      }
      try await points.expectRefusal("a parent that was never made", [.notFound, .invalidArgument]) {
        try await apply(lower, above: unknown)
      }
      try await remove(second)
    }
    await points.check("another digest") {
      guard let wrong = Digest("sha256:" + String(repeating: "1", count: 64)) else { return }
      let before = try await subject.ask(SnapshotLayers())
      try await points.expectRefusal("a stream with another digest than it must have", [.invalidArgument, .corrupt]) {
        try await apply(archive([.init("other-\(mark)", "other")]), above: nil, must: wrong)
      }
      guard Set(try await subject.ask(SnapshotLayers())) == Set(before) else { throw Fault("the layer is kept") }
    }
    await points.check("a stream that is cut short") {
      let before = try await subject.ask(SnapshotLayers())
      try await points.expectRefusal("half an archive", [.invalidArgument, .corrupt]) {
        try await apply(Array(archive([.init("half-\(mark)", "half")]).prefix(700)), above: nil)
      }
      guard Set(try await subject.ask(SnapshotLayers())) == Set(before) else { throw Fault("the layer is kept") }
    }
    await points.check("slow reply") {
      let stream = archive([.init("slow-\(mark)", "slow")])
      try await subject.askAndCancel(SnapshotApply(parent: nil, differenceID: nil, archive: try Self.memory(stream)))
      try await removeLayers([try await apply(stream, above: nil).chainID])
    }
    await points.check("crash in the middle") {
      let stream = archive([.init("crash-\(mark)", "crash")])
      try await subject.askAndKill(SnapshotApply(parent: nil, differenceID: nil, archive: try Self.memory(stream)))
      let chain = try await apply(stream, above: nil).chainID
      try await subject.askAndKill(SnapshotMount(container: second, layers: [chain], discardable: false))
      try Self.expect("crash", try await mount(second, [chain]), "crash-\(mark)")
      try await subject.askAndKill(SnapshotRemove(container: second))
      try await remove(second)
      try await subject.askAndKill(SnapshotRemoveLayers(chainIDs: [chain]))
      try await removeLayers([chain])
    }
    await points.check("restart with state") {
      try await ensure(&layers)
      try Self.write("kept", try await mount(first, layers), "note")
      _ = try await subject.ask(SnapshotSync())
      try await subject.restart()
      try await expectLayers(layers, there: true)
      try Self.expect("kept", try await mount(first, layers), "note")
    }
    await points.check("remove twice") {
      try await ensure(&layers)
      for container in [first, second, first] { try await remove(container) }
      try await removeLayers(layers)
      try await removeLayers(layers)
      try await expectLayers(layers, there: false)
    }
  }

  // MARK: The messages

  private func apply(
    _ stream: [UInt8], above parent: Digest?, must differenceID: Digest? = nil
  ) async throws -> SnapshotApply.Reply {
    let reply = try await subject.ask(
      SnapshotApply(parent: parent, differenceID: differenceID, archive: try Self.memory(stream)))
    points.note("the layer \(reply.chainID)") { try await removeLayers([reply.chainID]) }
    return reply
  }

  /// Both layers are there, also where an earlier point failed.
  private func ensure(_ layers: inout [Digest]) async throws {
    if layers.count == 2, layers.allSatisfy({ points.has("the layer \($0)") }) { return }
    let below = try await apply(lower, above: nil).chainID
    layers = [below, try await apply(upper, above: below).chainID]
  }

  private func mount(_ container: ObjectID, _ layers: [Digest]) async throws -> Descriptor {
    points.note("the file system of the container \(container.short)") { try await remove(container) }
    return try await subject.ask(SnapshotMount(container: container, layers: layers, discardable: false)).root
  }

  private func remove(_ container: ObjectID) async throws {
    _ = try await subject.ask(SnapshotRemove(container: container))
    points.forget("the file system of the container \(container.short)")
  }

  private func removeLayers(_ chains: [Digest]) async throws {
    _ = try await subject.ask(SnapshotRemoveLayers(chainIDs: chains))
    for chain in chains { points.forget("the layer \(chain)") }
  }

  private func expectLayers(_ chains: [Digest], there isThere: Bool) async throws {
    let all = Set(try await subject.ask(SnapshotLayers()))
    for chain in chains where all.contains(chain) != isThere {
      throw Fault("\(SnapshotLayers.name) \(isThere ? "does not tell" : "still tells") the layer \(chain)")
    }
  }

  // MARK: Archives

  private struct Entry {
    var name: String
    var text: String

    init(_ name: String, _ text: String) { (self.name, self.text) = (name, text) }
  }

  private var lower: [UInt8] {
    archive([.init("kept", "lower"), .init("over", "lower"), .init("gone", "lower"), .init(mark, mark)])
  }

  private var upper: [UInt8] { archive([.init("over", "upper"), .init(".wh.gone", "")]) }

  /// A tar archive of regular files, in the format of POSIX.1-1988 (ustar).
  private func archive(_ entries: [Entry]) -> [UInt8] {
    var bytes: [UInt8] = []
    for entry in entries {
      var header = [UInt8](repeating: 0, count: 512)
      func put(_ offset: Int, _ text: String) {
        for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
      }
      func octal(_ value: Int, _ width: Int) -> String {
        let text = String(value, radix: 8)
        return String(repeating: "0", count: width - text.utf8.count) + text
      }
      put(0, entry.name)
      put(100, octal(0o644, 7))
      put(108, octal(0, 7))
      put(116, octal(0, 7))
      put(124, octal(entry.text.utf8.count, 11))
      put(136, octal(1_700_000_000, 11))
      put(148, "        ")
      put(156, "0")
      put(257, "ustar")
      put(263, "00")
      put(148, octal(header.reduce(0) { $0 + Int($1) }, 6) + "\0 ")
      bytes += header + Array(entry.text.utf8)
      bytes += [UInt8](repeating: 0, count: (512 - entry.text.utf8.count % 512) % 512)
    }
    return bytes + [UInt8](repeating: 0, count: 1024)
  }

  // MARK: Files

  private static func memory(_ bytes: [UInt8]) throws -> Descriptor {
    let file = Descriptor(
      adopting: try SystemCallError.check("memfd_create") {
        linux_memfd_create("conformance", UInt32(MFD_CLOEXEC))
      })
    try Files.writeAll(file.number, bytes)
    try SystemCallError.check("lseek") { lseek(file.number, 0, SEEK_SET) }
    return file
  }

  private static func content(_ file: Descriptor) throws -> [UInt8] {
    try SystemCallError.check("lseek") { lseek(file.number, 0, SEEK_SET) }
    return try Files.readAll(file.number)
  }

  private static func text(_ root: Descriptor, _ name: String) -> String? {
    guard let file = try? Files.open(at: root.number, name, O_RDONLY), let bytes = try? Files.readAll(file.number)
    else {
      return nil
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func write(_ text: String, _ root: Descriptor, _ name: String) throws {
    let file = try Files.open(at: root.number, name, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    try Files.writeAll(file.number, Array(text.utf8))
  }

  private static func expect(_ text: String, _ root: Descriptor, _ name: String) throws {
    let found = Self.text(root, name)
    if found != text {
      throw Fault("the file \(name) holds \(found.map { "\"\($0)\"" } ?? "nothing") and not \"\(text)\"")
    }
  }
}
