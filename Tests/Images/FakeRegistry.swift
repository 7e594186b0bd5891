import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import ImagesPlugin

/// A registry in memory that answers the messages of the registry plugin, well or badly.
final class FakeRegistry: Sendable {
  /// What goes wrong with one blob.
  enum Fault: Sendable {
    /// The connection breaks after so many bytes of the answer.
    case breaks(after: Int)
    /// Other bytes of the same number.
    case lies
    /// One other bit.
    case flips(at: Int)
    /// Nothing more comes after so many bytes, until the reader goes away.
    case stalls(after: Int)
  }

  struct State {
    var manifests: [String: RegistryManifest] = [:]
    var blobs: [Digest: [UInt8]] = [:]
    var faults: [Digest: Fault] = [:]
    /// Blobs that were asked for, with the offset.
    var asked: [(Digest, Int64)] = []
    var repositories: [String: Set<Digest>] = [:]
  }
  let state = Mutex(State())

  /// The images of a new engine, and an empty registry.
  static func make() async throws -> (ImagesHarness, FakeRegistry) {
    let harness = try await ImagesHarness()
    let registry = FakeRegistry()
    try registry.register(harness.bus)
    return (harness, registry)
  }

  func register(_ bus: Bus) throws {
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "fake-registry", role: "registry"))
    try registrar.answer(RegistryManifestGet.self) { request, _ throws(EngineError) in
      let key = "\(request.repository.name):\(request.reference)"
      let found = self.state.withLock { state in
        state.manifests[key] ?? state.manifests.values.first { $0.digest.description == request.reference }
      }
      guard let found else {
        throw EngineError(.notFound, "manifest for \(key) not found: manifest unknown")
      }
      return found
    }
    try registrar.answer(RegistryTags.self) { request, _ throws(EngineError) in
      self.state.withLock { state in
        state.manifests.keys.filter { $0.hasPrefix("\(request.repository.name):") && !$0.contains("sha256") }
          .map { String($0.split(separator: ":")[1]) }.sorted()
      }
    }
    try registrar.answer(RegistryBlobGet.self) { request, _ throws(EngineError) in try self.send(request) }
    try registrar.stream(RegistryBlobPut.self) { request, _, sink throws(EngineError) in
      let had = self.state.withLock { state in
        state.repositories[request.repository.name, default: []].contains(request.digest)
      }
      if had { return .existed }
      let mounts = self.state.withLock { state in
        request.mountFrom.contains { state.repositories[$0, default: []].contains(request.digest) }
      }
      let bytes: [UInt8]
      do {
        bytes = try Files.readAll(request.source.number, limit: 1 << 30)
      } catch {
        throw EngineError(.internalFailure, "\(error)")
      }
      guard try SHA256.digest(of: bytes) == request.digest, bytes.count == request.size else {
        throw EngineError(.invalidArgument, "digest invalid")
      }
      self.state.withLock { state in
        state.blobs[request.digest] = bytes
        state.repositories[request.repository.name, default: []].insert(request.digest)
      }
      try await sink.yield(Int64(bytes.count))
      return mounts ? .mounted : .uploaded
    }
    try registrar.answer(RegistryManifestPut.self) { request, _ throws(EngineError) in
      self.state.withLock {
        $0.manifests["\(request.repository.name):\(request.reference)"] = request.manifest
      }
      return Done()
    }
  }

  private func send(_ request: RegistryBlobGet) throws(EngineError) -> Int64 {
    let (bytes, fault) = state.withLock { state in
      state.asked.append((request.digest, request.offset))
      return (state.blobs[request.digest], state.faults[request.digest])
    }
    guard var bytes else { throw EngineError(.notFound, "blob unknown to registry") }
    bytes.removeFirst(Int(request.offset))
    var end = bytes.count
    switch fault {
    case .breaks(let count), .stalls(let count): end = min(end, count)
    case .lies: for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: index) }
    case .flips(let offset): if offset < bytes.count { bytes[offset] ^= 1 }
    case nil: break
    }
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &signals, nil)
    do {
      try Files.writeAll(request.sink.number, Array(bytes[..<end]))
    } catch {
      // The reader has gone, which ends the request.
      return 0
    }
    switch fault {
    case .breaks: throw EngineError(.unavailable, "connection reset by peer")
    case .stalls:
      var waiting = pollfd(fd: request.sink.number, events: 0, revents: 0)
      while poll(&waiting, 1, -1) < 0 && errno == EINTR {}
      return Int64(end)
    default: return Int64(end)
    }
  }

  // MARK: Content

  @discardableResult
  func put(_ bytes: [UInt8]) throws -> ContentDescriptor {
    let digest = try SHA256.digest(of: bytes)
    state.withLock { $0.blobs[digest] = bytes }
    return ContentDescriptor(mediaType: nil, digest: digest, size: Int64(bytes.count))
  }

  func put(manifest text: String, type: String, as name: String) throws -> Digest {
    let digest = try SHA256.digest(of: Array(text.utf8))
    state.withLock { $0.manifests[name] = RegistryManifest(mediaType: type, digest: digest, content: text) }
    return digest
  }

  /// An image of layers, each compressed with a program.
  @discardableResult
  func image(
    _ name: String, _ layers: [[UInt8]], compression: String = "gzip", docker: Bool = false,
    architecture: String = "amd64", differences: [Digest]? = nil, note: String = ""
  ) throws -> Digest {
    let differences = try differences ?? layers.map { try SHA256.digest(of: $0) }
    let blobs = try layers.map { try put(try compress($0, compression)) }
    let list = differences.map { "\"\($0)\"" }.joined(separator: ",")
    let configuration = try put(
      Array(
        """
        {"architecture":"\(architecture)","os":"linux","created":"2024-05-01T10:00:00Z","config":{"Cmd":["/sh"]},
        "author":"\(note)","rootfs":{"type":"layers","diff_ids":[\(list)]},
        "history":[{"created":"2024-05-01T10:00:00Z","created_by":"ADD x"},{"created_by":"ENV","empty_layer":true}]}
        """.utf8))
    let types =
      docker
      ? (MediaType.dockerManifest, MediaType.dockerConfiguration, "\(MediaType.dockerLayer).gzip")
      : (MediaType.ociManifest, MediaType.ociConfiguration, "\(MediaType.ociLayer)+\(compression)")
    func descriptor(_ type: String, _ blob: ContentDescriptor) -> String {
      "{\"mediaType\":\"\(type)\",\"digest\":\"\(blob.digest)\",\"size\":\(blob.size)}"
    }
    let text =
      "{\"schemaVersion\":2,\"mediaType\":\"\(types.0)\",\"config\":\(descriptor(types.1, configuration)),"
      + "\"layers\":[\(blobs.map { descriptor(types.2, $0) }.joined(separator: ","))]}\n"
    return try put(manifest: text, type: types.0, as: name)
  }
}

func compress(_ bytes: [UInt8], _ program: String) throws -> [UInt8] {
  if program == "cat" { return bytes }
  var template = Array("/tmp/engine-compress-XXXXXX".utf8CString)
  let file = mkstemp(&template)
  try #require(file >= 0)
  close(file)
  let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  defer {
    unlink(path)
    unlink("\(path).c")
  }
  try Files.replace(path, with: bytes, durable: false)
  try shell("\(program) < \(path) > \(path).c")
  return try Files.read("\(path).c", limit: 1 << 30)
}
