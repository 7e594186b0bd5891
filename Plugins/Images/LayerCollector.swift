import Contracts
import Kernel
import Synchronization

/// Removes layers and blobs that no image needs, never under the hands of an import or a load: those may have found a layer that
/// is about to go, so what is to be removed waits until none runs, and none begins while it is removed.
final class LayerCollector: Sendable {
  private struct State {
    var running = 0
    var collects = false
    var candidates: Set<Digest> = []
    var blobs: Set<Digest> = []
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())
  private let store: ImageStore
  private let host: PluginHost

  init(store: ImageStore, host: PluginHost) {
    self.store = store
    self.host = host
  }

  /// Runs work that makes layers. When it is over, the layers and blobs that `applied` collected are removed, unless an
  /// image needs them by then.
  func during<Value: Sendable>(
    _ body: (AppliedLayers) async throws(EngineError) -> Value
  ) async throws(EngineError) -> Value {
    await begin()
    let applied = AppliedLayers()
    let result: Result<Value, EngineError>
    do throws(EngineError) {
      result = .success(try await body(applied))
    } catch {
      result = .failure(error)
    }
    _ = await end(applied.chains, blobs: applied.blobs)
    return try result.get()
  }

  /// Whether work is going on that makes layers.
  var isBusy: Bool { state.withLock { $0.running > 0 } }

  /// Removes layers and blobs that may be unneeded now.
  ///
  /// - Returns: the bytes of blobs that were freed.
  @discardableResult
  func collect(_ candidates: Set<Digest>, blobs: Set<Digest> = []) async -> Int64 {
    await begin()
    return await end(candidates, blobs: blobs)
  }

  private func begin() async {
    while true {
      let began = state.withLock { state -> Bool in
        if state.collects { return false }
        state.running += 1
        return true
      }
      if began { return }
      await withCheckedContinuation { continuation in
        let resumes = state.withLock { state -> Bool in
          if !state.collects { return true }
          state.waiting.append(continuation)
          return false
        }
        if resumes { continuation.resume() }
      }
    }
  }

  private func end(_ candidates: Set<Digest>, blobs: Set<Digest>) async -> Int64 {
    let (unneeded, unneededBlobs) = state.withLock { state -> ([Digest], [Digest]) in
      state.running -= 1
      state.candidates.formUnion(candidates)
      state.blobs.formUnion(blobs)
      guard state.running == 0, !state.candidates.isEmpty || !state.blobs.isEmpty else { return ([], []) }
      let unneeded = state.candidates.subtracting(store.layersInUse())
      let unneededBlobs = state.blobs.isEmpty ? [] : state.blobs.subtracting(store.blobsInUse)
      state.candidates = []
      state.blobs = []
      state.collects = !unneeded.isEmpty || !unneededBlobs.isEmpty
      return (unneeded.sorted(), unneededBlobs.sorted())
    }
    if unneeded.isEmpty && unneededBlobs.isEmpty { return 0 }
    let freed = store.content.remove(unneededBlobs)
    do throws(EngineError) {
      // Not as a root request, which would be given up with the work that was.
      if !unneeded.isEmpty { _ = try await Call(bus: host.bus).request(SnapshotRemoveLayers(chainIDs: unneeded)) }
    } catch {
      // They are unneeded still, and found again by the next start or `system check`.
      host.log.error("unneeded layers stay: \(error)")
    }
    let waiting = state.withLock { state in
      state.collects = false
      defer { state.waiting = [] }
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
    return freed
  }
}

/// The layers that one operation made or found, and the blobs that images lost by it.
final class AppliedLayers: Sendable {
  private let state = Mutex<(chains: Set<Digest>, blobs: Set<Digest>)>(([], []))

  func add(_ chain: Digest) { state.withLock { _ = $0.chains.insert(chain) } }
  func add(blobs: Set<Digest>) { state.withLock { $0.blobs.formUnion(blobs) } }
  var chains: Set<Digest> { state.withLock { $0.chains } }
  var blobs: Set<Digest> { state.withLock { $0.blobs } }
}

/// A lock that may be held across a suspension; first come, first served.
final class AsyncMutex: Sendable {
  private let state = Mutex<(held: Bool, waiting: [CheckedContinuation<Void, Never>])>((false, []))

  func lock() async {
    await withCheckedContinuation { continuation in
      let taken = state.withLock { state -> Bool in
        if state.held {
          state.waiting.append(continuation)
          return false
        }
        state.held = true
        return true
      }
      if taken { continuation.resume() }
    }
  }

  func unlock() {
    let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
      if state.waiting.isEmpty {
        state.held = false
        return nil
      }
      return state.waiting.removeFirst()
    }
    next?.resume()
  }
}
