import Contracts
import LinuxSystem
import Synchronization

/// Gathers the steps of one start, some of which run side by side.
final class StartSteps: Sendable {
  /// Nanoseconds of CLOCK_MONOTONIC.
  let begin = MonotonicClock.now
  private let gathered = Mutex<[TimedStep]>([])

  /// Ends a step now.
  ///
  /// - Parameter mark: when the step began; becomes now, for the one after it.
  func finish(_ name: String, _ mark: inout Int64) {
    let now = MonotonicClock.now
    let step = TimedStep(name, .engine, begin: mark, end: now)
    gathered.withLock { $0.append(step) }
    mark = now
  }

  func append(_ steps: [TimedStep]) { gathered.withLock { $0 += steps } }

  var steps: [TimedStep] { gathered.withLock { $0.sorted { ($0.begin, $1.end) < ($1.begin, $0.end) } } }
}

/// The latest starts, at most so many, whether their containers are still there or not.
final class StartHistory: Sendable {
  static let limit = 128
  private let starts = Mutex<[ContainerTimings.Reply]>([])

  func add(_ start: ContainerTimings.Reply) {
    starts.withLock { starts in
      starts.removeAll { $0.id == start.id }
      if starts.count == Self.limit { starts.removeFirst() }
      starts.append(start)
    }
  }

  subscript(id: ObjectID) -> ContainerTimings.Reply? { starts.withLock { $0.last { $0.id == id } } }

  /// The latest start of a container that may be gone.
  func find(_ reference: String) -> ContainerTimings.Reply? {
    let name = reference.hasPrefix("/") ? String(reference.dropFirst()) : reference
    guard !name.isEmpty else { return nil }
    return starts.withLock { starts in
      starts.last { $0.containerName == name } ?? starts.last { $0.id.text.hasPrefix(name) }
    }
  }
}

extension Lifecycle {
  func timings(of reference: String) throws(EngineError) -> ContainerTimings.Reply {
    let entry: ContainerEntry
    do throws(EngineError) {
      entry = try table.find(reference)
    } catch {
      guard error.code == .notFound, let start = history.find(reference) else { throw error }
      return start
    }
    if var start = history[entry.id] {
      start.containerName = entry.record.name
      return start
    }
    throw EngineError(
      .conflict,
      "there are no timings of container \(entry.record.name): the engine keeps those of the last "
        + "\(StartHistory.limit) starts since it was started itself")
  }
}
