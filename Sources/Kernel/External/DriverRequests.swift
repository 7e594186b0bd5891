import Contracts
import Wire

/// Asking a driver: each request has a deadline, and what the driver answers is known to be its word.
extension DriverProcess {
  private func running() throws(EngineError) -> (DriverLink, String) {
    let (link, name, reason) = state.withLock { state in
      (state.status == .running ? state.link : nil, state.description?.driver ?? driver.name, state.reason)
    }
    guard let link else {
      throw EngineError(.unavailable, "the driver \(driver.name) is not running: \(reason)")
    }
    return (link, name)
  }

  func ask<R: Request>(_ request: R, _ call: Call) async throws(EngineError) -> R.Reply {
    let (link, name) = try running()
    let limit = driver.deadline
    let (id, answer) = try link.ask(R.name) { (id) throws(EngineError) in
      try OutgoingMessage.request(
        id, R.name, request, driver: name, trace: call.trace, deadline: limit.components.seconds * 1000)
    }
    let ticket = bus.timekeeper.schedule(after: limit) {
      let late = EngineError(
        .deadlineExceeded, "the driver \(self.driver.name) did not answer \"\(R.name)\" within \(limit)")
      guard answer.resolve(.failure(late)) else { return }
      link.giveUp(id)
      self.missed(R.name, limit, link)
    }
    let result = await withTaskCancellationHandler {
      await answer.value
    } onCancel: {
      if answer.resolve(.failure(EngineError(.cancelled, "\(R.name) was cancelled"))) { link.giveUp(id) }
    }
    bus.timekeeper.cancel(ticket)
    switch result {
    case .success(let body):
      state.withLock { $0.missedDeadlines = 0 }
      do throws(EngineError) {
        return try body.decode(R.Reply.self)
      } catch {
        throw EngineError(
          .protocolViolation, "the driver \(driver.name) answered \"\(R.name)\" with what is no answer to it",
          because: error)
      }
    case .failure(let error):
      throw blame(R.name, error)
    }
  }

  func ask<R: StreamRequest>(
    _ request: R, _ call: Call, _ sink: Sink<R.Element>
  ) async throws(EngineError) -> R.Reply {
    let (link, name) = try running()
    let (id, items) = try link.askStream(R.name) { (id) throws(EngineError) in
      try OutgoingMessage.request(id, R.name, request, driver: name, trace: call.trace)
    }
    do throws(EngineError) {
      for await item in items {
        switch item {
        case .element(let body): try await sink.yield(try body.decode(R.Element.self))
        case .end(.success(let body)): return try body.decode(R.Reply.self)
        case .end(.failure(let error)): throw blame(R.name, error)
        }
      }
    } catch {
      link.giveUp(id)
      throw error
    }
    link.giveUp(id)
    throw EngineError(.cancelled, "\(R.name) was cancelled")
  }

  /// What a driver says of itself is known to come from it.
  private func blame(_ message: String, _ error: EngineError) -> EngineError {
    guard error.code != .cancelled, error.code != .deadlineExceeded, error.code != .unavailable else { return error }
    return EngineError(
      error.code, error.message,
      causes: error.causes + [.init(code: error.code, message: "said by the driver \(driver.name) to \"\(message)\"")])
  }

  /// A driver that misses two deadlines one after the other hangs.
  private func missed(_ message: String, _ limit: Duration, _ link: DriverLink) {
    let count = state.withLock { state -> Int in
      state.missedDeadlines += 1
      return state.missedDeadlines
    }
    if count >= 2 {
      condemn(link, "it hangs: it answered neither \"\(message)\" nor the message before it within \(limit)")
    }
  }
}
