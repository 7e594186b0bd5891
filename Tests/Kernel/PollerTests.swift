import CLinux
import Contracts
import Foundation
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Kernel

@Suite("Poller", .timeLimit(.minutes(1)))
struct PollerTests {
  /// What one event led to.
  struct Heard: Sendable, Equatable {
    var byte: UInt8
    var onThread: pid_t
    var workedOn: pid_t
    var secondOn: pid_t
  }

  /// A poller over one pipe. Each byte makes two tasks.
  final class Scene: Sendable {
    let poller: Poller
    let reading: OwnedDescriptor
    let writing: OwnedDescriptor
    let heard: AsyncStream<Heard>
    private let sink: AsyncStream<Heard>.Continuation

    init(threads: Int) throws {
      let executor = ElasticExecutor()
      poller = try Poller(executor: executor, threads: threads)
      var numbers: [Int32] = [-1, -1]
      try SystemCallError.check("pipe2") { pipe2(&numbers, O_CLOEXEC | O_NONBLOCK) }
      reading = OwnedDescriptor(adopting: numbers[0])
      writing = OwnedDescriptor(adopting: numbers[1])
      (heard, sink) = AsyncStream.makeStream()
      let starts = poller.start { [self] token, _ in
        #expect(token == 7)
        var byte: UInt8 = 0
        guard read(self.reading.number, &byte, 1) == 1 else { return }
        let (sink, onThread, value) = (self.sink, gettid(), byte)
        let second = Once<pid_t>()
        Task(executorPreference: executor) {
          let workedOn = gettid()
          let heard = Heard(byte: value, onThread: onThread, workedOn: workedOn, secondOn: await second.value)
          sink.yield(heard)
        }
        Task(executorPreference: executor) { second.resolve(gettid()) }
        try? self.poller.arm(self.reading.number, 7, EPOLLIN.rawValue, isNew: false)
      }
      #expect(starts)
      try poller.arm(reading.number, 7, EPOLLIN.rawValue, isNew: true)
    }

    func say(_ byte: UInt8) {
      var byte = byte
      #expect(write(writing.number, &byte, 1) == 1)
    }
  }

  @Test func worksWhereItHearsWhileAnotherThreadListens() async throws {
    let scene = try Scene(threads: 3)
    var events = scene.heard.makeAsyncIterator()
    // The threads may not all listen yet when the first bytes come.
    var worked = 0
    for byte in 0..<UInt8(200) {
      scene.say(byte)
      let heard = try #require(await events.next())
      #expect(heard.byte == byte)
      if heard.workedOn == heard.onThread { worked += 1 }
      #expect(heard.secondOn != heard.onThread, "only the first task of an event is done on the spot")
    }
    #expect(worked > 0)
    await scene.poller.stop()
  }

  @Test func theLastThatListensDoesNotWork() async throws {
    let scene = try Scene(threads: 1)
    var events = scene.heard.makeAsyncIterator()
    for byte in 0..<UInt8(50) {
      scene.say(byte)
      let heard = try #require(await events.next())
      #expect(heard.workedOn != heard.onThread)
    }
    await scene.poller.stop()
  }

  /// Each thread but the last is blocked in a task of its own; everything is still heard.
  @Test func hearsWhileItsThreadsAreBlocked() async throws {
    let executor = ElasticExecutor()
    let poller = try Poller(executor: executor, threads: 3)
    let gate = Gate()
    defer { gate.open() }
    let ends = try (0..<6).map { _ in try Self.eventDescriptor() }
    defer { for end in ends { close(end) } }
    let heard = Mutex<Set<UInt64>>([])
    let all = Once<Void>()
    let starts = poller.start { token, _ in
      let count = heard.withLock { heard in
        heard.insert(token)
        return heard.count
      }
      if count == ends.count { all.resolve(()) }
      Task(executorPreference: executor) { gate.wait() }
    }
    #expect(starts)
    for (index, end) in ends.enumerated() {
      try poller.arm(end, UInt64(index), EPOLLIN.rawValue, isNew: true)
      eventfd_write(end, 1)
    }
    await all.value
    #expect(heard.withLock { $0 } == Set(0..<6))
    await poller.stop()
  }

  private static func eventDescriptor() throws -> Int32 {
    try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) }
  }
}
