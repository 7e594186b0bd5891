import CLinux
import Contracts
import Glibc
import LinuxSystem
import Testing

/// Debian's docker-registry on a port of loopback that the kernel chose; ended with this value.
final class RealRegistry {
  let scratch: Scratch
  let port: UInt16
  private let process: pid_t

  static var isInstalled: Bool { access("/usr/bin/docker-registry", X_OK) == 0 }

  /// - Parameter options: what stands in the configuration below `version`, `log`, `storage` and `http.addr`.
  init(_ scratch: Scratch, http: String = "", options: String = "") throws {
    self.scratch = scratch
    try Files.makeDirectories("\(scratch.path)/data")
    try scratch.write(
      "config.yml",
      """
      version: 0.1
      log: {level: info}
      storage:
        filesystem: {rootdirectory: "\(scratch.path)/data"}
        delete: {enabled: true}
      http:
        addr: "127.0.0.1:0"
        secret: test
      \(http)
      \(options)
      """)
    let log = "\(scratch.path)/registry.log"
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    posix_spawn_file_actions_addclosefrom_np(&actions, 3)
    let words = ["/usr/bin/docker-registry", "serve", "\(scratch.path)/config.yml"]
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { arguments.forEach { free($0) } }
    var process: pid_t = 0
    let environment = ["PATH=/usr/bin:/bin", "OTEL_TRACES_EXPORTER=none"]
    var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
    defer { variables.forEach { free($0) } }
    try #require(posix_spawn(&process, words[0], &actions, nil, &arguments, &variables) == 0)
    self.process = process
    // It says where it listens: `msg="listening on 127.0.0.1:43210"`.
    var found: UInt16?
    for _ in 0..<3000 where found == nil {
      let text = (try? Files.readText(log)) ?? ""
      if let mark = text.firstRange(of: "listening on 127.0.0.1:") {
        found = UInt16(text[mark.upperBound...].prefix { $0.isNumber })
      } else {
        usleep(10_000)
      }
    }
    guard let found else {
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
      let log = (try? Files.readText(log)) ?? "no log"
      throw EngineError(.unavailable, "docker-registry did not start: \(log)")
    }
    port = found
  }

  deinit {
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
  }

  var host: String { "127.0.0.1:\(port)" }
}

/// A small image: two layers, a configuration and a manifest.
struct SampleImage {
  var blobs: [[UInt8]]
  var manifest: [UInt8]

  init(seed: UInt64 = 1, layerSize: Int = 300_000) throws {
    let layers = [noise(layerSize, seed: seed), noise(1000, seed: seed + 1)]
    let ids = try layers.map { "\"\(try digest($0))\"" }.joined(separator: ",")
    let configuration = Array(
      #"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[\#(ids)]}}"#.utf8)
    blobs = [configuration] + layers
    func descriptor(_ type: String, _ bytes: [UInt8]) throws -> String {
      #"{"mediaType":"\#(type)","digest":"\#(try digest(bytes))","size":\#(bytes.count)}"#
    }
    let layerType = "application/vnd.oci.image.layer.v1.tar"
    let list = try layers.map { try descriptor(layerType, $0) }.joined(separator: ",")
    let config = try descriptor("application/vnd.oci.image.config.v1+json", configuration)
    manifest = Array(
      #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":\#(config),"layers":[\#(list)]}"#
        .utf8)
  }

  var digestOfManifest: Digest { get throws { try digest(manifest) } }

  /// As an OCI image layout, for skopeo.
  func write(to scratch: Scratch, _ name: String) throws {
    for blob in blobs + [manifest] { try scratch.write("\(name)/blobs/sha256/\(try digest(blob).hex)", blob) }
    try scratch.write("\(name)/oci-layout", #"{"imageLayoutVersion":"1.0.0"}"#)
    try scratch.write(
      "\(name)/index.json",
      #"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\#(try digestOfManifest)","size":\#(manifest.count),"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#
    )
  }
}
