import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization
import Testing

@testable import RegistryPlugin

/// A bus with the registry plugin on it, impatient unless the test says otherwise.
final class Harness: Sendable {
  let bus = Bus()
  let plugin: RegistryPlugin

  init(_ change: (inout RegistryConfiguration) -> Void = { _ in }) throws {
    signal(SIGPIPE, SIG_IGN)
    var configuration = RegistryConfiguration()
    configuration.retryPause = .milliseconds(5)
    configuration.stallTimeout = .seconds(20)
    configuration.authorities = []
    change(&configuration)
    plugin = RegistryPlugin(configuration, bus: bus)
    try plugin.register(Registrar(bus: bus, manifest: RegistryPlugin.manifest))
  }

  func end() async { await plugin.stop() }

  /// A root request, as a connection makes one.
  func ask<R: Request>(_ request: R) async throws(EngineError) -> R.Reply {
    try await bus.request(request, deadline: .seconds(60))
  }

  func stream<R: StreamRequest>(_ request: R) async throws(EngineError) -> (reply: R.Reply, elements: [R.Element]) {
    let call = Call(bus: bus)
    let elements = Elements<R.Element>()
    let result = await Task(executorPreference: bus.executor) { () async -> Result<R.Reply, EngineError> in
      do throws(EngineError) {
        return .success(
          try await call.stream(request) { (element) async throws(EngineError) in
            elements.values.withLock { $0.append(element) }
          })
      } catch {
        return .failure(error)
      }
    }.value
    return (try result.get(), elements.values.withLock { $0 })
  }

  final class Elements<Element: Sendable>: Sendable {
    let values = Mutex<[Element]>([])
  }

  /// What a blob's download writes, and how it ends.
  func blob(
    _ repository: RegistryRepository, _ digest: Digest, size: Int, offset: Int = 0
  ) async -> (bytes: [UInt8], result: Result<Int64, EngineError>) {
    var ends: [Int32] = [0, 0]
    pipe2(&ends, O_CLOEXEC)
    let (output, input) = (Descriptor(adopting: ends[0]), Descriptor(adopting: ends[1]))
    let request = Mutex<RegistryBlobGet?>(
      RegistryBlobGet(repository: repository, digest: digest, size: Int64(size), offset: Int64(offset), sink: input))
    let bytes = Once<[UInt8]>()
    _ = Thread.start { bytes.resolve((try? Files.readAll(output.number, limit: 1 << 30)) ?? []) }
    _ = consume input
    let result: Result<Int64, EngineError>
    do throws(EngineError) {
      result = .success(try await ask(request.withLock { $0.take() }!))
    } catch {
      result = .failure(error)
    }
    return (await bytes.value, result)
  }
}

/// Runs a body with a harness and ends it, whatever happens.
func withHarness(
  _ change: (inout RegistryConfiguration) -> Void = { _ in }, _ body: (Harness) async throws -> Void
) async throws {
  let harness = try Harness(change)
  do {
    try await body(harness)
  } catch {
    await harness.end()
    throw error
  }
  await harness.end()
}

/// What a request that must fail says.
func failure<Value: Sendable>(_ body: () async throws(EngineError) -> Value) async -> EngineError {
  do throws(EngineError) {
    let value = try await body()
    Issue.record("it should fail, and gives \(value)")
    return EngineError(.internalFailure, "no failure")
  } catch {
    let line = error.description
    #expect(!line.contains("\n") && line.count < 700, "not one line: \(line)")
    return error
  }
}

extension Result where Failure == EngineError {
  var error: EngineError? { if case .failure(let error) = self { error } else { nil } }
  var value: Success? { try? get() }
}

func digest(_ bytes: [UInt8]) throws -> Digest { try SHA256.digest(of: bytes) }

/// Bytes that no two places of have in common.
func noise(_ count: Int, seed: UInt64 = 7) -> [UInt8] {
  var state = seed
  return (0..<count).map { _ in
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return UInt8(truncatingIfNeeded: state >> 33)
  }
}

/// Runs a shell command of the test's own and fails the test when that fails.
@discardableResult
func shell(_ command: String) throws -> String {
  guard let stream = popen("{ \(command) ; } 2>&1", "re") else {
    throw SystemCallError(call: "popen", subject: command, number: errno)
  }
  var output: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = fread(&buffer, 1, buffer.count, stream)
    if count == 0 { break }
    output += buffer[..<count]
  }
  let text = String(decoding: output, as: UTF8.self)
  let result = pclose(stream)
  try #require(result == 0, "\(command): \(text)")
  return text
}

/// A directory that goes with this value.
final class Scratch: Sendable {
  let path: String

  init() throws {
    var template = Array("/tmp/engine-registry-XXXXXX".utf8CString)
    path = String(cString: try #require(mkdtemp(&template)))
  }

  deinit { try? Files.removeTree(path) }

  func write(_ name: String, _ bytes: [UInt8]) throws {
    let file = "\(path)/\(name)"
    if let slash = file.lastIndex(of: "/") { try Files.makeDirectories(String(file[..<slash])) }
    try Files.replace(file, with: bytes, durable: false)
  }

  func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8)) }

  func open(_ bytes: [UInt8]) throws -> Descriptor {
    let name = "blob-\(try digest(bytes).short)"
    try write(name, bytes)
    return Descriptor(adopting: try Files.open("\(path)/\(name)", O_RDONLY).release())
  }
}
