import Contracts
import Synchronization

extension Bus {
  /// Runs a root request: on the elastic executor, with a lease that is released on failure, and with a deadline that
  /// resumes the caller once, whatever the handler does.
  ///
  /// A handler that ignores its cancellation goes on in the background; its late result is dropped and what it holds is
  /// given back when it ends.
  func supervise<Reply: Sendable>(
    _ name: String, call: Call, deadline: Duration?,
    _ body: @escaping @Sendable () async throws(EngineError) -> Reply
  ) async throws(EngineError) -> Reply {
    let outcome = Once<Result<Reply, EngineError>>()
    let task = Task(executorPreference: executor) {
      let result: Result<Reply, EngineError>
      do throws(EngineError) {
        result = .success(try await body())
      } catch {
        result = .failure(error)
        await call.lease.release()
      }
      if !outcome.resolve(result) { await call.lease.release() }
    }
    let ticket = deadline.map { limit in
      timekeeper.schedule(after: limit) {
        let late = EngineError(.deadlineExceeded, "\(name) did not answer within \(limit)")
        if outcome.resolve(.failure(late)) { task.cancel() }
      }
    }
    let result = await withTaskCancellationHandler {
      await outcome.value
    } onCancel: {
      task.cancel()
      outcome.resolve(.failure(EngineError(.cancelled, "\(name) was cancelled")))
    }
    if let ticket { timekeeper.cancel(ticket) }
    return try result.get()
  }
}
