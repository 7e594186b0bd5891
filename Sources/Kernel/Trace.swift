import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// What happens in the course of one operation that carries a trace id: every message within it, in whichever task, and
/// the steps that plugins measured elsewhere.
public final class Trace: Sendable {
  /// Where in a trace a call is.
  public typealias Index = Int
  /// Spans beyond these are not recorded.
  static let limit = 4096

  private struct State {
    var spans: [TraceSpan] = []
    /// Nobody will read what is recorded from now on.
    var isRead = false
  }

  private let state = Mutex(State())
  private let process = getpid()
  private let program: String
  /// What the client called it.
  public let identifier: String

  public init(identifier: String, program: String = "engined") {
    self.identifier = identifier
    self.program = program
  }

  /// - Returns: the new span's index, or nil when it is not recorded.
  func begin(_ name: String, plugin: String, driver: String, parent: Index) -> Index? {
    let begin = MonotonicClock.now
    return append(
      TraceSpan(
        name: name, plugin: plugin, driver: driver, process: process, program: program, parent: parent, begin: begin))
  }

  func end(_ index: Index?, error: EngineError? = nil) {
    guard let index else { return }
    let end = MonotonicClock.now
    state.withLock { state in
      guard index < state.spans.count else { return }
      state.spans[index].end = end
      if let error { state.spans[index].error = error.description }
    }
  }

  /// Adds what was measured in another process, or without messages.
  @discardableResult
  public func append(_ span: TraceSpan) -> Index? {
    state.withLock { state in
      guard !state.isRead, state.spans.count < Self.limit else { return nil }
      state.spans.append(span)
      return state.spans.count - 1
    }
  }

  func read() -> [TraceSpan] {
    state.withLock { state in
      state.isRead = true
      defer { state.spans = [] }
      return state.spans
    }
  }
}

/// A place in a trace: the message below which something is recorded.
public struct TracePoint: Sendable {
  public let trace: Trace
  /// The message's index, or -1 for the root.
  public let span: Trace.Index

  public init(_ trace: Trace, span: Trace.Index = -1) {
    self.trace = trace
    self.span = span
  }

  /// Records a message: `body` gets the place below which the message's own requests are recorded.
  func record<Reply>(
    _ name: String, plugin: String, driver: String, _ body: (TracePoint) async throws(EngineError) -> Reply
  ) async throws(EngineError) -> Reply {
    let index = trace.begin(name, plugin: plugin, driver: driver, parent: span)
    do throws(EngineError) {
      let reply = try await body(TracePoint(trace, span: index ?? span))
      trace.end(index)
      return reply
    } catch {
      trace.end(index, error: error)
      throw error
    }
  }

  /// Records steps that were measured without messages, in order.
  public func append(_ steps: [TimedStep], process: Int32, program: String) {
    for step in steps {
      trace.append(
        TraceSpan(
          name: step.name, process: process, program: program, parent: span, begin: step.begin, end: step.end))
    }
  }
}

/// The traces that no client has read yet, at most so many: the oldest goes first.
final class TraceStore: Sendable {
  static let limit = 32
  /// Longer ids are not recorded.
  static let identifierLimit = 64

  private let traces = Mutex<[Trace]>([])

  /// The trace of that id, a new one if there is none.
  func open(_ identifier: String) -> Trace? {
    guard !identifier.isEmpty, identifier.utf8.count <= Self.identifierLimit else { return nil }
    return traces.withLock { traces in
      if let present = traces.first(where: { $0.identifier == identifier }) { return present }
      if traces.count == Self.limit { traces.removeFirst() }
      let trace = Trace(identifier: identifier)
      traces.append(trace)
      return trace
    }
  }

  func take(_ identifier: String) -> [TraceSpan] {
    let trace = traces.withLock { traces -> Trace? in
      guard let index = traces.firstIndex(where: { $0.identifier == identifier }) else { return nil }
      return traces.remove(at: index)
    }
    return trace?.read() ?? []
  }
}
