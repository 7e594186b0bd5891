import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Wire

/// Unpacks layers that come from this machine: members of archives, files of a layout, the stream of an import. Each
/// becomes a blob as one that was pulled does.
struct LocalLayers: Sendable {
  let content: ContentStore
  let settings: ImageSettings

  /// - Parameters:
  ///   - source: the layer, compressed or not, read to its end.
  ///   - path: a file of ours that has the same bytes, of which the blob is made without a copy.
  ///   - digest: what the blob's digest must be, or nil to take what comes.
  /// - Returns: what the unpacking said, and the blob.
  func unpack(
    _ source: Descriptor, path: String?, digest: Digest?, parent: Digest?, differenceID: Digest?,
    subject: String, _ interruption: Interruption, _ call: Call
  ) async throws(EngineError) -> (layer: SnapshotApply.Reply, blob: ContentDescriptor) {
    if let path, Decompression.isPlainFile(source.number) {
      let layer = try await call.request(
        SnapshotApply(
          parent: parent, differenceID: differenceID, archive: source, limit: settings.layerLimit))
      let size = Files.status(path).map { Int64($0.st_size) } ?? 0
      try Self.check(layer.differenceID, digest, subject)
      try await content.adopt(path, as: layer.differenceID, keepsPath: true)
      return (
        layer, ContentDescriptor(mediaType: MediaType.ociLayer, digest: layer.differenceID, size: size)
      )
    }
    let temporary = path == nil ? try content.makeTemporary() : nil
    do throws(EngineError) {
      let (layer, outcome) = try await pump(
        source, kept: temporary?.file, parent: parent, differenceID: differenceID, subject: subject, interruption, call)
      try Self.check(outcome.digest, digest, subject)
      if let path {
        try await content.adopt(path, as: outcome.digest, keepsPath: true)
      } else if let temporary {
        try await content.adopt(temporary.path, as: outcome.digest, keepsPath: false)
      }
      let type = MediaType.ociLayer + (outcome.format == .gzip ? "+gzip" : outcome.format == .zstd ? "+zstd" : "")
      return (layer, ContentDescriptor(mediaType: type, digest: outcome.digest, size: outcome.size))
    } catch {
      if let temporary { unlink(temporary.path) }
      throw error
    }
  }

  private static func check(_ actual: Digest, _ expected: Digest?, _ subject: String) throws(EngineError) {
    guard let expected, actual != expected else { return }
    throw EngineError(.invalidArgument, "\(subject) is damaged: its digest is \(actual), not \(expected)")
  }

  private func pump(
    _ source: Descriptor, kept: Descriptor?, parent: Digest?, differenceID: Digest?, subject: String,
    _ interruption: Interruption, _ call: Call
  ) async throws(EngineError) -> (SnapshotApply.Reply, LayerPump.Outcome) {
    var ends = try Pipes.make()
    Pipes.makeNonBlocking(&ends.writing)
    let (reading, writing) = (ends.reading, ends.writing)
    let pump = LayerPump(
      inputs: [source], kept: kept, keepsUncompressed: kept != nil, total: nil, limit: settings.layerLimit,
      subject: subject, interruption: interruption)
    async let pumped = attempt { () async throws(EngineError) in
      try pump.run(output: OwnedDescriptor(adopting: writing))
    }
    let applied = await attempt { () async throws(EngineError) in
      try await call.request(
        SnapshotApply(
          parent: parent, differenceID: differenceID, archive: Descriptor(adopting: reading),
          limit: settings.layerLimit))
    }
    if case .failure = applied {
      // What stays unread would keep the pump waiting for a stream that nobody needs any more.
      interruption.interrupt()
    }
    let outcome = await pumped
    // An error of the stream comes first: the unpacker then only saw its consequence.
    if case .failure(let error) = outcome, error.code != .cancelled { throw error }
    return (try applied.get(), try outcome.get())
  }
}

/// A manifest for an image that came without one.
enum ManifestWriter {
  static func manifest(
    configuration: [UInt8], id: Digest, layers: [ContentDescriptor]
  ) throws(EngineError) -> (digest: Digest, bytes: [UInt8]) {
    let manifest = ImageManifest(
      mediaType: MediaType.ociManifest,
      config: ContentDescriptor(
        mediaType: MediaType.ociConfiguration, digest: id, size: Int64(configuration.count)),
      layers: layers)
    let bytes = try JSON.encode(manifest)
    return (try SHA256.digest(of: bytes), bytes)
  }
}
