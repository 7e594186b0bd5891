import CLinux
import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// Gives a stream without its compression to somebody who reads it meanwhile.
enum UncompressedStream {
  /// Calls `body` with a descriptor of the uncompressed stream: the archive itself where it is a plain file, else a pipe
  /// that a thread fills. Both sides have ended when this returns; an error of the stream comes before one of `body`,
  /// which then only saw its consequence.
  static func with<Value: Sendable>(
    _ archive: Descriptor, interruption: Interruption,
    _ body: @Sendable (Descriptor) async throws(EngineError) -> Value
  ) async throws(EngineError) -> Value {
    if Decompression.isPlainFile(archive.number) { return try await body(archive) }
    var ends: [Int32] = [0, 0]
    guard pipe2(&ends, O_CLOEXEC) == 0 else {
      throw EngineError(.resourceExhausted, "no descriptor left: \(SystemCallError.text(errno))")
    }
    let output = Descriptor(adopting: ends[0])
    let input = ends[1]
    // A pipe may not be enlarged beyond /proc/sys/fs/pipe-user-pages-soft; a small one only costs speed.
    _ = linux_fcntl(input, F_SETPIPE_SZ, 1 << 20)
    _ = linux_fcntl(input, F_SETFL, Int(O_WRONLY | O_NONBLOCK))
    let filling = Filling()
    guard Thread.start({ filling.run(from: archive, to: OwnedDescriptor(adopting: input), interruption) }) else {
      close(input)
      throw EngineError(.resourceExhausted, "no thread left to read the archive")
    }
    let result: Result<Value, EngineError>
    do throws(EngineError) {
      result = .success(try await body(output))
    } catch {
      result = .failure(error)
      interruption.interrupt()
    }
    if let error = await filling.error, error.code != .cancelled { throw error }
    return try result.get()
  }

  /// The thread's outcome, which somebody may wait for.
  private final class Filling: Sendable {
    private enum State {
      case runs(CheckedContinuation<EngineError?, Never>?)
      case ended(EngineError?)
    }
    private let state = Mutex(State.runs(nil))

    var error: EngineError? {
      get async {
        await withCheckedContinuation { continuation in
          let ended = state.withLock { state -> EngineError?? in
            if case .ended(let error) = state { return .some(error) }
            state = .runs(continuation)
            return nil
          }
          if let ended { continuation.resume(returning: ended) }
        }
      }
    }

    func run(from archive: Descriptor, to input: consuming OwnedDescriptor, _ interruption: Interruption) {
      var signals = sigset_t()
      sigemptyset(&signals)
      sigaddset(&signals, SIGPIPE)
      pthread_sigmask(SIG_BLOCK, &signals, nil)
      var outcome: EngineError?
      do throws(EngineError) {
        defer { withExtendedLifetime(archive) {} }
        try Decompression.copy(from: archive.number, to: input.number, interruption: interruption)
      } catch {
        outcome = error
      }
      let error = outcome
      // The reader's end of the stream comes before the outcome is told.
      close(input.release())
      let waiting = state.withLock { state -> CheckedContinuation<EngineError?, Never>? in
        defer { state = .ended(error) }
        if case .runs(let continuation) = state { return continuation }
        return nil
      }
      waiting?.resume(returning: error)
    }
  }
}
