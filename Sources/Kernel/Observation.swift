import Contracts
import Glibc
import Synchronization

/// Counts what one handler answers. It stands on every request's path, so it costs one atomic addition; the clock is
/// read for one call of sixteen, or for each where `measuresAll` is set.
final class Probe: Sendable {
  let message: String
  let driver: String
  let owner: String
  private let measuresAll: Bool
  private let count = Atomic<Int64>(0)
  private let failures = Atomic<Int64>(0)
  private let measured = Atomic<Int64>(0)
  private let total = Atomic<Int64>(0)
  private let maximum = Atomic<Int64>(0)

  init(message: String, driver: String, owner: String, measuresAll: Bool) {
    self.message = message
    self.driver = driver
    self.owner = owner
    self.measuresAll = measuresAll
  }

  /// - Returns: when the call began, or 0 when it is not measured.
  @inline(__always)
  func begin(isWatched: Bool) -> UInt64 {
    let number = count.wrappingAdd(1, ordering: .relaxed).newValue
    return isWatched || measuresAll || number & 15 == 1 ? Timekeeper.clock() : 0
  }

  /// - Returns: how long the call took.
  func end(_ begun: UInt64) -> Int64 {
    let duration = Int64(Timekeeper.clock() &- begun)
    measured.wrappingAdd(1, ordering: .relaxed)
    total.wrappingAdd(duration, ordering: .relaxed)
    maximum.max(duration, ordering: .relaxed)
    return duration
  }

  func fail() { failures.wrappingAdd(1, ordering: .relaxed) }

  var statistics: MessageStatistics {
    MessageStatistics(
      message: message, driver: driver, count: count.load(ordering: .relaxed),
      failures: failures.load(ordering: .relaxed), measured: measured.load(ordering: .relaxed),
      totalNanoseconds: total.load(ordering: .relaxed), maximumNanoseconds: maximum.load(ordering: .relaxed))
  }
}

/// One message that was answered, as those who watch the bus see it.
public struct Observation: Sendable {
  public var request: any Message
  public var driver: String
  /// The plugin that answered.
  public var plugin: String
  public var trace: String
  public var ended: Timestamp
  public var nanoseconds: Int64
  /// Nil where it was answered without an error.
  public var error: EngineError?
  public var reply: (any Encodable & Sendable)?
}

extension Bus {
  /// Calls a handler, counts it, and tells those who watch.
  @inline(__always)
  func run<R: Request>(
    _ body: RequestHandler<R>, _ request: R, _ call: Call, _ probe: Probe
  ) async throws(EngineError) -> R.Reply {
    let begun = probe.begin(isWatched: isWatched)
    do throws(EngineError) {
      let reply = try await body(request, call)
      if begun != 0 { note(request, call, probe, begun, reply, nil) }
      return reply
    } catch {
      probe.fail()
      if begun != 0 { note(request, call, probe, begun, R.Reply?.none, error) }
      throw error
    }
  }

  func run<R: StreamRequest>(
    _ body: StreamHandler<R>, _ request: R, _ call: Call, _ sink: Sink<R.Element>, _ probe: Probe
  ) async throws(EngineError) -> R.Reply {
    let begun = probe.begin(isWatched: isWatched)
    do throws(EngineError) {
      let reply = try await body(request, call, sink)
      if begun != 0 { note(request, call, probe, begun, reply, nil) }
      return reply
    } catch {
      probe.fail()
      if begun != 0 { note(request, call, probe, begun, R.Reply?.none, error) }
      throw error
    }
  }

  /// Generic, so that nothing is boxed while nobody watches.
  private func note<M: Message, Reply: Encodable & Sendable>(
    _ request: M, _ call: Call, _ probe: Probe, _ begun: UInt64, _ reply: Reply?, _ error: EngineError?
  ) {
    let nanoseconds = probe.end(begun)
    guard isWatched else { return }
    tell(
      Observation(
        request: request, driver: probe.driver, plugin: probe.owner, trace: call.trace, ended: .now,
        nanoseconds: nanoseconds, error: error, reply: reply))
  }
}
