import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A few threads that wait together for many descriptors (epoll(7)).
///
/// What an event brings about begins on the thread that heard of it: to wake another one takes 30 to 80 µs where its
/// processor sleeps. So that a handler may block all the same, the last thread that listens never works itself: what it
/// hears goes to the executor.
public final class Poller: Sendable {
  /// Called for each event, with the token of the descriptor and the `EPOLL*` bits. It must not block; the tasks that
  /// it makes may. It is called again for the same descriptor once that has been armed again.
  public typealias Handler = @Sendable (_ token: UInt64, _ events: UInt32) -> Void

  private static let stopToken = UInt64.max

  private let executor: ElasticExecutor
  private let threads: Int
  private let epoll: OwnedDescriptor
  private let wake: OwnedDescriptor
  private let listening = Atomic<Int>(0)
  private let isStopping = Atomic<Bool>(false)
  private let stopped = Once<Void>()

  /// - Parameter threads: how many wait: one fewer events than that can be worked on where they are heard.
  public init(executor: ElasticExecutor, threads: Int = 3) throws(SystemCallError) {
    self.executor = executor
    self.threads = threads
    epoll = OwnedDescriptor(
      adopting: try SystemCallError.check("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    wake = OwnedDescriptor(
      adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
    // Never read, so that it wakes every thread.
    var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: Self.stopToken))
    try SystemCallError.check("epoll_ctl") { epoll_ctl(epoll.number, EPOLL_CTL_ADD, wake.number, &event) }
  }

  /// Starts to listen.
  ///
  /// - Returns: false when the system has no thread left.
  public func start(_ handler: @escaping Handler) -> Bool {
    var started = 0
    while started < threads, Thread.start({ self.run(handler) }) { started += 1 }
    return started > 0
  }

  /// Hears nothing more. Returns when nobody is being called; what began on a thread of this poller may go on.
  public func stop() async {
    isStopping.store(true, ordering: .sequentiallyConsistent)
    var one: UInt64 = 1
    _ = write(wake.number, &one, 8)
    await stopped.value
  }

  /// Waits for one event of a descriptor: after it, the descriptor has to be armed again.
  ///
  /// - Parameters:
  ///   - events: `EPOLL*` bits.
  ///   - isNew: the descriptor has not been watched before.
  public func arm(_ descriptor: Int32, _ token: UInt64, _ events: UInt32, isNew: Bool) throws(SystemCallError) {
    var event = epoll_event(events: events | EPOLLONESHOT.rawValue, data: epoll_data_t(u64: token))
    try SystemCallError.check("epoll_ctl") {
      epoll_ctl(epoll.number, isNew ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, descriptor, &event)
    }
  }

  /// Does nothing for a descriptor that is not watched.
  public func forget(_ descriptor: Int32) {
    var event = epoll_event()
    epoll_ctl(epoll.number, EPOLL_CTL_DEL, descriptor, &event)
  }

  private func run(_ handler: Handler) {
    let place = FirstJob(of: executor)
    var event = epoll_event()
    while true {
      listening.add(1, ordering: .acquiringAndReleasing)
      let count = epoll_wait(epoll.number, &event, 1, -1)
      let others = listening.subtract(1, ordering: .acquiringAndReleasing).newValue
      if isStopping.load(ordering: .sequentiallyConsistent) {
        stopped.resolve(())
        return
      }
      guard count == 1 else { continue }
      let (token, events) = (event.data.u64, event.events)
      if others == 0 { handler(token, events) } else { place.run { handler(token, events) } }
    }
  }
}
