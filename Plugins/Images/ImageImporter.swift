import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// Makes an image of one layer from a root file system.
struct ImageImporter: Sendable {
  let store: ImageStore
  let collector: LayerCollector
  let layers: LocalLayers

  func run(
    _ request: ImageImport, _ call: Call, _ sink: Sink<ImageProgress>, _ interruption: Interruption
  ) async throws(EngineError) -> Digest {
    // What the user said wrong is told before anything is read.
    let execution = try ImportChanges.apply(request.changes)
    let reference = try request.reference.map { (text) throws(EngineError) in try Self.target(text) }
    return try await collector.during { (applied) async throws(EngineError) in
      let (layer, blob) = try await layers.unpack(
        request.archive, path: nil, digest: nil, parent: nil, differenceID: nil, subject: "the archive", interruption,
        call)
      applied.add(layer.chainID)
      FaultPoint.reach("images.import.applied")
      let image = try Self.image(layer, blob, execution, comment: request.comment)
      if interruption.isInterrupted { throw EngineError(.cancelled, "the import was cancelled") }
      let names = reference.map { [NewReference($0, image.id, manifest: image.record.manifest)] } ?? []
      try await store.commit([image], references: names, .now, applied, call)
      try await sink.yield(ImageProgress(item: "", status: image.id.description))
      return image.id
    }
  }

  /// A name that an image may be given.
  static func target(_ text: String) throws(EngineError) -> ImageReference {
    let reference = try ImageReference(parsing: text)
    if reference.digest != nil {
      throw EngineError(.invalidArgument, "refusing to create a tag with a digest reference: \(text)")
    }
    if reference.familiarRepository == "sha256" {
      throw EngineError(.invalidArgument, "refusing to create an ambiguous tag using digest algorithm as name: \(text)")
    }
    return reference
  }

  private static func image(
    _ layer: SnapshotApply.Reply, _ blob: ContentDescriptor, _ execution: ImageConfiguration.Execution, comment: String?
  ) throws(EngineError) -> NewImage {
    let now = Timestamp.now
    var configuration = ImageConfiguration(
      architecture: architecture, os: "linux", rootfs: .init(differenceIDs: [layer.differenceID]))
    configuration.created = now
    configuration.config = execution
    configuration.history = [.init(created: now, createdBy: nil, comment: comment ?? "Imported from -")]
    let bytes = try JSON.encode(configuration)
    let id = try SHA256.digest(of: bytes)
    let manifest = try ManifestWriter.manifest(configuration: bytes, id: id, layers: [blob])
    return NewImage(
      id: id, configuration: bytes, parsed: configuration, manifest: manifest.bytes,
      record: ImageRecord(
        layers: [layer.chainID], size: layer.size, stored: now, manifest: manifest.digest, repositoryDigests: [],
        content: [blob.digest], layerSizes: [layer.size]))
  }

  /// Go's name of this machine's architecture, as image configurations have it.
  static var architecture: String {
    var name = utsname()
    uname(&name)
    let machine = withUnsafeBytes(of: &name.machine) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    switch machine {
    case "x86_64": return "amd64"
    case "aarch64": return "arm64"
    case "armv7l": return "arm"
    case "i686", "i586", "i386": return "386"
    default: return machine
    }
  }
}
