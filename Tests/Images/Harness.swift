import CLinux
import Contracts
import Glibc
import ImagesPlugin
import Kernel
import LinuxSystem
import OverlaySnapshotsPlugin
import Synchronization
import Testing

/// A bus with the plugins under test on it, in a directory of its own that goes with it.
final class Harness: Sendable {
  let root: String
  let bus: Bus
  let journal: Journal
  let overlay: OverlaySnapshotsPlugin
  let ownsRoot: Bool

  static var isRoot: Bool { geteuid() == 0 }

  init(root given: String? = nil, configuration: [String: String] = [:]) async throws {
    var template = Array("/tmp/engine-images-XXXXXX".utf8CString)
    if let given {
      root = given
    } else {
      root = String(cString: try #require(mkdtemp(&template)))
    }
    ownsRoot = given == nil
    bus = Bus()
    try Files.makeDirectories("\(root)/run")
    journal = try Journal(path: "\(root)/run/journal")
    overlay = try OverlaySnapshotsPlugin(
      host: PluginHost(
        manifest: OverlaySnapshotsPlugin.manifest, bus: bus, instance: Self.instance(root), journal: journal,
        configuration: configuration))
    try overlay.register(Registrar(bus: bus, manifest: OverlaySnapshotsPlugin.manifest))
    bus.setDefaultDriver(
      "overlay",
      for: [
        SnapshotApply.self, SnapshotRemoveLayers.self, SnapshotLayers.self, SnapshotMount.self, SnapshotRemove.self,
        SnapshotUsage.self, SnapshotSync.self, SnapshotExport.self,
      ])
    try await overlay.start()
  }

  deinit {
    if ownsRoot { try? Files.removeTree(root) }
  }

  static func instance(_ root: String) -> Instance {
    Instance(
      root: root, runtimeDirectory: "\(root)/run", hash: "00000000", isDefault: false, daemonPath: "", shimPath: "",
      version: "test")
  }

  var state: String { "\(root)/snapshots-overlay" }
  var layerDirectory: String { "\(state)/layers" }

  /// Names in a directory; none when it is not there.
  /// What is in a directory, but for the directories that are kept ready there.
  func names(_ path: String) -> [String] {
    ((try? Files.list(path)) ?? []).filter { !$0.hasPrefix(DirectoryPool.prefix) }.sorted()
  }

  func apply(
    _ archive: [UInt8], parent: Digest? = nil, differenceID: Digest? = nil
  ) async throws -> SnapshotApply.Reply {
    try await bus.request(
      SnapshotApply(parent: parent, differenceID: differenceID, archive: try memory(archive)))
  }

  func mount(_ container: ObjectID, _ layers: [Digest], discardable: Bool = false) async throws -> Descriptor {
    try await bus.request(SnapshotMount(container: container, layers: layers, discardable: discardable)).root
  }

  func tree(_ chain: Digest) -> String { "\(layerDirectory)/\(chain.hex)/diff" }
}

/// Bytes as a file that nobody else sees, positioned at its start.
func memory(_ bytes: [UInt8]) throws -> Descriptor {
  let number = linux_memfd_create("test", 1)
  try #require(number >= 0)
  try Files.writeAll(number, bytes)
  lseek(number, 0, SEEK_SET)
  return Descriptor(adopting: number)
}

/// The read end of a pipe into which a thread writes the bytes; with `hold`, the write end stays open afterwards.
func pipeline(_ bytes: [UInt8]) throws -> Descriptor {
  var ends: [Int32] = [0, 0]
  try #require(pipe2(&ends, O_CLOEXEC) == 0)
  let writer = OwnedDescriptor(adopting: ends[1])
  let number = writer.release()
  _ = Thread.start {
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &set, nil)
    try? Files.writeAll(number, bytes)
    close(number)
  }
  return Descriptor(adopting: ends[0])
}

func text(_ root: Descriptor, _ path: String) throws -> String {
  let file = try Files.open(inRoot: root.number, path, O_RDONLY)
  return String(decoding: try Files.readAll(file.number), as: UTF8.self)
}

func status(_ path: String) -> stat? {
  var status = stat()
  return lstat(path, &status) == 0 ? status : nil
}

func waitUntil(_ condition: @Sendable () async throws -> Bool) async throws {
  for _ in 0..<12_000 {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(5))
  }
  Issue.record("it did not come true within a minute")
}

/// The record store, in memory: what was written is seen by the next harness on the same store.
final class FakeRecords: Sendable {
  let records = Mutex<[String: [String: String]]>([:])
  let failure = Mutex<EngineError?>(nil)

  func register(_ bus: Bus) throws {
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "fake-records", role: "records"))
    try registrar.answer(RecordWrite.self) { request, _ throws(EngineError) in
      if let error = self.failure.withLock({ $0 }) { throw error }
      self.records.withLock { records in
        for record in request.put { records[record.kind, default: [:]][record.key] = record.value }
        for key in request.delete { records[key.kind]?[key.key] = nil }
      }
      return Done()
    }
    try registrar.answer(RecordRead.self) { request, _ throws(EngineError) in
      self.records.withLock { $0[request.kind] ?? [:] }.sorted { $0.key < $1.key }
        .map { Record(kind: request.kind, key: $0.key, value: $0.value) }
    }
  }
}

/// A harness with the images plugin too, and containers as the test says.
struct ImagesHarness {
  let base: Harness
  let plugin: ImagesPlugin
  let records: FakeRecords
  let users: UserList

  final class UserList: Sendable {
    let users = Mutex<[ContainerUsers.User]>([])
  }

  init(root: String? = nil, records: FakeRecords = FakeRecords(), configuration: [String: String] = [:]) async throws {
    base = try await Harness(root: root)
    self.records = records
    try records.register(base.bus)
    let users = UserList()
    self.users = users
    try Registrar(bus: base.bus, manifest: PluginManifest(name: "fake-containers", role: "container"))
      .answer(ContainerUsers.self) { _, _ throws(EngineError) in users.users.withLock { $0 } }
    plugin = try ImagesPlugin(
      host: PluginHost(
        manifest: ImagesPlugin.manifest, bus: base.bus, instance: Harness.instance(base.root), journal: base.journal,
        configuration: configuration))
    try plugin.register(Registrar(bus: base.bus, manifest: ImagesPlugin.manifest))
    try await plugin.start()
  }

  var bus: Bus { base.bus }

  func importing(
    _ archive: Descriptor, _ reference: String? = nil, changes: [String] = []
  ) async throws(EngineError) -> Digest {
    try await streaming(ImageImport(archive: archive, reference: reference, changes: changes, comment: nil))
  }

  func loading(_ archive: Descriptor) async throws(EngineError) -> [String] {
    try await streaming(ImageLoad(archive: archive))
  }

  /// A root request as a connection makes one: on the bus's own threads, because handlers may block, with a lease that is
  /// released when it fails.
  func streaming<R: StreamRequest>(_ request: R, lease: Lease = Lease()) async throws(EngineError) -> R.Reply {
    let call = Call(bus: bus, lease: lease)
    let result = await Task(executorPreference: bus.executor) { () async -> Result<R.Reply, EngineError> in
      do throws(EngineError) {
        return .success(try await call.stream(request) { _ throws(EngineError) in })
      } catch {
        await lease.release()
        return .failure(error)
      }
    }.value
    return try result.get()
  }

  func pulling(
    _ reference: String, platform: String? = nil, allTags: Bool = false, policy: ImagePullPolicy = .always
  ) async throws(EngineError) -> [PulledImage] {
    try await streaming(ImagePull(reference: reference, platform: platform, allTags: allTags, policy: policy))
  }

  func resolve(_ text: String) async throws -> ImageDescription {
    try await bus.request(ImageResolve(reference: text))
  }

  /// What is on disk beyond images that are recorded: must be empty after any failure.
  var leftovers: [String] {
    let images = records.records.withLock { $0["image"] ?? [:] }
    // The digests that a record names are those of its manifest and layers.
    let kept = images.reduce(into: Set<String>()) { kept, image in
      kept.insert(image.key)
      for part in image.value.split(separator: "\"") where part.hasPrefix("sha256:") {
        kept.insert(String(part.dropFirst(7)))
      }
    }
    let blobs = base.names("\(base.root)/images/blobs/sha256").filter { !kept.contains($0) }
    // Whole or half, what has a digest is resumed by the next pull.
    let ingest = base.names("\(base.root)/images/ingest").filter { Digest(hex: $0) == nil }
    let temporary = base.names("\(base.root)/images/tmp")
    let layers = images.isEmpty ? base.names(base.layerDirectory) : []
    let half = base.names(base.layerDirectory).filter { $0.hasPrefix("tmp-") }
    return blobs + ingest + temporary + layers + half
  }
}

/// Runs a shell command of the test's own and fails the test when that fails.
@discardableResult
func shell(_ command: String) throws -> String {
  guard let stream = popen("{ \(command) ; } 2>&1", "re") else {
    throw SystemCallError(call: "popen", subject: command, number: errno)
  }
  var output: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = fread(&buffer, 1, buffer.count, stream)
    if count == 0 { break }
    output += buffer[..<count]
  }
  let text = String(decoding: output, as: UTF8.self)
  let result = pclose(stream)
  try #require(result == 0, "\(command): \(text)")
  return text
}
