import Contracts
import Foundation
import Kernel
import LinuxSystem
import Testing

@testable import DockerVolumePlugin

@Suite("Docker's volume plugins")
struct DockerVolumeTests {
  @Test(arguments: [
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"),
    ("HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nabcdef", 500, "abc"),
    (
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", 200,
      "abc0123456789"
    ),
    ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
  ])
  func readsAResponseHoweverItComes(text: String, status: Int, body: String) throws {
    for size in [1, 2, 7, text.utf8.count] {
      var response = PluginResponse(maximum: 1 << 20)
      var rest = Array(text.utf8)[...]
      while !rest.isEmpty, !response.isComplete {
        try response.take(rest.prefix(size))
        rest = rest.dropFirst(size)
      }
      if !response.isComplete { try response.take([]) }
      #expect(response.status == status)
      #expect(String(decoding: response.body, as: UTF8.self) == body, "\(size) bytes at a time")
    }
  }

  @Test(arguments: [
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "hello\r\n\r\n", "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
  ])
  func refusesWhatIsNoResponse(text: String) {
    #expect(throws: EngineError.self) {
      var response = PluginResponse(maximum: 1 << 20)
      try response.take(Array(text.utf8)[...])
      try response.take([])
    }
  }

  @Test func refusesAnAnswerWithoutEnd() {
    #expect(throws: EngineError.self) {
      var response = PluginResponse(maximum: 1000)
      try response.take(Array("HTTP/1.0 200 OK\r\n\r\n".utf8)[...])
      for _ in 0..<20 { try response.take([UInt8](repeating: 65, count: 100)[...]) }
    }
  }

  @Test func findsPluginsInEveryForm() throws {
    let directory = NSTemporaryDirectory() + "discovery-\(UUID().uuidString.prefix(8))"
    defer { try? Files.removeTree(directory) }
    try Files.makeDirectories(directory + "/nested")
    func put(_ path: String, _ text: String) throws {
      try Files.replace("\(directory)/\(path)", with: Array(text.utf8), durable: false)
    }
    try put("one.spec", "unix:///run/one.sock\n")
    try put("two.spec", "tcp://localhost:8080")
    try put("three.json", #"{"Name": "drei", "Addr": "http://127.0.0.1:99/"}"#)
    try put("nested/nested.spec", "unix:///run/nested.sock")
    try put("tls.json", #"{"Name": "tls", "Addr": "https://x:1", "TLSConfig": {"InsecureSkipVerify": false}}"#)
    try put("bad.spec", "ftp://x")
    try put("notes.txt", "")
    let found = PluginDiscovery.find(in: [directory, directory + "/absent"])
    #expect(found.keys.sorted() == ["bad", "drei", "nested", "one", "tls", "two"])
    #expect(try found["one"]?.get() == .unix("/run/one.sock"))
    #expect(try found["two"]?.get() == .tcp(host: "localhost", port: 8080))
    #expect(try found["drei"]?.get() == .tcp(host: "127.0.0.1", port: 99))
    #expect(try found["nested"]?.get() == .unix("/run/nested.sock"))
    #expect(throws: EngineError.self) { try found["bad"]?.get() }
    #expect(throws: EngineError.self) { try found["tls"]?.get() }
  }

  /// Whoever names such a plugin is told what is wrong with its file, and no longer when it is mended.
  @Test func aFileThatIsWrongIsTheErrorOfWhoNamesIt() async throws {
    let directory = NSTemporaryDirectory() + "discovery-\(UUID().uuidString.prefix(8))"
    defer { try? Files.removeTree(directory) }
    try Files.makeDirectories(directory)
    func put(_ text: String) throws {
      try Files.replace(directory + "/them.spec", with: Array(text.utf8), durable: false)
    }
    func refusal(_ bus: Bus) async throws -> String {
      await bus.publish(DriverWanted(role: "volume", driver: "them"))
      let error = await #expect(throws: EngineError.self) {
        _ = try await bus.request(VolumeDriverCreate(volume: "v1", options: [:]), driver: "them")
      }
      return error?.message ?? ""
    }
    try put("ftp://x")
    let bus = Bus()
    let instance = Instance(
      root: directory, runtimeDirectory: directory + "/run", hash: "0", isDefault: false, daemonPath: "", shimPath: "",
      version: "1")
    let host = PluginHost(
      manifest: DockerVolumePlugin.manifest, bus: bus, instance: instance,
      journal: try Journal(path: directory + "/journal"), configuration: ["directories": directory])
    let plugin = try DockerVolumePlugin(host: host)
    try plugin.register(Registrar(bus: bus, manifest: DockerVolumePlugin.manifest))
    let words = try await refusal(bus)
    #expect(words.contains("the volume plugin them cannot be used: "), "\(words)")
    #expect(words.contains("\"ftp://x\" is no address"), "\(words)")
    try put("unix:///nowhere/at/all.sock")
    let mended = try await refusal(bus)
    #expect(mended.contains("the volume plugin them failed at \"Plugin.Activate\""), "\(mended)")
    try put("ftp://y")
    #expect(try await refusal(bus).contains("\"ftp://y\" is no address"))
    withExtendedLifetime(plugin) {}
  }
}
