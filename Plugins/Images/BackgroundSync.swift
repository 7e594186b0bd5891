import Contracts
import Kernel
import LinuxSystem
import Synchronization

/// Makes images that were pulled safe from a power failure, after whoever pulled them has been answered: on a disk that
/// is slower than the registry, writing everything back takes longer than the pull. Until it is done an image's record
/// says so, and an engine that finds such a record after the machine was down does not trust the image.
final class BackgroundSync: Sendable {
  private struct State {
    /// What is to be synced, with the number of the change that wanted it.
    var pending: [Digest: UInt64] = [:]
    var changes: UInt64 = 0
    var isRunning = false
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())
  private let host: PluginHost

  init(host: PluginHost) { self.host = host }

  /// An image is about to be recorded as unsynced. What belongs to it has been written; a sync that begins from now on
  /// includes it.
  func expect(_ images: some Sequence<Digest>) {
    state.withLock { state in
      state.changes += 1
      for image in images { state.pending[image] = state.changes }
    }
  }

  /// Of the images that a sync included, those that nobody wrote anew since.
  func unchanged(since snapshot: [Digest: UInt64]) -> [Digest] {
    state.withLock { state in snapshot.filter { state.pending[$0.key] == $0.value }.map(\.key).sorted() }
  }

  /// Syncs what is pending, if that is not happening already.
  ///
  /// - Parameters:
  ///   - sync: writes everything back.
  ///   - record: is told what was pending when the sync began, and records what of it is safe.
  func start(
    sync: @escaping @Sendable () async throws(EngineError) -> Void,
    record: @escaping @Sendable ([Digest: UInt64]) async throws(EngineError) -> Void
  ) {
    let starts = state.withLock { state in
      if state.isRunning || state.pending.isEmpty { return false }
      state.isRunning = true
      return true
    }
    guard starts else { return }
    Task(executorPreference: host.bus.executor) { await self.run(sync, record) }
  }

  private func run(
    _ sync: @Sendable () async throws(EngineError) -> Void,
    _ record: @Sendable ([Digest: UInt64]) async throws(EngineError) -> Void
  ) async {
    while let snapshot = next() {
      do throws(EngineError) {
        try await sync()
        FaultPoint.reach("images.sync.synced")
        try await record(snapshot)
        state.withLock { state in
          for (image, number) in snapshot where state.pending[image] == number { state.pending[image] = nil }
        }
      } catch {
        // The records go on saying it; the next pull and the next start of the engine try again.
        host.log.error("pulled images are not safe from a power failure yet: \(error)")
        state.withLock { $0.isRunning = false }
        break
      }
    }
    wake()
  }

  private func next() -> [Digest: UInt64]? {
    state.withLock { state in
      if state.pending.isEmpty { state.isRunning = false }
      return state.pending.isEmpty ? nil : state.pending
    }
  }

  private func wake() {
    let waiting = state.withLock { state in
      defer { state.waiting = [] }
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }

  /// Waits until nothing is being synced.
  func finish() async {
    await withCheckedContinuation { continuation in
      let isDone = state.withLock { state in
        if !state.isRunning { return true }
        state.waiting.append(continuation)
        return false
      }
      if isDone { continuation.resume() }
    }
  }
}
