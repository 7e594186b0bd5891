import Contracts
import Glibc
import LinuxSystem
import Testing

@testable import EngineCLI

@Suite struct CredentialTests {
  /// A directory with a `config.json` that goes with this value.
  private final class Scratch {
    let path: String

    init(_ text: String? = nil) throws {
      var template = Array("/tmp/engine-credentials-XXXXXX".utf8CString)
      path = String(cString: try #require(mkdtemp(&template)))
      if let text { try Files.replace(file, with: Array(text.utf8), mode: 0o644, durable: false) }
    }

    deinit { try? Files.removeTree(path) }

    var file: String { "\(path)/config.json" }
    var text: String { get throws { try Files.readText(file) } }
    var store: CredentialStore { get throws { try CredentialStore(directory: path) } }
  }

  @Test(arguments: [
    (#"{"auths":{"h:5000":{"auth":"dTpw"}}}"#, "h:5000", "u", "p", nil),
    (#"{"auths":{"https://h/v2/":{"auth":"dTpw"}}}"#, "h", "u", "p", nil),
    (#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="}}}"#, "docker.io", "u", "p:q", nil),
    (#"{"auths":{"docker.io":{"username":"n","password":"w"}}}"#, "docker.io", "n", "w", nil),
    (#"{"auths":{"http://h":{"auth":"YTpi"},"h":{"auth":"dTpw"}}}"#, "h", "u", "p", nil),
    (#"{"auths":{"h":{"auth":"dTo=","identitytoken":"t"}}}"#, "h", "u", "", "t"),
    (#"{"auths":{"h":{"auth":"dTpwAAA="}}}"#, "h", "u", "p", nil),
  ])
  func credentialsAreFound(
    text: String, registry: String, username: String, password: String, token: String?
  ) throws {
    let scratch = try Scratch(text)
    let expected = RegistryCredentials(username: username, password: password, identityToken: token)
    #expect(try scratch.store.read(registry) == expected)
  }

  @Test(arguments: [
    nil, "", "{}", #"{"auths":{}}"#, #"{"auths":{"h2":{"auth":"dTpw"}}}"#, #"{"auths":{"h":{}}}"#,
    #"{"auths":{"h":{"auth":"no base64"}}}"#, #"{"auths":null}"#, #"{"auths":{"h:1":{"auth":"dTpw"}}}"#,
  ])
  func nobodyIsLoggedIn(text: String?) throws {
    #expect(try Scratch(text).store.read("h") == nil)
  }

  @Test(arguments: ["[]", "{", "\u{0}"])
  func aFileThatCannotBeReadIsNamed(text: String) throws {
    let scratch = try Scratch(text)
    do throws(EngineError) {
      _ = try CredentialStore(directory: scratch.path)
      Issue.record("it should be refused")
    } catch {
      #expect(error.code == .corrupt && error.description.hasPrefix(scratch.file))
    }
  }

  @Test func whatOthersWroteIsKept() throws {
    let scratch = try Scratch(
      #"{"HttpHeaders":{"x":"<y>"},"auths":{"other":{"auth":"dTpw"}},"number":1.5,"z":[1,null]}"#)
    let path = try scratch.store.write(RegistryCredentials(username: "a", password: "b"), for: "h:1")
    #expect(path == scratch.file)
    #expect(
      try scratch.text == """
        {
        \t"HttpHeaders": {
        \t\t"x": "\\u003cy\\u003e"
        \t},
        \t"auths": {
        \t\t"other": {
        \t\t\t"auth": "dTpw"
        \t\t},
        \t\t"h:1": {
        \t\t\t"auth": "YTpi"
        \t\t}
        \t},
        \t"number": 1.5,
        \t"z": [
        \t\t1,
        \t\tnull
        \t]
        }
        """)
    #expect(Files.status(scratch.file).map { $0.st_mode & 0o777 } == 0o600)
    #expect(try Files.list(scratch.path) == ["config.json"])
    try scratch.store.erase("h:1")
    try scratch.store.erase("never/there")
    #expect(try scratch.store.read("h:1") == nil && scratch.store.read("other")?.username == "u")
  }

  @Test func theFirstLoginMakesTheDirectory() throws {
    let scratch = try Scratch()
    let directory = "\(scratch.path)/a/.docker"
    let store = try CredentialStore(directory: directory)
    _ = try store.write(RegistryCredentials(username: "a", password: "", identityToken: "t"), for: "docker.io")
    #expect(Files.status(directory).map { $0.st_mode & 0o777 } == 0o700)
    let text = try Files.readText("\(directory)/config.json")
    #expect(text.contains(#""https://index.docker.io/v1/""#) && text.contains(#""identitytoken": "t""#))
  }

  @Test func aLinkStaysALink() throws {
    let scratch = try Scratch()
    let target = "\(scratch.path)/dotfiles.json"
    try Files.replace(target, with: Array("{}".utf8), durable: false)
    try #require(symlink(target, scratch.file) == 0)
    _ = try scratch.store.write(RegistryCredentials(username: "a", password: "b"), for: "h")
    var status = stat()
    #expect(lstat(scratch.file, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
    #expect(try Files.readText(target).contains("YTpi"))
  }

  @Test func helpersAreChosenByRegistry() throws {
    let scratch = try Scratch(
      #"{"credsStore":"all","credHelpers":{"h:1":"one","docker.io":"hub","off":""},"auths":{"h:1":{"auth":"dTpw"}}}"#)
    let file = try scratch.store.file
    #expect(file.helper(for: "h:1")?.name == "one" && file.helper(for: "x")?.name == "all")
    #expect(file.helper(for: CredentialStore.hubKey)?.name == "hub" && file.helper(for: "off")?.name == "all")
  }

  @Test(arguments: [
    ("", "docker.io"), ("docker.io", "docker.io"), ("https://index.docker.io/v1/", "docker.io"),
    ("https://quay.io", "quay.io"), ("http://h:5000/v2/", "h:5000"), ("h/path", "h"),
  ])
  func hosts(text: String, host: String) {
    #expect(CredentialStore.host(text) == host)
  }

  @Test(arguments: [("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x ", " x "), ("", "")])
  func passwordsFromPipes(text: String, password: String) {
    #expect(LoginPrompt.stripped(text) == password)
  }

  @Test(arguments: [
    ("nginx", "docker.io", "nginx"), ("me/nginx", "docker.io", "me/nginx"), ("quay.io/nginx", "quay.io", "nginx"),
    ("localhost/x", "localhost", "x"), ("h:5000/a/b", "h:5000", "a/b"), ("docker.io/x", "docker.io", "x"),
  ])
  func searchTerms(text: String, registry: String, term: String) {
    let found = RegistryCommands.split(text)
    #expect(found.registry == registry && found.term == term)
  }

  @Test func searchIsATable() throws {
    let results = [
      RegistrySearchResult(
        name: "nginx", description: "Official build of\nNginx, and a description that goes on", stars: 20000,
        isOfficial: true),
      RegistrySearchResult(name: "me/nginx", description: "", stars: 0, isOfficial: false),
    ]
    #expect(
      try RegistryCommands.listing(results, truncates: true).text(.table) == """
        NAME       DESCRIPTION                                     STARS     OFFICIAL
        nginx      Official build of Nginx, and a description t…   20000     [OK]
        me/nginx                                                   0         

        """)
    #expect(
      try RegistryCommands.listing(results, truncates: false).text(OutputFormat("{{.Name}} {{.StarCount}}"))
        == "nginx 20000\nme/nginx 0\n")
  }

  @Test(arguments: [
    (["is-official=true"], ["nginx"]), (["stars=3"], ["nginx", "some"]), (["stars=3", "is-official=false"], ["some"]),
    ([], ["nginx", "some", "none"]),
  ])
  func searchFilters(filters: [String], names: [String]) throws {
    let results = [("nginx", 100, true), ("some", 3, false), ("none", 0, false)].map {
      RegistrySearchResult(name: $0.0, description: "", stars: $0.1, isOfficial: $0.2)
    }
    let filter = try SearchFilter(filters)
    #expect(results.filter { filter.accepts($0) }.map(\.name) == names)
  }

  @Test(arguments: ["stars=x", "is-official=maybe", "colour=red"])
  func searchFiltersThatAreNone(filter: String) {
    #expect(throws: Failure.self) { try SearchFilter([filter]) }
  }
}
