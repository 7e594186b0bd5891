import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import RegistryPlugin

/// Against Debian's docker-registry.
@Suite(.enabled(if: RealRegistry.isInstalled, "docker-registry is not installed"))
struct RegistryTests {
  private func repository(_ registry: RealRegistry, _ name: String, _ user: RegistryCredentials? = nil)
    -> RegistryRepository
  {
    RegistryRepository(registry: registry.host, name: name, credentials: user)
  }

  private func push(
    _ image: SampleImage, _ harness: Harness, _ repository: RegistryRepository, _ tag: String, from: [String] = []
  ) async throws -> [RegistryBlobPut.Reply] {
    let scratch = try Scratch()
    var replies: [RegistryBlobPut.Reply] = []
    for blob in image.blobs {
      let put = RegistryBlobPut(
        repository: repository, digest: try digest(blob), size: Int64(blob.count), mountFrom: from,
        source: try scratch.open(blob))
      let (reply, sent) = try await harness.stream(put)
      replies.append(reply)
      #expect(sent.last == (reply == .uploaded ? Int64(blob.count) : nil))
    }
    let manifest = RegistryManifest(
      mediaType: MediaType.ociManifest, digest: try image.digestOfManifest,
      content: String(decoding: image.manifest, as: UTF8.self))
    _ = try await harness.ask(RegistryManifestPut(repository: repository, reference: tag, manifest: manifest))
    return replies
  }

  private func pull(_ image: SampleImage, _ harness: Harness, _ repository: RegistryRepository, _ tag: String)
    async throws
  {
    let manifest = try await harness.ask(RegistryManifestGet(repository: repository, reference: tag))
    #expect(manifest.digest == (try image.digestOfManifest) && manifest.mediaType == MediaType.ociManifest)
    #expect(manifest.content == String(decoding: image.manifest, as: UTF8.self))
    for blob in image.blobs {
      let (bytes, result) = await harness.blob(repository, try digest(blob), size: blob.count)
      #expect(try isSame(bytes, blob) && result.value == Int64(blob.count), "\(result)")
    }
  }

  @Test func imagesGoBothWaysWithSkopeo() async throws {
    let registry = try RealRegistry(Scratch())
    try await withHarness { harness in
      let theirs = try SampleImage(seed: 1)
      try theirs.write(to: registry.scratch, "theirs")
      try shell(
        "skopeo copy --preserve-digests --dest-tls-verify=false oci:\(registry.scratch.path)/theirs:latest docker://\(registry.host)/a/theirs:1"
      )
      try await pull(theirs, harness, repository(registry, "a/theirs"), "1")
      try await pull(theirs, harness, repository(registry, "a/theirs"), try theirs.digestOfManifest.description)

      let ours = try SampleImage(seed: 5)
      let first = try await push(ours, harness, repository(registry, "b/ours"), "v1")
      #expect(first == [.uploaded, .uploaded, .uploaded])
      let digest = try shell(
        "skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://\(registry.host)/b/ours:v1")
      #expect(digest.hasPrefix(try ours.digestOfManifest.description))
      try shell(
        "skopeo copy -q --src-tls-verify=false docker://\(registry.host)/b/ours:v1 oci:\(registry.scratch.path)/back:latest"
      )

      #expect(try await push(ours, harness, repository(registry, "b/ours"), "v2") == [.existed, .existed, .existed])
      let mounted = try await push(
        ours, harness, repository(registry, "c/lent"), "v1", from: ["gone/away", "b/ours"])
      #expect(mounted == [.mounted, .mounted, .mounted])
      try await pull(ours, harness, repository(registry, "c/lent"), "v1")
    }
  }

  @Test func aBlobIsFetchedFromTheMiddle() async throws {
    let registry = try RealRegistry(Scratch())
    try await withHarness { harness in
      let image = try SampleImage()
      _ = try await push(image, harness, repository(registry, "x"), "1")
      let blob = image.blobs[1]
      for offset in [0, 1, 299_999, 300_000] {
        let (bytes, result) = await harness.blob(
          repository(registry, "x"), try digest(blob), size: blob.count, offset: offset)
        #expect(try isSame(bytes, Array(blob[offset...])) && result.value == Int64(blob.count - offset), "\(result)")
      }
    }
  }

  @Test func whatIsNotThereIsSaidInDockersWords() async throws {
    let registry = try RealRegistry(Scratch())
    try await withHarness { harness in
      let missing = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryManifestGet(repository: repository(registry, "no/such"), reference: "1"))
      }
      #expect(missing.code == .notFound)
      #expect(missing.description.hasPrefix("manifest for \(registry.host)/no/such:1 not found: manifest unknown"))
      let (_, blob) = await harness.blob(repository(registry, "no/such"), try digest([1]), size: 1)
      #expect(blob.error?.code == .notFound)
      let tags = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryTags(repository: repository(registry, "no/such")))
      }
      #expect(tags.code == .notFound)
    }
  }

  @Test func tagsAndTheCatalogueComeInPages() async throws {
    let registry = try RealRegistry(Scratch())
    try await withHarness { harness in
      let image = try SampleImage(layerSize: 10)
      let names = (0..<5).map { "t\($0)" }
      for name in names { _ = try await push(image, harness, repository(registry, "many/tags"), name) }
      _ = try await push(image, harness, repository(registry, "other"), "1")
      #expect(try await harness.ask(RegistryTags(repository: repository(registry, "many/tags"))).sorted() == names)
      let found = try await harness.ask(
        RegistrySearch(registry: registry.host, term: "TAG", limit: 25, credentials: nil))
      #expect(found.map(\.name) == ["\(registry.host)/many/tags"])
    }
  }

  // MARK: Who asks

  @Test func basicAuthenticationBehindTLSWithAnAuthorityOfItsOwn() async throws {
    let scratch = try Scratch()
    try TestAuthority.make(in: scratch)
    // bcrypt(3) of "secret"
    try scratch.write("htpasswd", "user:$2b$05$IM61ah5qi/WcLihnhc4MRu6K/Zysd8PPBRdKQz84nX1dbuC2oPq.6\n")
    let registry = try RealRegistry(
      scratch, http: "  tls: {certificate: \"\(scratch.path)/server.crt\", key: \"\(scratch.path)/server.key\"}",
      options: "auth:\n  htpasswd: {realm: basic, path: \"\(scratch.path)/htpasswd\"}")
    try shell("mkdir -p '\(scratch.path)/certs.d/\(registry.host)'")
    try shell("cp \(scratch.path)/ca.crt '\(scratch.path)/certs.d/\(registry.host)/ca.crt'")
    let user = RegistryCredentials(username: "user", password: "secret")
    let image = try SampleImage()
    try await withHarness({ $0.authorities = ["\(scratch.path)/certs.d"] }) { harness in
      let reply = try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
      #expect(reply.identityToken == nil)
      #expect(
        try await push(image, harness, repository(registry, "p/q", user), "1") == [.uploaded, .uploaded, .uploaded])
      try await pull(image, harness, repository(registry, "p/q", user), "1")

      let wrong = await failure { () async throws(EngineError) in
        try await harness.ask(
          RegistryLogin(registry: registry.host, credentials: RegistryCredentials(username: "user", password: "no")))
      }
      #expect(wrong.code == .permissionDenied && wrong.description.contains("401 Unauthorized"), "\(wrong)")
      let nobody = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryManifestGet(repository: repository(registry, "p/q"), reference: "1"))
      }
      #expect(nobody.code == .permissionDenied)
      #expect(
        nobody.message
          == "pull access denied for \(registry.host)/p/q, repository does not exist or may require 'engine login'")
    }
    // Another authority does not vouch for it, and plain HTTP is no way around.
    try TestAuthority.make(in: scratch, names: ("other-ca", "other"))
    try shell("cp \(scratch.path)/other-ca.crt '\(scratch.path)/certs.d/\(registry.host)/ca.crt'")
    try await withHarness({ $0.authorities = ["\(scratch.path)/certs.d"] }) { harness in
      let distrusted = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
      }
      #expect(distrusted.code == .unavailable && distrusted.description.contains("unknown authority"), "\(distrusted)")
    }
  }

  @Test func aCertificateForAnotherHostIsRefused() async throws {
    let scratch = try Scratch()
    try TestAuthority.make(in: scratch, hosts: "IP:192.0.2.1,DNS:other.example")
    let registry = try RealRegistry(
      scratch, http: "  tls: {certificate: \"\(scratch.path)/server.crt\", key: \"\(scratch.path)/server.key\"}")
    let directory = "\(scratch.path)/certs.d/\(registry.host)"
    try shell("mkdir -p '\(directory)' && cp \(scratch.path)/ca.crt '\(directory)/'")
    let user = RegistryCredentials(username: "u", password: "p")
    try await withHarness({ $0.authorities = ["\(scratch.path)/certs.d"] }) { harness in
      let refused = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
      }
      #expect(refused.code == .unavailable && refused.description.contains("not for this host"), "\(refused)")
    }
    // Loopback without authorities of its own is taken as it is.
    try await withHarness { harness in
      _ = try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
    }
  }

  @Test func aClientProvesItselfWithACertificate() async throws {
    let scratch = try Scratch()
    try TestAuthority.make(in: scratch)
    let registry = try RealRegistry(
      scratch,
      http: """
          tls:
            certificate: "\(scratch.path)/server.crt"
            key: "\(scratch.path)/server.key"
            clientcas: ["\(scratch.path)/ca.crt"]
        """)
    let directory = "\(scratch.path)/certs.d/\(registry.host)"
    try shell("mkdir -p '\(directory)' && cp \(scratch.path)/ca.crt '\(directory)/'")
    let user = RegistryCredentials(username: "u", password: "p")
    try await withHarness({ $0.authorities = ["\(scratch.path)/certs.d"] }) { harness in
      let refused = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
      }
      #expect(refused.code == .unavailable)
      try shell(
        "cp \(scratch.path)/server.crt '\(directory)/me.cert' && cp \(scratch.path)/server.key '\(directory)/me.key'")
      _ = try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
    }
  }

  @Test func tokensComeFromTheServerThatTheRegistryNames() async throws {
    let scratch = try Scratch()
    try TestAuthority.make(in: scratch)
    let tokens = try TokenServer(scratch)
    let registry = try RealRegistry(
      scratch,
      options: """
        auth:
          token:
            realm: "http://\(tokens.host)/token"
            service: test-registry
            issuer: test-issuer
            rootcertbundle: "\(scratch.path)/ca.crt"
        """)
    let image = try SampleImage()
    let user = RegistryCredentials(username: "user", password: "secret")
    try await withHarness { harness in
      let login = try await harness.ask(RegistryLogin(registry: registry.host, credentials: user))
      #expect(login.identityToken == "identity")
      let known = RegistryCredentials(username: "user", password: "", identityToken: "identity")
      #expect(
        try await push(image, harness, repository(registry, "t/one", known), "1") == [.uploaded, .uploaded, .uploaded])
      #expect(
        try await push(image, harness, repository(registry, "t/two", user), "1", from: ["t/one"])
          == [.mounted, .mounted, .mounted])
      let before = tokens.server.requests.count
      try await pull(image, harness, repository(registry, "t/one", user), "1")
      #expect(tokens.server.requests.count == before + 1, "one token serves a whole pull")

      let wrong = await failure { () async throws(EngineError) in
        try await harness.ask(
          RegistryLogin(registry: registry.host, credentials: RegistryCredentials(username: "user", password: "no")))
      }
      #expect(
        wrong.code == .permissionDenied && wrong.description.contains("incorrect username or password"), "\(wrong)")
      let nobody = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryManifestGet(repository: repository(registry, "t/one"), reference: "1"))
      }
      #expect(nobody.code == .permissionDenied && nobody.message.hasPrefix("pull access denied for"), "\(nobody)")
    }
  }
}
