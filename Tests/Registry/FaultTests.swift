import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import RegistryPlugin

/// Against a server that makes every mistake: the right bytes come, or one line says why not.
@Suite struct FaultTests {
  typealias Reply = FakeServer.Reply

  private static let blob = noise(3_000_000)
  private static let manifestText = #"{"schemaVersion":2,"config":{},"layers":[]}"#

  private func repository(_ server: FakeServer, _ user: RegistryCredentials? = nil) -> RegistryRepository {
    RegistryRepository(registry: server.host, name: "a/b", credentials: user)
  }

  private func manifest(
    _ harness: Harness, _ server: FakeServer, _ reference: String = "1", _ user: RegistryCredentials? = nil
  ) async throws(EngineError) -> RegistryManifest {
    try await harness.ask(RegistryManifestGet(repository: repository(server, user), reference: reference))
  }

  /// A reply to a request for a blob that honours its range.
  private static func part(_ request: FakeServer.Request) -> Reply {
    guard let range = request.headers["range"], let start = Int(range.dropFirst(6).prefix { $0.isNumber }) else {
      return Reply(200, [], blob)
    }
    return Reply(
      206, [("Content-Range", "bytes \(start)-\(blob.count - 1)/\(blob.count)")], Array(blob[start...]))
  }

  // MARK: Blobs

  @Test func aBrokenConnectionIsGoneOnWithWhereItBroke() async throws {
    let server = try FakeServer { request in
      var reply = Self.part(request)
      if reply.body.count > 700_000 { reply.cutAfter = 700_000 }
      return reply
    }
    try await withHarness { harness in
      let (bytes, result) = await harness.blob(
        repository(server), try digest(Self.blob), size: Self.blob.count)
      #expect(try isSame(bytes, Self.blob) && result.value == Int64(Self.blob.count), "\(result)")
      // What had not been taken when the connection broke is asked for again.
      let starts = server.requests.dropFirst().map { request in
        request.headers["range"].flatMap { Int($0.dropFirst(6).prefix { $0.isNumber }) } ?? -1
      }
      #expect(starts.count >= 4 && starts == starts.sorted() && starts.allSatisfy { $0 > 0 }, "\(starts)")
    }
  }

  @Test func aServerWithoutRangesIsReadFromItsStartAgain() async throws {
    let server = try FakeServer { request in
      var reply = Reply(200, [], Self.blob)
      if request.count == 0 { reply.cutAfter = 1_000_000 }
      return reply
    }
    try await withHarness { harness in
      let (bytes, result) = await harness.blob(repository(server), try digest(Self.blob), size: Self.blob.count)
      #expect(try isSame(bytes, Self.blob) && result.value == Int64(Self.blob.count), "\(result)")
      let (rest, _) = await harness.blob(
        repository(server), try digest(Self.blob), size: Self.blob.count, offset: 2_999_990)
      #expect(try isSame(rest, Array(Self.blob[2_999_990...])))
    }
  }

  @Test func aBlobThatAlwaysEndsEarlyIsAnError() async throws {
    let server = try FakeServer { request in
      var reply = Self.part(request)
      reply.cutAfter = 10
      return reply
    }
    try await withHarness { harness in
      let (bytes, result) = await harness.blob(repository(server), try digest(Self.blob), size: Self.blob.count)
      #expect(bytes.count <= 60 && bytes.elementsEqual(Self.blob.prefix(bytes.count)), "ten bytes each of six attempts")
      #expect(result.error?.code == .unavailable && server.requests.count == 6, "\(result)")
    }
  }

  @Test(arguments: [
    ("a length that is too long", 5_000_000, false), ("more bytes than the length says", nil, false),
    ("bytes without an end", nil, true),
  ])
  func moreThanTheDescriptorSaysIsRefused(what: String, length: Int?, isEndless: Bool) async throws {
    let server = try FakeServer { _ in
      var reply = Reply(200, [], Self.blob)
      reply.length = length
      if isEndless { reply.repeats = .max }
      return reply
    }
    try await withHarness { harness in
      let (bytes, result) = await harness.blob(repository(server), try digest(Self.blob), size: 2_000_000)
      #expect(bytes.count <= 2_000_000, "\(what)")
      #expect(result.error?.code == .corrupt, "\(what): \(result)")
      #expect(result.error?.description.contains("sends more than the 2000000 bytes") == true)
      #expect(server.requests.count == 1, "it is not asked again")
    }
  }

  @Test func aShorterBlobThanTheDescriptorSaysIsRefused() async throws {
    let server = try FakeServer { _ in Reply(200, [], Self.blob) }
    try await withHarness({ $0.retries = 1 }) { harness in
      let (_, result) = await harness.blob(repository(server), try digest(Self.blob), size: 4_000_000)
      #expect(result.error?.code == .corrupt && server.requests.count == 2, "\(result)")
    }
  }

  @Test func anotherRangeThanAskedForIsRefused() async throws {
    let server = try FakeServer { request in
      request.headers["range"] == nil
        ? Reply(200, [], Self.blob) : Reply(206, [("Content-Range", "bytes 2000-2009/3000000")], noise(10))
    }
    try await withHarness { harness in
      let (bytes, result) = await harness.blob(
        repository(server), try digest(Self.blob), size: Self.blob.count, offset: 1000)
      #expect(bytes.isEmpty && result.error?.code == .protocolViolation, "\(result)")
    }
  }

  @Test(arguments: [true, false])
  func aServerThatStallsIsGivenUp(isSilent: Bool) async throws {
    let server = try FakeServer { request in
      var reply = Self.part(request)
      reply.isSilent = isSilent
      reply.pausePerByte = 100_000
      return reply
    }
    try await withHarness({ ($0.stallTimeout, $0.retries) = (.seconds(1), 1) }) { harness in
      let (_, result) = await harness.blob(repository(server), try digest(Self.blob), size: Self.blob.count)
      #expect(result.error?.code == .unavailable && server.requests.count == 2, "\(result)")
      #expect(result.error?.description.contains("stopped sending") == true, "\(result)")
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server) }
      #expect(error.code == .unavailable, "\(error)")
    }
  }

  @Test func aReaderThatIsSlowIsWaitedFor() async throws {
    let server = try FakeServer(Self.part)
    try await withHarness({ ($0.stallTimeout, $0.retries) = (.seconds(3), 0) }) { harness in
      var ends: [Int32] = [0, 0]
      try #require(pipe2(&ends, O_CLOEXEC) == 0)
      let output = ends[0]
      let read = Once<[UInt8]>()
      _ = Thread.start {
        usleep(7_000_000)  // twice the limit
        read.resolve((try? Files.readAll(output)) ?? [])
        close(output)
      }
      let request = Mutex<RegistryBlobGet?>(
        RegistryBlobGet(
          repository: repository(server), digest: try digest(Self.blob), size: Int64(Self.blob.count), offset: 0,
          sink: Descriptor(adopting: ends[1])))
      _ = try await harness.ask(request.withLock { $0.take() }!)
      let bytes = await read.value
      #expect(try isSame(bytes, Self.blob) && server.requests.count == 1)
    }
  }

  @Test func noMoreIsFetchedThanIsRead() async throws {
    let part = [UInt8](repeating: 7, count: 1 << 20)
    let server = try FakeServer { _ in
      var reply = Reply(200, [], part)
      (reply.repeats, reply.length) = (64, 64 << 20)
      return reply
    }
    try await withHarness { harness in
      var ends: [Int32] = [0, 0]
      try #require(pipe2(&ends, O_CLOEXEC) == 0)
      let output = ends[0]
      let mayRead = Once<Void>()
      let count = Once<Int>()
      let reader = Task {
        await mayRead.value
        _ = Thread.start {
          count.resolve(((try? Files.readAll(output, limit: 1 << 30)) ?? []).count)
          close(output)
        }
      }
      let request = Mutex<RegistryBlobGet?>(
        RegistryBlobGet(
          repository: repository(server), digest: try digest(part), size: 64 << 20, offset: 0,
          sink: Descriptor(adopting: ends[1])))
      async let reply = harness.ask(request.withLock { $0.take() }!)
      // The server sends until the buffers of the two sockets and of the pipe are full, and then no more.
      var before = -1
      for _ in 0..<200 {
        try await Task.sleep(for: .milliseconds(300))
        let now = server.sent.withLock { $0 }
        if now > 0, now == before { break }
        before = now
      }
      #expect(before > 0 && before < 32 << 20, "\(before) bytes were sent and nobody reads")
      mayRead.resolve(())
      #expect(try await reply == 64 << 20)
      #expect(await count.value == 64 << 20)
      await reader.value
    }
  }

  @Test func theRequestEndsWhenTheReaderGoesAway() async throws {
    let server = try FakeServer { request in
      var reply = Self.part(request)
      reply.isSilent = request.count > 0
      return reply
    }
    try await withHarness { harness in
      for attempt in 0..<2 {
        var ends: [Int32] = [0, 0]
        try #require(pipe2(&ends, O_CLOEXEC) == 0)
        if attempt == 0 {
          let output = ends[0]
          _ = Thread.start {
            var bytes = [UInt8](repeating: 0, count: 10)
            read(output, &bytes, 10)
            close(output)
          }
        } else {
          close(ends[0])
        }
        let get = RegistryBlobGet(
          repository: repository(server), digest: try digest(Self.blob), size: Int64(Self.blob.count), offset: 0,
          sink: Descriptor(adopting: ends[1]))
        let error = await failure { () async throws(EngineError) in try await harness.ask(get) }
        #expect(error.code == .cancelled, "\(error)")
      }
    }
  }

  // MARK: Servers that are overloaded or send elsewhere

  @Test(arguments: [429, 500, 502, 503, 504])
  func overloadPasses(status: Int) async throws {
    let server = try FakeServer { request in
      request.count < 3 ? Reply(status, [("Retry-After", "0")]) : Reply(200, [], Array(Self.manifestText.utf8))
    }
    try await withHarness { harness in
      let found = try await manifest(harness, server)
      #expect(found.content == Self.manifestText)
      #expect(server.requests.count == 4)
    }
  }

  @Test func overloadThatStaysIsOneLine() async throws {
    let server = try FakeServer { _ in
      Reply(
        429, [("Retry-After", "86400")],
        text: #"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached\n\u001b[31m your limit"}]}"#)
    }
    try await withHarness { harness in
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server) }
      #expect(server.requests.count == 1, "a day is not waited for")
      #expect(
        error.description
          == "\(server.host) answered 429 Too Many Requests: toomanyrequests: You have reached [31m your limit")
    }
  }

  @Test func credentialsDoNotFollowARedirect() async throws {
    let other = try FakeServer(Self.part)
    let server = try FakeServer { request in
      guard request.headers["authorization"] != nil else {
        return Reply(401, [("WWW-Authenticate", "Basic realm=x")])
      }
      return Reply(307, [("Location", "http://\(other.host)/elsewhere?signed=1")])
    }
    try await withHarness { harness in
      let user = RegistryCredentials(username: "u", password: "p")
      let (bytes, result) = await harness.blob(
        repository(server, user), try digest(Self.blob), size: Self.blob.count)
      #expect(try isSame(bytes, Self.blob) && result.value == Int64(Self.blob.count), "\(result)")
      #expect(other.requests.map(\.target) == ["/elsewhere?signed=1"])
      #expect(try #require(other.requests.first).headers["authorization"] == nil)
      #expect(server.requests.last?.headers["authorization"] == "Basic \(Base64.encode("u:p".utf8))")
    }
  }

  @Test(arguments: [
    ("/v2/a/b/manifests/1", "more than ten times"), ("file:///etc/passwd", "no web address"),
    ("http://u:p@127.0.0.1/", "no web address"), ("http://192.0.2.1/x", ""),
  ])
  func redirectsAreBounded(location: String, says: String) async throws {
    let server = try FakeServer { _ in Reply(302, [("Location", location)]) }
    try await withHarness({ ($0.retries, $0.connectTimeout) = (0, .seconds(3)) }) { harness in
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server) }
      #expect(says.isEmpty || error.description.contains(says), "\(error)")
    }
  }

  // MARK: Manifests

  @Test(arguments: [
    ("text/html", "<html>Welcome to the hotel</html>", "it is not JSON (text/html)"),
    ("application/json", "{}", "neither a manifest nor an index"),
    ("application/json", "[]", "it is not a JSON object"),
    (
      "application/vnd.oci.image.manifest.v1+json", #"{"manifests":[],"layers":[],"config":{}}"#,
      "a manifest and an index at once"
    ),
    (
      "application/json", #"{"mediaType":"application/vnd.oci.image.index.v1+json","layers":[],"config":{}}"#,
      "not what its media type says"
    ),
    (
      "application/vnd.docker.distribution.manifest.v1+prettyjws", #"{"schemaVersion":1,"fsLayers":[]}"#,
      "schema version 1, which is obsolete"
    ),
  ])
  func whatIsNoManifestIsRefused(type: String, text: String, says: String) async throws {
    let server = try FakeServer { _ in Reply(200, [("Content-Type", type)], text: text) }
    try await withHarness { harness in
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server) }
      #expect(error.description.contains(says) && server.requests.count == 1, "\(error)")
    }
  }

  @Test(arguments: [
    ("application/octet-stream", #"{"config":{},"layers":[]}"#, MediaType.ociManifest),
    ("text/plain; charset=utf-8", #"{"manifests":[]}"#, MediaType.ociIndex),
    (MediaType.dockerManifest, #"{"config":{},"layers":[]}"#, MediaType.dockerManifest),
    (MediaType.ociManifest, #"{"mediaType":"\#(MediaType.dockerList)","manifests":[]}"#, MediaType.dockerList),
  ])
  func theDocumentSaysWhatItIs(header: String, text: String, type: String) async throws {
    let server = try FakeServer { _ in Reply(200, [("Content-Type", header)], text: text) }
    try await withHarness { harness in
      let found = try await manifest(harness, server)
      #expect(found.mediaType == type)
    }
  }

  @Test(arguments: [true, false])
  func gigantesAreNotReadWhole(isEndless: Bool) async throws {
    let server = try FakeServer { _ in
      var reply = Reply(200, [], [UInt8](repeating: 0x20, count: isEndless ? 100_000 : 5 << 20))
      if isEndless { reply.repeats = .max }
      if isEndless { reply.length = nil }
      return reply
    }
    try await withHarness { harness in
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server) }
      #expect(error.code == .resourceExhausted && server.requests.count == 1, "\(error)")
    }
  }

  @Test func anotherDigestThanPromisedIsRefused() async throws {
    let promised = try digest([1])
    let server = try FakeServer { _ in
      Reply(200, [("Docker-Content-Digest", promised.description)], Array(Self.manifestText.utf8))
    }
    try await withHarness({ $0.retries = 1 }) { harness in
      for reference in ["1", promised.description] {
        let error = await failure { () async throws(EngineError) in try await manifest(harness, server, reference) }
        #expect(error.code == .corrupt && error.description.contains("its digest is sha256:"), "\(error)")
      }
      #expect(server.requests.count == 4)
    }
  }

  // MARK: Tokens

  @Test(arguments: [
    ("http://192.0.2.1/token", "over which credentials are not sent"), ("javascript:1", "not a web address"),
    ("http://user@127.0.0.1/", "not a web address"), ("", "not a web address"),
  ])
  func aHostileRealmGetsNothing(realm: String, says: String) async throws {
    let server = try FakeServer { _ in
      Reply(401, [("WWW-Authenticate", "Bearer realm=\"\(realm)\",service=\"x\"")])
    }
    try await withHarness { harness in
      let user = RegistryCredentials(username: "u", password: "p")
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server, "1", user) }
      #expect(error.description.contains(says) && server.requests.count == 1, "\(error)")
    }
  }

  @Test func aTokenIsRenewedOnceWhenItIsRefused() async throws {
    let tokens = try FakeServer { request in
      Reply(text: #"{"access_token":"token\#(request.count)","expires_in":3600}"#)
    }
    let accepted = Mutex("token0")
    let server = try FakeServer { request in
      guard request.headers["authorization"] == "Bearer \(accepted.withLock { $0 })" else {
        return Reply(
          401, [("WWW-Authenticate", "Bearer realm=\"http://\(tokens.host)/t\",service=\"s\",scope=\"x:y:z\"")])
      }
      return Reply(200, [], Array(Self.manifestText.utf8))
    }
    try await withHarness { harness in
      _ = try await manifest(harness, server)
      _ = try await manifest(harness, server)
      #expect(tokens.requests.map(\.target) == ["/t?service=s&scope=repository%3Aa%2Fb%3Apull"])
      accepted.withLock { $0 = "token1" }
      _ = try await manifest(harness, server)
      #expect(tokens.requests.count == 2)
      accepted.withLock { $0 = "none" }
      let error = await failure { () async throws(EngineError) in try await manifest(harness, server) }
      #expect(error.code == .permissionDenied && tokens.requests.count == 3, "\(error)")
    }
  }

  // MARK: Mirrors, proxies, lists

  @Test func aMirrorIsAskedFirstAndMayFail() async throws {
    let mirror = try FakeServer { request in
      request.path.hasSuffix("/good") ? Reply(200, [], Array(Self.manifestText.utf8)) : Reply(503)
    }
    let server = try FakeServer { _ in Reply(200, [], text: #"{"manifests":[]}"#) }
    try await withHarness({ $0.mirrors[server.host] = ["http://\(mirror.host)/cache", "http://127.0.0.1:1/"] }) {
      harness in
      let user = RegistryCredentials(username: "u", password: "p")
      let found = try await manifest(harness, server, "good", user)
      #expect(found.content == Self.manifestText)
      #expect(server.requests.isEmpty && mirror.requests.map(\.path) == ["/cache/v2/a/b/manifests/good"])
      let other = try await manifest(harness, server, "bad", user)
      #expect(other.mediaType == MediaType.ociIndex)
      #expect(mirror.requests.count == 2 && mirror.requests.allSatisfy { $0.headers["authorization"] == nil })
    }
  }

  @Test func aProxyOfTheEnvironmentIsUsed() async throws {
    // After CONNECT, what is said to the proxy is said to the registry.
    let proxy = try FakeServer { request in
      request.method == "CONNECT" ? Reply(200) : Reply(200, [], Array(Self.manifestText.utf8))
    }
    try await withHarness({
      $0.insecure = ["registry.test"]
      $0.proxies = ProxySettings { ["http_proxy": "http://me:pw@\(proxy.host)", "HTTPS_PROXY": proxy.host][$0] }
    }) { harness in
      let repository = RegistryRepository(registry: "registry.test", name: "a/b", credentials: nil)
      let found = try await harness.ask(RegistryManifestGet(repository: repository, reference: "1"))
      #expect(found.content == Self.manifestText)
      #expect(proxy.requests.map(\.target) == ["registry.test:443", "registry.test:80", "/v2/a/b/manifests/1"])
      #expect(try #require(proxy.requests.first).headers["proxy-authorization"] == nil)
      #expect(
        try #require(proxy.requests.dropFirst().first).headers["proxy-authorization"]
          == "Basic \(Base64.encode("me:pw".utf8))")
    }
  }

  @Test func plainHTTPIsFoundAlsoWhereTLSIsMetWithSilence() async throws {
    let server = try FakeServer(hangsUpOnTLS: true) { _ in Reply(200, [], Array(Self.manifestText.utf8)) }
    try await withHarness { harness in
      let found = try await manifest(harness, server)
      #expect(found.content == Self.manifestText)
    }
  }

  @Test func listsThatHaveNoEndAreLeft() async throws {
    let server = try FakeServer { request in
      request.target.contains("last=c")
        ? Reply(200, [("Link", "</v2/a/b/tags/list?last=c>; rel=\"next\"")], text: #"{"tags":["d"]}"#)
        : Reply(200, [("Link", "</v2/a/b/tags/list?last=c>; rel=\"next\"")], text: #"{"tags":["a","b","c"]}"#)
    }
    try await withHarness { harness in
      let error = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryTags(repository: repository(server)))
      }
      #expect(error.code == .protocolViolation && error.description.contains("no end"), "\(error)")
    }
  }

  @Test func nobodyThere() async throws {
    try await withHarness { harness in
      let repository = RegistryRepository(registry: "127.0.0.1:1", name: "a", credentials: nil)
      let error = await failure { () async throws(EngineError) in
        try await harness.ask(RegistryManifestGet(repository: repository, reference: "1"))
      }
      #expect(error.code == .unavailable)
      #expect(error.description == "cannot reach 127.0.0.1:1: connection refused", "\(error)")
    }
  }

  /// The first time that anything is asked for, the connection goes; the second time it goes in the middle.
  @Test func connectionsThatDropAtEveryStage() async throws {
    let faulty: @Sendable (FakeServer.Request, Reply) -> Reply = { request, reply in
      var reply = reply
      if request.count == 0 { reply.isDropped = true }
      if request.count == 1, !reply.body.isEmpty { reply.cutAfter = reply.body.count / 2 }
      return reply
    }
    let tokens = try FakeServer { request in faulty(request, Reply(text: #"{"token":"t","expires_in":3600}"#)) }
    let server = try FakeServer { request in
      guard request.headers["authorization"] == "Bearer t" else {
        return Reply(401, [("WWW-Authenticate", "Bearer realm=\"http://\(tokens.host)/t\",service=\"s\"")])
      }
      switch (request.method, request.path) {
      case ("HEAD", _): return faulty(request, Reply(404))
      case ("POST", _): return faulty(request, Reply(202, [("Location", "/v2/a/b/blobs/uploads/\(request.count)")]))
      case ("PUT", let path):
        // Every upload has an address of its own.
        if path.hasSuffix("uploads/1") || path.hasSuffix("uploads/2") {
          var reply = Reply(201)
          reply.isDropped = true
          return reply
        }
        return path.contains("manifests") ? faulty(request, Reply(201)) : Reply(201)
      case (_, let path) where path.hasSuffix("tags/list"): return faulty(request, Reply(text: #"{"tags":["x"]}"#))
      case (_, let path) where path.contains("blobs"): return faulty(request, Self.part(request))
      default: return faulty(request, Reply(200, [], Array(Self.manifestText.utf8)))
      }
    }
    try await withHarness { harness in
      let scratch = try Scratch()
      let found = try await manifest(harness, server)
      #expect(found.content == Self.manifestText)
      let (bytes, result) = await harness.blob(repository(server), try digest(Self.blob), size: Self.blob.count)
      #expect(try isSame(bytes, Self.blob) && result.value == Int64(Self.blob.count), "\(result)")
      #expect(try await harness.ask(RegistryTags(repository: repository(server))) == ["x"])
      let put = RegistryBlobPut(
        repository: repository(server), digest: try digest(Self.blob), size: Int64(Self.blob.count), mountFrom: [],
        source: try scratch.open(Self.blob))
      #expect(try await harness.stream(put).reply == .uploaded)
      let content = RegistryManifest(
        mediaType: MediaType.ociManifest, digest: try digest(Array(Self.manifestText.utf8)), content: Self.manifestText)
      _ = try await harness.ask(
        RegistryManifestPut(repository: repository(server), reference: "1", manifest: content))
      let uploads = server.requests.filter { $0.method == "PUT" && $0.path.contains("uploads") }
      #expect(uploads.count == 3)
      #expect(try isSame(uploads[2].body, Self.blob))
    }
  }

  // MARK: Uploads

  @Test func anUploadThatBreaksBeginsAgain() async throws {
    let scratch = try Scratch()
    let server = try FakeServer { request in
      switch request.method {
      case "HEAD": return Reply(404)
      case "POST": return Reply(202, [("Location", "/v2/a/b/blobs/uploads/\(request.count)?state=x")])
      default: return request.count == 0 && request.path.hasSuffix("0") ? Reply(500) : Reply(201)
      }
    }
    try await withHarness { harness in
      let put = RegistryBlobPut(
        repository: repository(server), digest: try digest(Self.blob), size: Int64(Self.blob.count), mountFrom: [],
        source: try scratch.open(Self.blob))
      let (reply, _) = try await harness.stream(put)
      let requests = server.requests
      #expect(reply == .uploaded && requests.map(\.method) == ["HEAD", "POST", "PUT", "POST", "PUT"])
      let last = try #require(requests.last)
      #expect(try isSame(last.body, Self.blob))
      #expect(last.target.hasPrefix("/v2/a/b/blobs/uploads/1?state=x&digest=sha256%3A"))
    }
  }
}
