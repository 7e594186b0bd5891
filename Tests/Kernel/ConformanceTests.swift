import Contracts
import Foundation
import Glibc
import LinuxSystem
import Testing
import Wire

@testable import Kernel

/// What the bus promises to everything that is built on it, also on a machine of two cores.
@Suite("Bus conformance", .timeLimit(.minutes(2)))
struct ConformanceTests {
  /// Two handlers that block their threads for ever and two that ignore their cancellation.
  @Test func answersAndFiresDeadlinesWhileHandlersHang() async throws {
    let engine = try Engine()
    try engine.listen()
    var clients: [Int32] = []
    for message in ["block", "block", "ignore", "ignore"] {
      let socket = try UnixSocket.connect(engine.path)
      try OutgoingMessage.hello(Hello(agent: "test")).sendAll(to: socket.number)
      try OutgoingMessage.request(1, "test.\(message)", Done()).sendAll(to: socket.number)
      clients.append(socket.release())
    }
    defer { for client in clients { close(client) } }

    var client = try Client(path: engine.path)
    for number in 0..<200 {
      #expect(try client.request(Echo(text: "x", number: number)).number == number)
    }
    // A deadline fires although its handler never returns: over the wire, and in process.
    await expectError(.deadlineExceeded, containing: "test.block") {
      var client = try Client(path: engine.path)
      return try client.request(Block(), deadline: 50)
    }
    await expectError(.deadlineExceeded, containing: "test.ignore") {
      try await engine.bus.request(Ignore(), deadline: .milliseconds(50))
    }
    // A request that is cancelled is answered at once, also when its handler goes on.
    let id = try client.send(Ignore())
    try client.cancel(id)
    await expectError(.cancelled, containing: "cancelled") {
      guard case .failure(id, let error) = try client.receive() else { return }
      throw error
    }
    #expect(try client.request(Echo(text: "still")).text == "still")
    await engine.stop()
  }

  @Test func keepsTenThousandRequestsInFlight() async throws {
    let engine = try Engine()
    try engine.listen()
    let registrar = Registrar(bus: engine.bus, manifest: PluginManifest(name: "more", role: "test"))
    let waiting = Counter()
    let go = Once<Void>()
    try registrar.answer(Nobody.self) { (_, _) async throws(EngineError) in
      waiting.add()
      await go.value
      return Done()
    }
    let socket = try UnixSocket.connect(engine.path)
    let number = socket.number
    try OutgoingMessage.hello(Hello(agent: "test")).sendAll(to: number)
    let count = 10_000
    let writer = Task.detached {
      for id in 1...count { try OutgoingMessage.request(UInt64(id), Nobody.name, Nobody()).sendAll(to: number) }
    }
    try await writer.value
    await eventually("all requests are under way") { waiting.value == count }
    // They do not have a thread each.
    #expect(engine.bus.executor.threadCount < count / 40)
    var other = try Client(path: engine.path)
    #expect(try other.request(Echo(text: "between")).text == "between")
    go.resolve(())
    var reader = FrameReader()
    var answered = Set<UInt64>()
    while answered.count < count {
      while let frame = try reader.next() {
        if case .result(let id, _) = try RemoteMessage(parsing: frame) { answered.insert(id) }
      }
      if answered.count < count { _ = try reader.receive(from: number) }
    }
    #expect(answered.count == count)
    await engine.stop()
  }

  @Test func givesBackWhatADeadConnectionLeased() async throws {
    let engine = try Engine()
    try engine.listen()
    do {
      var client = try Client(path: engine.path)
      for _ in 0..<20 { _ = try client.send(Hold()) }
      await eventually("the leases are held") { engine.held.value == 20 }
    }
    await eventually("the leases are given back") { engine.released.value == 20 }
    var client = try Client(path: engine.path)
    #expect(try client.request(Echo(text: "alive")).text == "alive")
    await engine.stop()
  }

  @Test func keepsWhatWasCommittedBeforeTheConnectionDied() async throws {
    let engine = try Engine()
    try engine.listen()
    do {
      var client = try Client(path: engine.path)
      _ = try client.send(Hold(commits: true))
      await eventually("it is committed") { engine.held.value == 1 }
    }
    var client = try Client(path: engine.path)
    for _ in 0..<50 { _ = try client.request(Echo(text: "")) }
    #expect(engine.released.value == 0)
    await engine.stop()
  }

  @Test func survivesConnectionsThatDieInTheMiddleOfEverything() async throws {
    let engine = try Engine()
    try engine.listen()
    let whole =
      try OutgoingMessage.hello(Hello(agent: "test")).bytes
      + OutgoingMessage.request(1, Count.name, Count(upTo: 50)).bytes
      + OutgoingMessage.request(2, Hold.name, Hold()).bytes
    for length in 0...whole.count {
      let socket = try UnixSocket.connect(engine.path)
      try Files.writeAll(socket.number, Array(whole[..<length]))
    }
    var client = try Client(path: engine.path)
    #expect(try client.request(Echo(text: "alive")).text == "alive")
    await eventually("every lease that was taken is given back") { engine.released.value == engine.held.value }
    await engine.stop()
  }

  @Test func namesAnUnknownMessageOverTheWire() async throws {
    let engine = try Engine()
    try engine.listen()
    var client = try Client(path: engine.path)
    do {
      _ = try client.request(Nobody())
      Issue.record("expected an error")
    } catch {
      #expect(error.code == .unknownMessage)
      #expect(error.message.contains("test.nobody"))
    }
    #expect(try client.request(Echo(text: "alive")).text == "alive")
    await engine.stop()
  }

  @Test func refusesAnotherProtocolVersion() async throws {
    let engine = try Engine()
    try engine.listen()
    let socket = try UnixSocket.connect(engine.path)
    try OutgoingMessage.hello(Hello(protocolVersion: 99, agent: "tomorrow")).sendAll(to: socket.number)
    var reader = FrameReader()
    var failure: EngineError?
    while failure == nil {
      if let frame = try reader.next() {
        if case .failure(nil, let error) = try RemoteMessage(parsing: frame) { failure = error }
      } else if case .endOfStream = try reader.receive(from: socket.number) {
        break
      }
    }
    #expect(failure?.code == .versionMismatch)
    #expect(failure?.message.contains("99") == true)
    await engine.stop()
  }

  @Test(arguments: [
    ("no hello", Array(FrameHeader(length: 2, descriptors: 0).bytes + Array("{}".utf8))),
    ("oversized", [0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]),
    ("another framing", [0, 0, 0, 2, 9, 0, 0, 0, 0x7B, 0x7D]),
    ("reserved bytes", [0, 0, 0, 2, 1, 0, 7, 7, 0x7B, 0x7D]),
    ("descriptors that are not there", [0, 0, 0, 2, 1, 3, 0, 0, 0x7B, 0x7D]),
    ("no JSON", [0, 0, 0, 3, 1, 0, 0, 0, 0x61, 0x62, 0x63]),
    ("HTTP", Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8)),
  ])
  func endsAConnectionThatBreaksTheProtocol(name: String, bytes: [UInt8]) async throws {
    let engine = try Engine()
    try engine.listen()
    let socket = try UnixSocket.connect(engine.path)
    try Files.writeAll(socket.number, bytes)
    var reader = FrameReader()
    var sawFailure = false
    while true {
      if let frame = try reader.next() {
        if case .failure(nil, let error) = try RemoteMessage(parsing: frame) {
          #expect([.protocolViolation, .versionMismatch].contains(error.code), "\(name): \(error)")
          sawFailure = true
        }
      } else if case .endOfStream = try reader.receive(from: socket.number) {
        break
      }
    }
    #expect(sawFailure)
    var client = try Client(path: engine.path)
    #expect(try client.request(Echo(text: "alive")).text == "alive")
    await engine.stop()
  }

  /// Random damage to valid traffic never takes the engine down and never leaves a lease.
  @Test func survivesFuzzedFrames() async throws {
    let engine = try Engine()
    try engine.listen()
    var generator = SeededGenerator(seed: 20_261)
    let valid =
      try OutgoingMessage.hello(Hello(agent: "fuzz")).bytes
      + OutgoingMessage.request(1, Echo.name, Echo(text: "fuzz")).bytes
      + OutgoingMessage.request(2, Hold.name, Hold()).bytes
      + OutgoingMessage.cancel(2).bytes
    for _ in 0..<400 {
      var bytes = valid
      for _ in 0..<Int.random(in: 1...6, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes[index] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes.remove(at: index)
        case 2: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: index)
        default: bytes.removeSubrange(index...)
        }
        if bytes.isEmpty { break }
      }
      let socket = try UnixSocket.connect(engine.path)
      // The engine may hang up before everything is written; that is its right.
      _ = bytes.withUnsafeBytes { send(socket.number, $0.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)) }
    }
    var client = try Client(path: engine.path)
    #expect(try client.request(Echo(text: "alive")).text == "alive")
    await eventually("every lease is given back") { engine.released.value == engine.held.value }
    await engine.stop()
  }

  @Test func passesDescriptorsBesideTheMessage() async throws {
    let engine = try Engine()
    try engine.listen()
    var ends: [Int32] = [0, 0]
    #expect(pipe2(&ends, O_CLOEXEC) == 0)
    try Files.writeAll(ends[1], Array("through the pipe".utf8))
    close(ends[1])
    var client = try Client(path: engine.path)
    #expect(try client.request(ReadPipe(pipe: Descriptor(adopting: ends[0]))) == "through the pipe")
    await engine.stop()
  }

  @Test func streamsToAClientThatReadsSlowlyWithoutGrowing() async throws {
    let engine = try Engine()
    try engine.listen()
    var client = try Client(path: engine.path)
    let id = try client.send(Count(upTo: 100_000))
    try await Task.sleep(for: .milliseconds(50))
    var next = 0
    var total: Int?
    while total == nil {
      switch try client.receive() {
      case .element(id, let body):
        #expect(try body.decode(Int.self) == next)
        next += 1
      case .reply(id, let body): total = try body.decode(Int.self)
      case .failure(_, let error): throw error
      default: break
      }
    }
    #expect(next == 100_000)
    #expect(total == 100_000)
    await engine.stop()
  }

  @Test func growsThreadsOnlyForHandlersThatBlock() async throws {
    let engine = try Engine()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<40 {
        group.addTask { _ = try await engine.bus.request(Block()) }
      }
      for number in 0..<100 { #expect(try await engine.bus.request(Echo(text: "", number: number)).number == number) }
      await eventually("each blocked handler has a thread") { engine.bus.executor.threadCount >= 40 }
      engine.gate.open()
      try await group.waitForAll()
    }
    await engine.stop()
  }
}

/// The same numbers in every run, so that a failure can be repeated (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
