import Contracts
import Kernel
import Synchronization

/// Runs a body and gives its outcome as a value, for children that run side by side.
func attempt<Value: Sendable>(
  _ body: @Sendable () async throws(EngineError) -> Value
) async -> Result<Value, EngineError> {
  do throws(EngineError) {
    return .success(try await body())
  } catch {
    return .failure(error)
  }
}

/// The layers that are on their way: whoever wants one that somebody else fetches already waits for that one. It goes on
/// as long as anybody waits for it.
final class LayerJobs: Sendable {
  /// One layer at its place above others, from one blob.
  struct Key: Hashable, Sendable {
    var chain: Digest
    var blob: Digest
  }

  typealias Tell = @Sendable (ImageProgress) -> Void
  typealias Body = @Sendable (_ tell: @escaping Tell) async throws(EngineError) -> SnapshotApply.Reply

  private struct Waiter {
    var number: UInt64
    var tell: Tell
    var continuation: CheckedContinuation<Result<SnapshotApply.Reply, EngineError>, Never>?
  }

  private final class Job: Sendable {
    struct State {
      var waiters: [Waiter] = []
      var task: Task<Void, Never>?
      /// The last waiter left, or the work is over: nobody joins any more.
      var isClosed = false
      var result: Result<SnapshotApply.Reply, EngineError>?
    }
    let state = Mutex(State())

    func tell(_ progress: ImageProgress) {
      for waiter in state.withLock({ $0.waiters }) { waiter.tell(progress) }
    }
  }

  private struct Table {
    var jobs: [Key: Job] = [:]
    var next: UInt64 = 0
  }
  private let table = Mutex(Table())
  private let executor: ElasticExecutor

  init(executor: ElasticExecutor) { self.executor = executor }

  /// - Throws: what the body threw, or `cancelled` when the caller's task was.
  func run(_ key: Key, tell: @escaping Tell, _ body: @escaping Body) async throws(EngineError) -> SnapshotApply.Reply {
    while true {
      let (result, isOwn) = await join(key, tell, body)
      switch result {
      case .success(let reply): return reply
      case .failure(let error):
        // Another pull's failure may be its own, such as its credentials: it is tried again as this pull's.
        if isOwn || Task.isCancelled { throw error }
      }
    }
  }

  private func join(
    _ key: Key, _ tell: @escaping Tell, _ body: @escaping Body
  ) async -> (Result<SnapshotApply.Reply, EngineError>, isOwn: Bool) {
    let (job, number, isOwn) = table.withLock { table -> (Job, UInt64, Bool) in
      table.next += 1
      let number = table.next
      let waiter = Waiter(number: number, tell: tell, continuation: nil)
      if let job = table.jobs[key],
        job.state.withLock({ state in
          if state.isClosed { return false }
          state.waiters.append(waiter)
          return true
        })
      {
        return (job, number, false)
      }
      let job = Job()
      job.state.withLock { $0.waiters = [waiter] }
      table.jobs[key] = job
      return (job, number, true)
    }
    if isOwn { start(job, key, body) }
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let answer = job.state.withLock { state -> Result<SnapshotApply.Reply, EngineError>? in
          if let result = state.result { return result }
          guard let index = state.waiters.firstIndex(where: { $0.number == number }) else {
            return .failure(EngineError(.cancelled, "interrupted"))
          }
          state.waiters[index].continuation = continuation
          return nil
        }
        if let answer { continuation.resume(returning: answer) }
      }
    } onCancel: {
      leave(job, number)
    }
    return (result, isOwn)
  }

  private func start(_ job: Job, _ key: Key, _ body: @escaping Body) {
    let task = Task(executorPreference: executor) {
      let result = await attempt { () async throws(EngineError) in try await body(job.tell) }
      self.table.withLock { if $0.jobs[key] === job { $0.jobs[key] = nil } }
      let waiters = job.state.withLock { state in
        state.result = result
        state.isClosed = true
        return state.waiters
      }
      for waiter in waiters { waiter.continuation?.resume(returning: result) }
    }
    let isClosed = job.state.withLock { state in
      state.task = task
      return state.isClosed
    }
    if isClosed { task.cancel() }
  }

  /// The last who leaves ends the job and is told when it has ended, so that nothing is left behind.
  private func leave(_ job: Job, _ number: UInt64) {
    let (continuation, task) = job.state.withLock {
      state -> (CheckedContinuation<Result<SnapshotApply.Reply, EngineError>, Never>?, Task<Void, Never>?) in
      guard state.result == nil, let index = state.waiters.firstIndex(where: { $0.number == number }) else {
        return (nil, nil)
      }
      if state.waiters.count == 1 {
        state.isClosed = true
        return (nil, state.task)
      }
      return (state.waiters.remove(at: index).continuation, nil)
    }
    task?.cancel()
    continuation?.resume(returning: .failure(EngineError(.cancelled, "interrupted")))
  }
}
