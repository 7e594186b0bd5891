import CLinux
import ContentStreams
import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Lets an unpacking wait until the layer below is there.
final class LayerArrivals: Sendable {
  private struct Waiting {
    var number: UInt64
    var event: Descriptor
  }
  private struct State {
    var next: UInt64 = 0
    var waiting: [Digest: [Waiting]] = [:]
  }
  private let state = Mutex(State())

  /// Blocks until `isThere` says so, which is asked at first and after each announcement of the layer.
  ///
  /// - Throws: `cancelled` when interrupted.
  func wait(
    for chain: Digest, _ interruption: Interruption, until isThere: () -> Bool
  ) throws(EngineError) {
    if isThere() { return }
    let event = Descriptor(adopting: eventfd(0, Int32(EFD_CLOEXEC)))
    guard event.number >= 0 else {
      throw EngineError(.resourceExhausted, "no descriptor left: \(SystemCallError.text(errno))")
    }
    let number = state.withLock { state in
      state.next += 1
      state.waiting[chain, default: []].append(Waiting(number: state.next, event: event))
      return state.next
    }
    defer {
      state.withLock { state in
        state.waiting[chain]?.removeAll { $0.number == number }
        if state.waiting[chain]?.isEmpty == true { state.waiting[chain] = nil }
      }
    }
    while !isThere() {
      try interruption.wait(event.number, for: POLLIN)
      var count: UInt64 = 0
      read(event.number, &count, 8)
    }
  }

  func announce(_ chain: Digest) {
    state.withLock { state in
      var one: UInt64 = 1
      for waiting in state.waiting[chain] ?? [] { write(waiting.event.number, &one, 8) }
    }
  }
}
