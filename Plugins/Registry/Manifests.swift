import AsyncHTTPClient
import ContentStreams
import Contracts
import NIOCore
import Wire

extension RegistryRepository {
  /// The repository as people write it.
  var familiar: String {
    guard registry == "docker.io" else { return "\(registry)/\(name)" }
    return name.hasPrefix("library/") ? String(name.dropFirst(8)) : name
  }

  /// The name with a tag or a digest behind it.
  func familiar(_ reference: String) -> String {
    reference.contains(":") ? "\(familiar)@\(reference)" : "\(familiar):\(reference)"
  }

  func exchange(_ actions: String) -> Exchange {
    let verb = actions == "pull" ? "pull" : "push"
    return Exchange(
      registry: registry,
      purpose: Authenticator.Purpose(credentials: credentials, scopes: ["repository:\(name):\(actions)"]),
      denied: "\(verb) access denied for \(familiar), repository does not exist or may require 'engine login'")
  }
}

extension MediaType {
  /// Every type of manifest and index, indexes first.
  static let known = [ociIndex, dockerList, ociManifest, dockerManifest]

  /// What a document is by its own words, which its digest vouches for; the header's word counts only where the document
  /// says nothing and both can be true. A document that is a manifest and an index at once is refused (CVE-2021-41190).
  static func of(_ document: JSONValue, header: String) throws(EngineError) -> String {
    guard case .object = document else { throw EngineError(.corrupt, "it is not a JSON object") }
    let isIndex = document["manifests"] != nil
    let isManifest = document["layers"] != nil || document["config"] != nil
    if isIndex && isManifest { throw EngineError(.corrupt, "it is a manifest and an index at once") }
    if document["fsLayers"] != nil || document["schemaVersion"] == .integer(1) {
      throw EngineError(
        .unsupported, "it is of schema version 1, which is obsolete: push the image again with a newer client")
    }
    if case .string(let own) = document["mediaType"] {
      guard known.contains(own) else { return own }
      guard [ociIndex, dockerList].contains(own) ? isIndex : isManifest else {
        throw EngineError(.corrupt, "it is not what its media type says")
      }
      return own
    }
    let said = String(header.prefix { $0 != ";" && $0 != " " })
    if isIndex { return [ociIndex, dockerList].contains(said) ? said : ociIndex }
    if isManifest { return [ociManifest, dockerManifest].contains(said) ? said : ociManifest }
    throw EngineError(.corrupt, "it is neither a manifest nor an index")
  }
}

extension RegistryClient {
  /// What the specification lets a registry refuse.
  static let manifestLimit = 4 << 20

  func manifest(_ request: RegistryManifestGet) async throws(EngineError) -> RegistryManifest {
    let repository = request.repository
    let name = repository.familiar(request.reference)
    var exchange = repository.exchange("pull")
    exchange.path = "/v2/\(repository.name)/manifests/\(request.reference)"
    exchange.usesMirrors = true
    let accept = request.accept.isEmpty ? MediaType.known : request.accept
    exchange.headers = { accept.map { ("accept", $0) } }
    let expected = Digest(request.reference)
    if request.reference.contains(":"), expected == nil {
      throw EngineError(.unsupported, "\(name): only sha256 digests are supported")
    }
    let configuration = configuration
    return try await perform(exchange) { (answer) async throws(Fault) in
      guard answer.code == 200 else {
        if answer.code == 404 {
          let why = await self.failure(answer, .final, .notFound).error.causes.first?.message ?? "manifest unknown"
          throw Fault(.final, .notFound, "manifest for \(name) not found: \(why)")
        }
        throw await self.failure(answer, .final, .unavailable)
      }
      let body = try await BodyReader.collect(
        answer.response, limit: Self.manifestLimit, what: "the manifest of \(name)", from: answer.address,
        configuration, answer.watchdog)
      return try Self.check(
        body, of: name, expected: expected, header: answer.response.headers.first(name: "content-type") ?? "",
        promised: answer.response.headers.first(name: "docker-content-digest"), host: answer.host)
    }
  }

  static func check(
    _ body: [UInt8], of name: String, expected: Digest?, header: String, promised: String?, host: String
  ) throws(Fault) -> RegistryManifest {
    let digest: Digest
    do throws(EngineError) { digest = try SHA256.digest(of: body) } catch { throw Fault(.final, error) }
    if let promised = expected ?? promised.flatMap({ Digest($0) }), promised != digest {
      // A line can spoil bytes, so it is worth another try.
      throw Fault(
        .transient, .corrupt,
        "\(host) sent something else as the manifest of \(name): its digest is \(digest), not \(promised)")
    }
    do throws(EngineError) {
      let document: JSONValue
      do throws(EngineError) {
        document = try JSON.parse(body)
      } catch {
        let type = header.isEmpty ? "" : " (\(Words.clean(header)))"
        throw EngineError(.corrupt, "it is not JSON\(type)")
      }
      guard let content = String(validating: body, as: UTF8.self) else {
        throw EngineError(.corrupt, "it is not UTF-8")
      }
      return RegistryManifest(
        mediaType: try MediaType.of(document, header: header), digest: digest, content: content)
    } catch {
      throw Fault(.final, EngineError(error.code, "\(host) sent no usable manifest of \(name)", because: error))
    }
  }

  func put(_ request: RegistryManifestPut) async throws(EngineError) -> Done {
    let repository = request.repository
    let name = repository.familiar(request.reference)
    var exchange = repository.exchange("pull,push")
    exchange.method = .PUT
    exchange.path = "/v2/\(repository.name)/manifests/\(request.reference)"
    let type = request.manifest.mediaType
    guard !type.isEmpty, type.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else {
      throw EngineError(.invalidArgument, "\(name): the manifest has no usable media type")
    }
    exchange.headers = { [("content-type", type)] }
    let content = request.manifest.content
    exchange.body = { _ in .bytes(ByteBuffer(string: content)) }
    let digest = request.manifest.digest
    return try await perform(exchange) { (answer) async throws(Fault) in
      guard (200..<300).contains(answer.code) else {
        var fault = await self.failure(answer, .final, .unavailable)
        fault.error = EngineError(.unavailable, "cannot push \(name)", because: fault.error)
        throw fault
      }
      if let kept = answer.response.headers.first(name: "docker-content-digest").flatMap({ Digest($0) }), kept != digest
      {
        throw Fault(.final, .corrupt, "\(answer.host) keeps another manifest than was sent: \(kept), not \(digest)")
      }
      return Done()
    }
  }
}
