import Synchronization
import Testing

@testable import Kernel

@Suite struct ExecutorTests {
  private final class Counter: Sendable {
    let value = Mutex(0)
    func add() { value.withLock { $0 += 1 } }
  }

  /// Threads whose time to sleep is over in the moment in which they are woken: no job is lost and none is run twice.
  @Test func threadsThatTireOfWaitingLoseNothing() async {
    let executor = ElasticExecutor(coreThreads: 2, maximumThreads: 8, idleSeconds: 0)
    let counter = Counter()
    for _ in 0..<200 {
      await withTaskGroup(of: Void.self) { group in
        for _ in 0..<50 {
          group.addTask(executorPreference: executor) {
            counter.add()
            await Task.yield()
            counter.add()
          }
        }
      }
    }
    #expect(counter.value.withLock { $0 } == 20_000)
  }

  /// What a job adds runs beside it: the first waits, blocking its thread, for the second.
  @Test func whatAJobAddsRunsBesideIt() async {
    let executor = ElasticExecutor(coreThreads: 4)
    let counter = Counter()
    for _ in 0..<500 {
      await Task(executorPreference: executor) {
        let place = Parking()
        async let other: Void = {
          counter.add()
          place.wake()
        }()
        #expect(place.sleep(seconds: 10))
        await other
      }.value
    }
    #expect(counter.value.withLock { $0 } == 500)
  }

  @Test func aThreadThatWasWokenBeforeItSleepsDoesNotSleep() {
    let place = Parking()
    place.wake()
    place.wake()
    #expect(place.sleep(seconds: nil))
    #expect(!place.sleep(seconds: 0))
  }

  @Test func replenishesWhenItIsQuietOrWhenNothingIsLeft() async throws {
    let fills = Counter()
    let replenisher = Replenisher(Bus())
    func filled(_ count: Int) async throws {
      for _ in 0..<2000 where fills.value.withLock({ $0 }) < count { try await Task.sleep(for: .milliseconds(2)) }
      #expect(fills.value.withLock { $0 } >= count)
    }
    for _ in 0..<10 { replenisher.taken(isLast: false) { fills.add() } }
    try await filled(1)
    for _ in 0..<10 { replenisher.taken(isLast: true) { fills.add() } }
    try await filled(2)
    replenisher.taken(isLast: false) { fills.add() }
    try await filled(3)
    // Not once for each that was taken.
    #expect(fills.value.withLock { $0 } < 21)
  }
}
