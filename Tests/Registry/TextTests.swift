import Contracts
import Testing

@testable import RegistryPlugin

@Suite struct TextTests {
  @Test(arguments: [
    (#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#, "bearer", "https://a/t"),
    (#"bearer realm=https://a/t , service = "s""#, "bearer", "https://a/t"),
    (#"Basic realm="Registry Realm""#, "basic", "Registry Realm"),
    ("Basic", "basic", ""),
    (#"Negotiate, Basic realm="x", Bearer realm="y""#, "bearer", "y"),
    (#"Digest realm="d", qop="auth", Basic realm="b \"q\" \\""#, "basic", #"b "q" \"#),
    (#"Bearer realm="unterminated"#, "bearer", "unterminated"),
    (#"Bearer realm="first",realm="second""#, "bearer", "first"),
    ("Negotiate abc", "", ""), ("", "", ""), ("=,=,=", "", ""), (#"realm="x""#, "", ""), ("Bearer", "", ""),
  ])
  func challenges(header: String, scheme: String, realm: String) {
    let challenge = Challenge.pick(from: [header])
    #expect((challenge.map { $0.scheme == .basic ? "basic" : "bearer" } ?? "") == scheme)
    #expect((challenge?.parameters["realm"] ?? "") == realm)
  }

  @Test func aScopeIsReadWhole() {
    let challenge = Challenge.pick(from: [#"Bearer realm="r",service="s",scope="repository:a/b:pull,push""#])
    #expect(challenge?.parameters == ["realm": "r", "service": "s", "scope": "repository:a/b:pull,push"])
  }

  @Test(arguments: [
    ("https://A.example/x?y#z", "https://a.example/x?y"), ("HTTP://h:80", "http://h/"),
    ("http://h:81?q", "http://h:81/?q"),
    ("https://[::1]:5000/v2/", "https://[::1]:5000/v2/"), ("https://h_1.x", "https://h_1.x/"),
    ("ftp://h", nil), ("//h/x", nil), ("https://", nil), ("https://u@h/", nil), ("https://h:0/", nil),
    ("https://h:99999/", nil), ("https://h /", nil), ("https://h\n/", nil), ("https://h%00/", nil), ("https://é/", nil),
  ])
  func addresses(text: String, canonical: String?) {
    #expect(WebAddress(text)?.description == canonical)
  }

  @Test(arguments: [
    ("/x?a", "http://h:1/x?a"), ("y", "http://h:1/p/y"), ("?n", "http://h:1/p/q?n"), ("//o/z", "http://o/z"),
    ("https://o/z", "https://o/z"), ("mailto:x", nil), ("", nil), ("/a b", nil),
  ])
  func references(reference: String, result: String?) {
    #expect(WebAddress("http://h:1/p/q?old")?.resolving(reference)?.description == result)
  }

  @Test(arguments: [
    ("localhost", true), ("127.8.9.1", true), ("::1", true), ("10.1.2.3", true), ("plain.example", true),
    ("ported.example", true), ("11.1.2.3", false), ("localhost.example", false), ("127.0.0.1.example", false),
  ])
  func insecureRegistries(host: String, isInsecure: Bool) {
    var configuration = RegistryConfiguration()
    configuration.insecure = ["10.0.0.0/8", "plain.example", "ported.example:5000"]
    #expect(configuration.isInsecure(host: host, port: 5000) == isInsecure)
    #expect(!configuration.isInsecure(host: "ported.example", port: 443))
  }

  @Test(arguments: [
    ("https://a.example/", "s:1"), ("http://a.example/", "p:1"), ("https://x.internal/", nil),
    ("https://internal/", nil), ("https://sub.dotted.example/", nil), ("https://dotted.example/", "s:1"),
    ("https://10.2.3.4/", nil), ("https://ported:444/", nil), ("https://ported/", "s:1"), ("http://localhost/", nil),
  ])
  func proxies(address: String, proxy: String?) throws {
    let settings = ProxySettings {
      ["https_proxy": "s:1", "HTTP_PROXY": "p:1", "NO_PROXY": "internal, .dotted.example,10.0.0.0/8,ported:444"][$0]
    }
    #expect(settings.proxy(for: try #require(WebAddress(address))) == proxy)
  }

  @Test(arguments: [
    (["mirrors": "ftp://x"], "the mirror \"ftp://x\""), (["retries": "many"], "retries must be a number"),
    (["stall-timeout": "0"], "stall-timeout must be a number from 1"), (["typo": "1"], "knows no key \"typo\""),
  ])
  func configurationThatIsWrong(keys: [String: String], says: String) {
    do throws(EngineError) {
      _ = try RegistryConfiguration(keys) { _ in nil }
      Issue.record("it should be refused")
    } catch {
      #expect(error.description.contains(says))
    }
  }

  @Test func configuration() throws {
    let configuration = try RegistryConfiguration([
      "mirrors": "https://a, http://b/", "mirrors.quay.io": "https://c", "insecure": "x:5000", "retries": "2",
      "stall-timeout": "7", "max-concurrent-downloads": "3", "authorities": "/a,/b",
    ]) { _ in nil }
    #expect(configuration.mirrors == ["docker.io": ["https://a", "http://b/"], "quay.io": ["https://c"]])
    #expect(configuration.insecure == ["x:5000"] && configuration.retries == 2)
    #expect(configuration.stallTimeout == .seconds(7) && configuration.maxConcurrentDownloads == 3)
    #expect(configuration.authorities == ["/a", "/b"])
  }

  @Test(arguments: [
    ([#"</v2/x?n=1&last=a>; rel="next""#], "/v2/x?n=1&last=a"), ([#"<a>; rel="prev", <b>; rel=next"#], "b"),
    (["<a>"], nil), ([">a<; rel=next"], nil), ([], nil),
  ])
  func links(headers: [String], next: String?) {
    #expect(RegistryClient.nextLink(headers) == next)
  }

  @Test(arguments: [
    (#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#, "manifest unknown: manifest unknown"),
    (#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
    (#"{"errors":[]}"#, nil), ("<html>", nil), ("", nil), (#"{"errors":[{}]}"#, nil), ("[1]", nil),
  ])
  func errorsOfRegistries(body: String, words: String?) {
    #expect(Words.ofRegistry(Array(body.utf8))?.message == words)
  }

  @Test func wordsAreMadeFitForOneLine() {
    #expect(Words.clean(" a\r\n\t b\u{1B}[0m\u{202E}c \u{0}") == "a b [0mc")
    #expect(Words.clean(String(repeating: "x", count: 1000)).count == 300)
  }

  /// Whatever a server sends: the readers of its text end, keep their promises and do not trap.
  @Test func noise() throws {
    let pieces = [
      "Bearer", "Basic", " ", ",", "=", "\"", "\\", "realm", "scope=\"a:b:c\"", "http", "https://", "://", "/", "?",
      "#", "@",
      ":", "[", "]", "::1", "127.0.0.1", "99999", "%", "é", "\u{0}", "\r\n", "<", ">", ";", "rel=next", "{", "}",
      "\"errors\":",
      "[{", "}]", "\"layers\":[]", "\"config\":{}", "\"mediaType\":\"\(MediaType.ociIndex)\"", "1e999", "null",
    ]
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<5000 {
      let text = (0..<Int.random(in: 0...12, using: &generator)).map { _ in
        pieces.randomElement(using: &generator) ?? ""
      }
      .joined()
      if let challenge = Challenge.pick(from: [text]), challenge.scheme == .bearer {
        #expect(challenge.parameters["realm"] != nil, "\(text)")
      }
      if let address = WebAddress(text) {
        #expect(WebAddress(address.description) == address, "\(text)")
      }
      if let target = WebAddress("https://h/p")?.resolving(text) {
        #expect(target.target.hasPrefix("/") && target.target.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }, "\(text)")
      }
      #expect(!Words.clean(text).contains { $0.isNewline })
      _ = Words.ofRegistry(Array(text.utf8))
      _ = RegistryClient.nextLink([text])
      let name = RegistryRepository(registry: "h", name: "n", credentials: nil).familiar("1")
      if let manifest = try? RegistryClient.check(
        Array(text.utf8), of: name, expected: nil, header: "", promised: nil, host: "h")
      {
        #expect(Array(manifest.content.utf8) == Array(text.utf8))
      }
    }
  }
}
