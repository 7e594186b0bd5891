import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// Writes images with the bytes they came with: an archive that is a docker-archive and an OCI layout at once, or a
/// layout in a directory.
struct ImageSaver: Sendable {
  let store: ImageStore
  let collector: LayerCollector

  private struct Saved {
    var id: Digest
    var manifest: StoredManifest
    var references: [ImageReference]
  }

  /// One image of a docker-archive's `manifest.json`.
  private struct Entry: Encodable {
    var configuration: String
    var repositoryTags: [String]?
    var layers: [String]

    enum CodingKeys: String, CodingKey {
      case configuration = "Config"
      case repositoryTags = "RepoTags"
      case layers = "Layers"
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(configuration, forKey: .configuration)
      // `null` for none, as Docker writes it.
      try container.encode(repositoryTags, forKey: .repositoryTags)
      try container.encode(layers, forKey: .layers)
    }
  }

  func run(_ request: ImageSave, _ call: Call, _ sink: Sink<ImageProgress>) async throws(EngineError) -> Done {
    // While this counts as work on images, no blob is removed under its hands.
    try await collector.during { (_) async throws(EngineError) in
      let images = try select(request.references, try ManifestReader.platform(request.platform))
      ArchiveWriter.blockBrokenPipes()
      if Files.isDirectory(request.output) {
        try write(images, to: request.output)
      } else {
        try write(images, asArchive: request.output)
      }
      return Done()
    }
  }

  private func select(_ texts: [String], _ platform: ImagePlatform?) throws(EngineError) -> [Saved] {
    var images: [Saved] = []
    func add(_ record: ReferenceRecord, _ references: [ImageReference]) throws(EngineError) {
      guard let image = store.image(record.image) else { throw ImageStore.notFound("\(record.image)") }
      if let platform {
        try image.description.configuration.check(
          for: platform, name: references.first?.familiar ?? record.image.short)
      }
      let manifest = try store.manifest(of: record)
      if let index = images.firstIndex(where: { $0.manifest.digest == manifest.digest }) {
        images[index].references += references.filter { !images[index].references.contains($0) }
      } else {
        images.append(Saved(id: record.image, manifest: manifest, references: references))
      }
    }
    for text in texts {
      // A repository without a tag means every tag of it.
      if (try? ImageReference.isBare(text)) == true {
        let all = store.references(inRepositoryOf: try ImageReference(parsing: text))
        if !all.isEmpty {
          for (reference, record) in all { try add(record, [reference]) }
          continue
        }
      }
      let record = try store.lookup(text)
      let reference = (try? ImageReference(parsing: text)).flatMap { reference in
        reference.digest == nil && store.named(reference) == record ? reference : nil
      }
      try add(record, reference.map { [$0] } ?? [])
    }
    return images
  }

  // MARK: The documents

  private static func index(_ images: [Saved]) throws(EngineError) -> [UInt8] {
    var manifests: [ContentDescriptor] = []
    for image in images {
      var descriptor = ContentDescriptor(
        mediaType: image.manifest.mediaType, digest: image.manifest.digest, size: Int64(image.manifest.bytes.count))
      if image.references.isEmpty { manifests.append(descriptor) }
      for reference in image.references {
        descriptor.annotations = [
          "io.containerd.image.name": reference.description,
          "org.opencontainers.image.ref.name": reference.tag ?? "latest",
        ]
        manifests.append(descriptor)
      }
    }
    return try JSON.encode(ImageIndex(manifests: manifests))
  }

  private static func dockerManifest(_ images: [Saved]) throws(EngineError) -> [UInt8] {
    try JSON.encode(
      images.map { image in
        Entry(
          configuration: path(image.id),
          repositoryTags: image.references.isEmpty ? nil : image.references.map(\.familiar),
          layers: image.manifest.manifest.layers.map { path($0.digest) })
      })
  }

  private static let layout = Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8)

  private static func path(_ digest: Digest) -> String { "blobs/sha256/\(digest.hex)" }

  private static func blobs(_ images: [Saved]) -> [Digest] {
    images.reduce(into: Set<Digest>()) { blobs, image in
      blobs.formUnion([image.id, image.manifest.digest] + image.manifest.manifest.layers.map(\.digest))
    }.sorted()
  }

  // MARK: Writing

  private func write(_ images: [Saved], asArchive output: Descriptor) throws(EngineError) {
    let archive = try ArchiveWriter(output, subject: "the archive")
    try archive.addDirectory("blobs/")
    try archive.addDirectory("blobs/sha256/")
    for digest in Self.blobs(images) {
      if Task.isCancelled { throw EngineError(.cancelled, "interrupted") }
      try archive.add(Self.path(digest), from: try store.content.open(digest))
    }
    try archive.add("index.json", try Self.index(images))
    try archive.add("manifest.json", try Self.dockerManifest(images))
    try archive.add("oci-layout", Self.layout)
    try archive.finish()
  }

  private func write(_ images: [Saved], to directory: Descriptor) throws(EngineError) {
    do throws(SystemCallError) {
      for name in ["blobs", "blobs/sha256"] where mkdirat(directory.number, name, 0o755) < 0 && errno != EEXIST {
        throw SystemCallError(call: "mkdir", subject: name, number: errno)
      }
      for digest in Self.blobs(images) {
        try copy(digest, to: directory.number)
      }
    } catch {
      throw Storage.error("the layout cannot be written", error)
    }
    let index = try Self.index(images)
    do throws(SystemCallError) {
      try Self.put(Self.layout, directory.number, "oci-layout")
      // Last, so that what is half written is no layout.
      try Self.put(index, directory.number, "index.json")
    } catch {
      throw Storage.error("the layout cannot be written", error)
    }
  }

  private func copy(_ digest: Digest, to directory: Int32) throws(SystemCallError) {
    guard let source = store.content.openWhole(digest) else {
      throw SystemCallError(call: "open", subject: "\(digest)", number: ENOENT)
    }
    let path = Self.path(digest)
    let target = try Files.open(at: directory, path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    while true {
      let count = try SystemCallError.check("copy_file_range", path) {
        copy_file_range(source.number, nil, target.number, nil, 1 << 30, 0)
      }
      if count == 0 { return }
    }
  }

  private static func put(_ bytes: [UInt8], _ directory: Int32, _ name: String) throws(SystemCallError) {
    let file = try Files.open(at: directory, name, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    try Files.writeAll(file.number, bytes, subject: name)
  }
}

extension Files {
  static func isDirectory(_ descriptor: Descriptor) -> Bool {
    var status = stat()
    return fstat(descriptor.number, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }
}
