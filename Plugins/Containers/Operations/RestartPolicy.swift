import Contracts
import Kernel

extension Lifecycle {
  private static let firstDelay: UInt64 = 100_000_000
  private static let longestDelay: UInt64 = 60_000_000_000
  /// A container that was up for so many nanoseconds is healthy: the next delay is the first one again.
  private static let steady: Int64 = 10_000_000_000

  /// Whether a container that has just ended is to be brought back.
  static func isBroughtBack(_ state: ContainerEntry.State, _ status: ExitStatus) -> Bool {
    let record = state.record
    if state.isRestarting || record.state.wasStoppedByUser || record.configuration.removesItself { return false }
    switch record.configuration.restart {
    case .no: return false
    case .always, .unlessStopped: return true
    case .onFailure(let limit): return status.code != 0 && (limit == 0 || record.state.restartCount < limit)
    }
  }

  /// Starts it again after a while, which doubles each time that it does not stay up.
  func bringBack(_ entry: ContainerEntry) {
    let delay = entry.update { state -> UInt64 in
      let up = Self.upTime(from: state.record.state.started, to: state.record.state.finished)
      let isFirst = state.restartDelay == 0 || up >= Self.steady
      state.restartDelay = isFirst ? Self.firstDelay : min(state.restartDelay * 2, Self.longestDelay)
      return state.restartDelay
    }
    _ = bus.timekeeper.schedule(after: .nanoseconds(Int64(delay))) { [self] in
      Task(executorPreference: bus.executor) { await self.startAgain(entry) }
    }
  }

  /// Nanoseconds that a container ran; 0 where it is not known, for `never` is further away than an integer can tell.
  static func upTime(from started: Timestamp, to finished: Timestamp) -> Int64 {
    let (span, overflows) = finished.nanoseconds.subtractingReportingOverflow(started.nanoseconds)
    return overflows ? 0 : max(0, span)
  }

  private func startAgain(_ entry: ContainerEntry) async {
    let request = ContainerStart(container: entry.id.text, isAttached: false, streams: StandardStreams())
    do throws(EngineError) {
      _ = try await launchAgain(entry, request, ownCall, isPolicy: true)
    } catch {
      log.error("container \(entry.id) could not be restarted: \(error)")
      await giveUp(entry)
    }
  }

  /// A container that waits for its restart is left as it ended.
  ///
  /// - Returns: false when it did not wait.
  @discardableResult
  func giveUp(_ entry: ContainerEntry, byUser: Bool = false) async -> Bool {
    let record = entry.update { state -> ContainerRecord? in
      guard state.record.state.status == .restarting else { return nil }
      state.record.state.status = .exited
      if byUser { state.record.state.wasStoppedByUser = true }
      return state.record
    }
    guard let record else { return false }
    do throws(EngineError) {
      try await Storage.write(StoredState(.stopped, record), entry.id, ownCall)
    } catch {
      log.error("the state of container \(entry.id) could not be stored: \(error)")
    }
    return true
  }
}
