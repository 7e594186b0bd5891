import Contracts
import Kernel
import Synchronization
import Testing

@testable import RegistryPlugin

@Suite struct SlotsTests {
  private final class Order: Sendable {
    let numbers = Mutex<[Int]>([])
    var all: [Int] { numbers.withLock { $0 } }
  }

  private func wait(for count: Int, at slots: Slots) async throws {
    for _ in 0..<10_000 where slots.waiting < count { try await Task.sleep(for: .milliseconds(1)) }
    try #require(slots.waiting == count)
  }

  @Test func soManyAtOnceAndTheOthersInOrder() async throws {
    let slots = Slots(2)
    try await slots.take()
    try await slots.take()
    let order = Order()
    var waiting: [Task<Void, Never>] = []
    for number in 0..<3 {
      waiting.append(
        Task {
          guard (try? await slots.take()) != nil else { return }
          order.numbers.withLock { $0.append(number) }
          slots.giveBack()
        })
      // Each is in the queue before the next one comes.
      try await wait(for: number + 1, at: slots)
    }
    #expect(order.all.isEmpty)
    slots.giveBack()
    for task in waiting { await task.value }
    #expect(order.all == [0, 1, 2])
  }

  @Test func whoIsCancelledPassesTheTurnOn() async throws {
    let slots = Slots(1)
    try await slots.take()
    let first = Task { () async -> Bool in (try? await slots.take()) != nil }
    try await wait(for: 1, at: slots)
    let second = Task { () async -> Bool in (try? await slots.take()) != nil }
    try await wait(for: 2, at: slots)
    first.cancel()
    #expect(await first.value == false)
    slots.giveBack()
    #expect(await second.value)
    slots.giveBack()
    try await slots.take()
  }
}
