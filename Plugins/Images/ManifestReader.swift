import ContentStreams
import Contracts
import Wire

/// A manifest as it came, and what it says.
struct StoredManifest: Sendable {
  /// The digest of `bytes`.
  var digest: Digest
  var mediaType: String
  var bytes: [UInt8]
  var manifest: ImageManifest
}

/// Reads manifests and indexes that strangers wrote.
enum ManifestReader {
  /// Indexes within indexes.
  static let maximumDepth = 4
  static let configurationLimit: Int64 = 8 << 20

  /// - Throws: `invalidArgument` or `unsupported` that names the subject.
  static func document(
    _ bytes: some Collection<UInt8>, mediaType: String?, subject: String
  ) throws(EngineError) -> ManifestDocument {
    let envelope: ManifestEnvelope
    do throws(EngineError) {
      envelope = try JSON.decode(ManifestEnvelope.self, bytes)
    } catch {
      throw EngineError(.invalidArgument, "\(subject) does not read: \(error.message)")
    }
    return try envelope.document(mediaType: mediaType, subject: subject)
  }

  /// - Throws: `invalidArgument`, or `unsupported` for an image of another system.
  static func configuration(_ bytes: [UInt8], subject: String) throws(EngineError) -> ImageConfiguration {
    let parsed: ImageConfiguration
    do throws(EngineError) {
      parsed = try JSON.decode(ImageConfiguration.self, bytes)
    } catch {
      throw EngineError(.invalidArgument, "\(subject) is refused: its configuration does not read: \(error.message)")
    }
    if parsed.os != "linux" && !parsed.os.isEmpty {
      throw EngineError(.unsupported, "image operating system \"\(parsed.os)\" cannot be used on this platform")
    }
    return parsed
  }

  /// Reads a platform that somebody asked for.
  ///
  /// - Throws: `invalidArgument`, or `unsupported` for another system.
  static func platform(_ text: String?) throws(EngineError) -> ImagePlatform? {
    guard let text, !text.isEmpty else { return nil }
    let platform = try ImagePlatform(parsing: text, host: host)
    if platform.os == "linux" { return platform }
    throw EngineError(.unsupported, "image operating system \"\(platform.os)\" cannot be used on this platform")
  }

  /// This machine in the words of OCI.
  static var host: ImagePlatform {
    ImagePlatform(os: "linux", architecture: ImageImporter.architecture).normalized
  }
}
