import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

@testable import BindVolumePlugin
@testable import LocalVolumePlugin
@testable import TmpfsVolumePlugin
@testable import VolumeCatalogPlugin

/// Records in memory, shared by the fixtures of one test as the store on disk would be.
final class FakeRecords: Sendable {
  let records = Mutex<[String: Record]>([:])
  let durabilities = Mutex<[String: Durability]>([:])
}

/// The volume plugins on a bus of their own. A new engine after a crash is a second one made `after` the first.
final class VolumeFixture: Sendable {
  static let manifests = [
    LocalVolumePlugin.manifest, BindVolumePlugin.manifest, TmpfsVolumePlugin.manifest, VolumeCatalogPlugin.manifest,
  ]
  let bus = Bus()
  let records: FakeRecords
  let directory: String
  let journal: Journal
  let users = Mutex<[String: [ContainerUsers.User]]>([:])
  private let plugins: [any Plugin]

  init(after former: VolumeFixture? = nil) async throws {
    records = former?.records ?? FakeRecords()
    directory = former?.directory ?? "/tmp/engine-volumes-\(ObjectID.random().short)"
    try Files.makeDirectories(directory)
    journal = try Journal(path: "\(directory)/journal")
    let instance = Instance(
      root: directory, runtimeDirectory: "\(directory)/run", hash: "0", isDefault: false, daemonPath: "", shimPath: "",
      version: "1")
    let (bus, journal) = (bus, journal)
    func host(_ manifest: PluginManifest) -> PluginHost {
      PluginHost(manifest: manifest, bus: bus, instance: instance, journal: journal)
    }
    plugins = [
      try LocalVolumePlugin(host: host(LocalVolumePlugin.manifest)),
      try BindVolumePlugin(host: host(BindVolumePlugin.manifest)),
      try TmpfsVolumePlugin(host: host(TmpfsVolumePlugin.manifest)),
      try VolumeCatalogPlugin(host: host(VolumeCatalogPlugin.manifest)),
    ]
    let fake = Registrar(bus: bus, manifest: PluginManifest(name: "fake", role: "records"))
    let records = records
    try fake.answer(RecordWrite.self) { (request, _) async throws(EngineError) in
      records.records.withLock { records in
        for key in request.delete { records[key.key] = nil }
        for record in request.put { records[record.key] = record }
      }
      records.durabilities.withLock { durabilities in
        for record in request.put { durabilities[record.key] = request.durability }
      }
      return Done()
    }
    try fake.answer(RecordRead.self) { (request, _) async throws(EngineError) in
      records.records.withLock { Array($0.values) }.filter { $0.kind == request.kind }
    }
    try fake.answer(ContainerUsers.self) { [self] (request, _) async throws(EngineError) in
      guard case .volume(let name) = request.resource else { return [] }
      return users.withLock { $0[name] ?? [] }
    }
    for (plugin, manifest) in zip(plugins, Self.manifests) {
      try plugin.register(Registrar(bus: bus, manifest: manifest))
    }
    for plugin in plugins { try await plugin.start() }
  }

  func create(
    _ name: String?, driver: String? = nil, options: [String: String] = [:]
  ) async throws -> Volume {
    try await bus.request(VolumeCreate(volumeName: name, driver: driver, options: options, labels: [:]))
  }

  /// Prepares and mounts for a container that `root` is the root of.
  func mount(
    _ mounts: [MountRequest], container: ObjectID = .random(), root: String
  ) async throws -> VolumeMount.Reply {
    let points = try await bus.request(VolumePrepare(container: container, mounts: mounts))
    return try await bus.request(
      VolumeMount(container: container, mounts: mounts, points: points, root: try openRoot(root)))
  }

  func openRoot(_ path: String) throws -> Descriptor {
    Descriptor(adopting: try Mounts.clone(path, recursive: true).release())
  }

  /// A directory for a test's own use.
  func scratch(_ name: String) throws -> String {
    let path = "\(directory)/scratch/\(name)"
    try Files.makeDirectories(path, mode: 0o755)
    return path
  }

  func check(repair: Bool = false) async throws -> [SystemDifference] {
    var result: [SystemDifference] = []
    for manifest in Self.manifests where manifest.driver != "bind" {
      result += try await bus.request(
        PluginCheck(known: [], running: [], repair: repair), driver: manifest.name)
    }
    return result
  }

  /// Checks until nothing drains any more; at most some seconds.
  func settle() async throws -> [SystemDifference] {
    for _ in 0..<500 {
      let differences = try await check()
      if !differences.contains(where: { $0.kind == .draining }) { return differences }
      await bus.timekeeper.sleep(.milliseconds(10))
    }
    return try await check()
  }

  func close() {
    for name in (try? Files.list("\(directory)/run/volume-tmpfs")) ?? [] {
      umount2("\(directory)/run/volume-tmpfs/\(name)", Int32(MNT_DETACH))
    }
    for name in (try? Files.list("\(directory)/volume-local/volumes")) ?? [] {
      umount2("\(directory)/volume-local/volumes/\(name)/_data", Int32(MNT_DETACH))
    }
    try? Files.removeTree(directory)
  }
}

func write(_ path: String, _ text: String) throws {
  let file = try Files.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
  try Files.writeAll(file.number, Array(text.utf8))
}

/// The content of a file in a mount, or nil.
func read(_ mount: Descriptor, _ path: String) -> String? {
  guard let file = try? Files.open(at: mount.number, path, O_RDONLY),
    let bytes = try? Files.readAll(file.number)
  else { return nil }
  return String(decoding: bytes, as: UTF8.self)
}

/// The error number of making a file in a mount, or 0.
func errorOfWriting(_ mount: Descriptor, _ path: String) -> Int32 {
  do throws(SystemCallError) {
    let file = try Files.open(at: mount.number, path, O_WRONLY | O_CREAT, mode: 0o644)
    try Files.writeAll(file.number, [120])
    return 0
  } catch {
    return error.number
  }
}
