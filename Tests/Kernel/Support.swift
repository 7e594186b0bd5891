import Contracts
import Foundation
import Glibc
import LinuxSystem
import Testing
import Wire

@testable import Kernel

struct Echo: Request, Equatable {
  static let name = "test.echo"
  typealias Reply = Echo
  var text: String
  var number = 0
}

/// Has no handler anywhere.
struct Nobody: Request {
  static let name = "test.nobody"
  typealias Reply = Done
}

/// Blocks its thread until the gate opens.
struct Block: Request {
  static let name = "test.block"
  typealias Reply = Done
}

/// Goes on whatever its cancellation says, until the gate opens.
struct Ignore: Request {
  static let name = "test.ignore"
  typealias Reply = Done
}

/// Holds something on its lease and then waits to be cancelled.
struct Hold: Request {
  static let name = "test.hold"
  typealias Reply = Done
  var commits = false
}

struct Count: StreamRequest {
  static let name = "test.count"
  typealias Element = Int
  typealias Reply = Int
  var upTo: Int
}

struct ReadPipe: Request {
  static let name = "test.read-pipe"
  typealias Reply = String
  var pipe: Descriptor
}

struct Ping: Event {
  static let name = "test.ping"
  var number: Int
}

/// A bus with the test's handlers, behind a socket of its own. Everything is taken down in reverse order.
final class Engine: @unchecked Sendable {
  // Unchecked: made and taken down by one test.
  let bus = Bus()
  let directory: String
  let path: String
  let gate = Gate()
  let released = Counter()
  let held = Counter()
  private var server: WireServer?

  init() throws {
    directory = NSTemporaryDirectory() + "kernel-\(UUID().uuidString.prefix(8))"
    try Files.makeDirectories(directory)
    path = directory + "/s"
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "test", role: "test"))
    let (gate, released, held) = (gate, released, held)
    try registrar.answer(Echo.self) { (request, _) async throws(EngineError) in request }
    try registrar.answer(Block.self) { (_, _) async throws(EngineError) in
      gate.wait()
      return Done()
    }
    try registrar.answer(Ignore.self) { (_, call) async throws(EngineError) in
      while !gate.isOpen { await call.bus.timekeeper.ignoringSleep() }
      return Done()
    }
    try registrar.answer(Hold.self) { (request, call) async throws(EngineError) in
      await call.lease.hold("thing") { released.add() }
      if request.commits { try call.lease.commit() }
      held.add()
      while !Task.isCancelled { await call.bus.timekeeper.sleep(.milliseconds(5)) }
      throw EngineError(.cancelled, "gone")
    }
    try registrar.stream(Count.self) { (request, _, sink) async throws(EngineError) in
      for number in 0..<request.upTo { try await sink.yield(number) }
      return request.upTo
    }
    try registrar.answer(ReadPipe.self) { (request, _) async throws(EngineError) in
      do {
        return String(decoding: try Files.readAll(request.pipe.number), as: UTF8.self)
      } catch {
        throw EngineError(.internalFailure, "\(error)")
      }
    }
  }

  func listen() throws {
    server = try WireServer(bus: bus, listener: try UnixSocket.listen(path), agent: "test")
    #expect(server?.start() == true)
  }

  func stop() async {
    gate.open()
    await server?.stop()
    try? Files.removeTree(directory)
  }
}

/// Blocks threads, not tasks, until it is opened.
final class Gate: @unchecked Sendable {
  // Unchecked: `opened` is only touched under the condition.
  private let condition = NSCondition()
  private var opened = false

  var isOpen: Bool { condition.withLock { opened } }

  func wait() {
    condition.withLock { while !opened { condition.wait() } }
  }

  func open() {
    condition.withLock {
      opened = true
      condition.broadcast()
    }
  }
}

final class Counter: @unchecked Sendable {
  // Unchecked: `count` is only touched under the lock.
  private let lock = NSLock()
  private var count = 0

  var value: Int { lock.withLock { count } }
  func add() { lock.withLock { count += 1 } }
}

extension Timekeeper {
  /// A sleep that a cancelled task cannot cut short.
  func ignoringSleep() async {
    let once = Once<Void>()
    _ = schedule(after: .milliseconds(2)) { once.resolve(()) }
    await once.value
  }
}

/// Polls until `condition` holds; it is no assertion on time, only a bound on how long a broken test hangs.
func eventually(_ what: String, _ condition: () -> Bool) async {
  for _ in 0..<20000 {
    if condition() { return }
    try? await Task.sleep(for: .milliseconds(5))
  }
  Issue.record("never happened: \(what)")
}

func expectError<Value>(
  _ code: EngineError.Code, containing text: String, sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () async throws -> Value
) async {
  do {
    _ = try await body()
    Issue.record("expected \(code)", sourceLocation: sourceLocation)
  } catch let error as EngineError {
    #expect(error.code == code, sourceLocation: sourceLocation)
    #expect(error.message.contains(text), "\(error)", sourceLocation: sourceLocation)
  } catch {
    Issue.record("unexpected \(error)", sourceLocation: sourceLocation)
  }
}

/// Collects values from anywhere.
final class Recorder<Value: Sendable>: @unchecked Sendable {
  // Unchecked: `stored` is only touched under the lock.
  private let lock = NSLock()
  private var stored: [Value] = []

  var values: [Value] { lock.withLock { stored } }
  func append(_ value: Value) { lock.withLock { stored.append(value) } }
}
