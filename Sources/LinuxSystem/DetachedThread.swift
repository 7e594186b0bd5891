import CLinux
import Glibc
import Synchronization

/// A POSIX thread that nobody waits for.
public enum DetachedThread {
  private final class Start: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Runs `body` on a new thread with a stack of 512 KiB.
  ///
  /// - Returns: false when the system has no thread left (pthread_create(3) said EAGAIN).
  public static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 512 << 10)
    let start = Unmanaged.passRetained(Start(body))
    var thread = pthread_t()
    let result = pthread_create(
      &thread, &attributes,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
        return nil
      }, start.toOpaque())
    if result != 0 { start.release() }
    return result == 0
  }

  private final class Outcome<Value: Sendable>: Sendable {
    let value = Mutex<Result<Value, SystemCallError>?>(nil)
  }

  /// Runs `body` on a thread of its own and waits for it. What it does to its namespaces, its root and its working
  /// directory is gone with it.
  ///
  /// - Throws: what `body` throws, and EAGAIN when the system has no thread left.
  public static func run<Value: Sendable>(
    _ body: @escaping @Sendable () throws(SystemCallError) -> Value
  ) throws(SystemCallError) -> Value {
    let done = OwnedDescriptor(adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) })
    let number = done.number
    let outcome = Outcome<Value>()
    let isStarted = start {
      let result: Result<Value, SystemCallError>
      do throws(SystemCallError) {
        result = .success(try body())
      } catch {
        result = .failure(error)
      }
      outcome.value.withLock { $0 = result }
      var one: UInt64 = 1
      write(number, &one, 8)
    }
    guard isStarted else { throw SystemCallError(call: "pthread_create", number: EAGAIN) }
    var count: UInt64 = 0
    while read(done.number, &count, 8) < 0 && errno == EINTR {}
    guard let result = outcome.value.withLock({ $0 }) else { throw SystemCallError(call: "read", number: EIO) }
    return try result.get()
  }
}
