// Role "registry": speaks to registries (OCI distribution specification 1.1). It moves bytes and proves who asks; what is
// stored, verified and unpacked is the image store's concern. Retries with back-off, mirrors, proxies, redirects,
// tokens and broken connections are dealt with behind these messages.

/// Who asks. The client reads them from the user's `config.json` or from a credential helper; the engine keeps none.
public struct RegistryCredentials: Codable, Sendable, Equatable {
  public var username: String
  public var password: String
  /// An OAuth2 refresh token, used instead of the password (distribution's token authentication).
  public var identityToken: String?

  public init(username: String, password: String, identityToken: String? = nil) {
    self.username = username
    self.password = password
    self.identityToken = identityToken
  }
}

/// A repository, and as whom to speak of it.
public struct RegistryRepository: Codable, Sendable, Equatable {
  /// Host and optional port, for example `docker.io` or `localhost:5000`.
  public var registry: String
  /// For example `library/nginx`.
  public var name: String
  public var credentials: RegistryCredentials?

  public init(registry: String, name: String, credentials: RegistryCredentials?) {
    self.registry = registry
    self.name = name
    self.credentials = credentials
  }
}

/// A manifest or an index, byte for byte as the registry has it; both are JSON, so UTF-8.
public struct RegistryManifest: Codable, Sendable, Equatable {
  public var mediaType: String
  /// The SHA-256 of `content`, computed here and never taken from a header.
  public var digest: Digest
  public var content: String

  public init(mediaType: String, digest: Digest, content: String) {
    self.mediaType = mediaType
    self.digest = digest
    self.content = content
  }
}

/// Fetches a manifest or an index.
///
/// Throws `notFound` with Docker's words (`manifest for x:y not found: manifest unknown`), `permissionDenied` (`pull access
/// denied for x, repository does not exist or may require 'engine login'`), `unavailable` for a registry that cannot be
/// reached. With a digest as reference, content of another digest is refused. At most 4 MiB are read, which is what the
/// specification lets a registry refuse.
public struct RegistryManifestGet: Request {
  public static let name = "registry.manifest.get"
  public typealias Reply = RegistryManifest
  public var repository: RegistryRepository
  /// A tag or a digest.
  public var reference: String
  /// Media types in the order of preference; empty for every type of manifest and index that is known.
  public var accept: [String]

  public init(repository: RegistryRepository, reference: String, accept: [String] = []) {
    self.repository = repository
    self.reference = reference
    self.accept = accept
  }
}

/// Writes a blob into a pipe, from `offset` on, and closes it after the last byte. A connection that breaks is made again
/// and goes on where it was (RFC 9110, 14.2, Range); a server that knows no ranges is read again from its start and the
/// bytes that were written before are passed over. The reply is the number of bytes written; the digest is the reader's
/// to check. The request ends when the reader has closed its end.
public struct RegistryBlobGet: Request {
  public static let name = "registry.blob.get"
  public typealias Reply = Int64
  public var repository: RegistryRepository
  public var digest: Digest
  /// The bytes the whole blob has by its descriptor; more are refused.
  public var size: Int64
  public var offset: Int64
  /// The writing end of a pipe.
  public var sink: Descriptor

  public init(repository: RegistryRepository, digest: Digest, size: Int64, offset: Int64, sink: Descriptor) {
    self.repository = repository
    self.digest = digest
    self.size = size
    self.offset = offset
    self.sink = sink
  }
}

/// Makes sure that a repository has a blob: it is there already, it is mounted from another repository of the same
/// registry, or it is uploaded.
public struct RegistryBlobPut: StreamRequest {
  public static let name = "registry.blob.put"
  /// Bytes sent so far.
  public typealias Element = Int64
  public enum Reply: String, Codable, Sendable {
    case existed
    case mounted
    case uploaded
  }
  public var repository: RegistryRepository
  public var digest: Digest
  public var size: Int64
  /// Repositories of the same registry that may have it, for a mount across repositories.
  public var mountFrom: [String]
  /// The blob as an open regular file, read with pread so that an upload can begin again.
  public var source: Descriptor

  public init(
    repository: RegistryRepository, digest: Digest, size: Int64, mountFrom: [String], source: Descriptor
  ) {
    self.repository = repository
    self.digest = digest
    self.size = size
    self.mountFrom = mountFrom
    self.source = source
  }
}

/// Puts a manifest or an index under a tag or its digest. Throws `permissionDenied` with Docker's words.
public struct RegistryManifestPut: Request {
  public static let name = "registry.manifest.put"
  public typealias Reply = Done
  public var repository: RegistryRepository
  public var reference: String
  public var manifest: RegistryManifest

  public init(repository: RegistryRepository, reference: String, manifest: RegistryManifest) {
    self.repository = repository
    self.reference = reference
    self.manifest = manifest
  }
}

/// Every tag of a repository, page by page (`pull -a`).
public struct RegistryTags: Request {
  public static let name = "registry.tags"
  public typealias Reply = [String]
  public var repository: RegistryRepository

  public init(repository: RegistryRepository) { self.repository = repository }
}

/// Tries credentials at a registry (`login`). The reply is the identity token where the registry gave one.
public struct RegistryLogin: Request {
  public static let name = "registry.login"
  public struct Reply: Codable, Sendable, Equatable {
    public var identityToken: String?

    public init(identityToken: String?) { self.identityToken = identityToken }
  }
  public var registry: String
  public var credentials: RegistryCredentials

  public init(registry: String, credentials: RegistryCredentials) {
    self.registry = registry
    self.credentials = credentials
  }
}

/// One hit of a search.
public struct RegistrySearchResult: Codable, Sendable, Equatable {
  public var name: String
  public var description: String
  public var stars: Int
  public var isOfficial: Bool

  public init(name: String, description: String, stars: Int, isOfficial: Bool) {
    self.name = name
    self.description = description
    self.stars = stars
    self.isOfficial = isOfficial
  }
}

/// Searches a registry: `/v1/search` where it has that, otherwise the catalogue by name.
public struct RegistrySearch: Request {
  public static let name = "registry.search"
  public typealias Reply = [RegistrySearchResult]
  public var registry: String
  public var term: String
  public var limit: Int
  public var credentials: RegistryCredentials?

  public init(registry: String, term: String, limit: Int, credentials: RegistryCredentials?) {
    self.registry = registry
    self.term = term
    self.limit = limit
    self.credentials = credentials
  }
}
