import Contracts
import Kernel
import Synchronization
import Testing

@testable import ContainersPlugin

@Suite struct ConcurrencyTests {
  @Test func servesTheLockInOrderAndLetsWaitersLeave() async throws {
    let lock = OperationLock()
    final class Order: Sendable { let numbers = Mutex<[Int]>([]) }
    let order = Order()
    try await lock.acquire()
    var tasks: [Task<Void, any Error>] = []
    for number in 0..<5 {
      tasks.append(
        Task {
          try await lock.acquire()
          order.numbers.withLock { $0.append(number) }
          lock.release()
        })
      while lock.waiting <= number { await Task.yield() }
    }
    tasks[2].cancel()
    await #expect(throws: EngineError.self) { try await tasks[2].value }
    lock.release()
    for (number, task) in tasks.enumerated() where number != 2 { try await task.value }
    #expect(order.numbers.withLock { $0 } == [0, 1, 3, 4])
    try await lock.acquire()
    lock.release()
  }

  @Test func signalsOnceAndTimesOut() async {
    let signal = Signal<Int>()
    let keeper = Timekeeper()
    #expect(await signal.wait(.milliseconds(5), by: keeper) == nil)
    let cancelled = Task { await signal.wait() }
    cancelled.cancel()
    #expect(await cancelled.value == nil)
    let waiter = Task { await signal.wait(.seconds(120), by: keeper) }
    #expect(signal.resolve(1) && !signal.resolve(2))
    #expect(await waiter.value == 1)
    #expect(await signal.wait() == 1)
  }

  /// Everything at once on few names, with steps that fail now and then: whatever happens, removing what is left in
  /// the end leaves nothing.
  @Test func leavesNothingWhateverHappens() async throws {
    let world = try await World()
    let steps =
      RunTests.steps + [
        "network.detach", "resource.remove", "runtime.remove", "snapshot.remove", "log.remove", "volume.remove",
        "volume.unmount",
      ]
    let names = ["alpha", "beta", "gamma"]
    await withTaskGroup(of: Void.self) { group in
      for worker in 0..<16 {
        group.addTask(executorPreference: world.bus.executor) {
          for round in 0..<25 {
            let name = names.randomElement() ?? "alpha"
            if round % 3 == 0 { world.fail(steps.randomElement() ?? "") }
            _ = await failure {
              switch (worker + round) % 6 {
              case 0, 1:
                let lease = Lease()
                let run = Task {
                  try await world.run(name, lease: lease) {
                    $0.removesItself = round % 2 == 0
                    $0.mounts = [MountRequest(kind: .volume, source: "", target: "/v")]
                  }
                }
                if round % 5 == 0 {
                  await Task.yield()
                  run.cancel()
                  await lease.release()
                }
                _ = try await run.value
              case 2: _ = try await world.bus.request(ContainerStop(container: name, timeout: nil, signal: nil))
              case 3: _ = try await world.bus.request(ContainerKill(container: name, signal: "KILL"))
              case 4:
                _ = try await world.bus.request(
                  ContainerRemove(container: name, force: round % 2 == 0, removesVolumes: true))
              default:
                let request = ContainerStart(container: name, isAttached: false, streams: StandardStreams())
                _ = try await Call(bus: world.bus).stream(request) { (_) async throws(EngineError) in }
              }
            }
          }
        }
      }
    }
    world.state.withLock { $0.failures = [:] }
    for record in try await world.bus.request(ContainerList(all: true)) {
      _ = try await world.bus.request(ContainerRemove(container: record.id.text, force: true, removesVolumes: true))
    }
    #expect(try await world.bus.request(ContainerList(all: true)) == [])
    #expect(world.records == [])
    #expect(world.made == [])
    #expect(world.state.withLock { $0.volumes } == [])
  }
}
