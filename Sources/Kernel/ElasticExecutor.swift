import Glibc
import Synchronization

/// Runs every task of the engine, on as many threads as it takes.
///
/// Swift's own pool has one thread a core, so on two cores two handlers in a blocking system call freeze everything.
/// Here a job that waits longer than `patience` while all threads are busy gets a thread of its own, up to
/// `maximumThreads`; a handler may therefore block, and costs a thread rather than the bus. Surplus threads leave
/// after `idleSeconds`.
public final class ElasticExecutor: TaskExecutor {
  private struct Sleeper {
    /// The thread's own.
    var place: Parking
    /// Where it ran when it fell asleep, and where the system likes to wake it.
    var processor: Int32
  }

  private struct State {
    var jobs = JobQueue()
    var threads = 0
    /// Those that sleep and were not woken, the last to fall asleep at the end.
    var sleepers: [Sleeper] = []
    /// Those that were woken and have not looked for a job yet.
    var waking = 0
    /// Counts jobs that were taken, so that the watcher can tell a queue that moves from one that is stuck.
    var taken: UInt64 = 0
    var watcherRuns = false
    var watcherSleeps = false

    mutating func take() -> UnownedJob? {
      guard let job = jobs.popFirst() else { return nil }
      taken &+= 1
      return job
    }

    /// Takes a sleeper for a job: one whose processor is not the given one, else the last to fall asleep.
    mutating func wakeSleeper(awayFrom processor: Int32) -> Parking? {
      if sleepers.isEmpty { return nil }
      let index = sleepers.lastIndex { $0.processor != processor } ?? sleepers.count - 1
      waking += 1
      return sleepers.remove(at: index).place
    }
  }

  /// Threads that are started at once when jobs come in; beyond them only a stuck queue starts more.
  public let coreThreads: Int
  public let maximumThreads: Int
  /// Microseconds that a job may wait while no thread takes any.
  public let patience: UInt32
  private let idleSeconds: Int
  private let state = Mutex(State())
  private let watch = ConditionVariable()

  public init(coreThreads: Int = 4, maximumThreads: Int = 1024, patience: UInt32 = 1000, idleSeconds: Int = 10) {
    self.coreThreads = coreThreads
    self.maximumThreads = maximumThreads
    self.patience = patience
    self.idleSeconds = idleSeconds
  }

  /// Threads that exist now.
  public var threadCount: Int { state.withLock { $0.threads } }

  public func enqueue(_ job: consuming ExecutorJob) {
    enqueue(UnownedJob(job))
  }

  public func enqueue(_ job: UnownedJob) {
    if FirstJob.ofThisThread?.take(job, self) == true { return }
    enum Need {
      case nothing, thread, watcher, wakeWatcher
      case wake(Parking)
    }
    // Who adds a job in the middle of another goes on with that one, so the new one is to run elsewhere at once: a thread
    // that the system would wake behind this one waits until this one is done, while another processor has nothing to do.
    let processor = sched_getcpu()
    let need = state.withLock { state -> Need in
      state.jobs.append(job)
      if let place = state.wakeSleeper(awayFrom: processor) { return .wake(place) }
      if state.threads < coreThreads {
        state.threads += 1
        return .thread
      }
      if !state.watcherRuns {
        state.watcherRuns = true
        return .watcher
      }
      defer { state.watcherSleeps = false }
      return state.watcherSleeps ? .wakeWatcher : .nothing
    }
    switch need {
    case .nothing: break
    case .wake(let place): place.wake()
    case .wakeWatcher: watch.signal()
    case .thread: if !Self.start({ self.work() }) { doWithout() }
    case .watcher: if !Self.start({ self.watchForStalls() }) { state.withLock { $0.watcherRuns = false } }
    }
  }

  /// A thread, also where the system is out of them for a moment.
  private static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    for _ in 0..<100 {
      if Thread.start(body) { return true }
      usleep(1000)
    }
    return false
  }

  /// There is no thread to be had: those that exist take the job when they can. Where none exists, this one does what
  /// is waiting, since nobody else ever would.
  private func doWithout() {
    let isAlone = state.withLock { state -> Bool in
      state.threads -= 1
      return state.threads == 0
    }
    guard isAlone else { return }
    let executor = asUnownedTaskExecutor()
    while let job = state.withLock({ $0.take() }) { job.runSynchronously(on: executor) }
  }

  private func work() {
    let executor = asUnownedTaskExecutor()
    let place = Parking()
    while let job = next(sleepingAt: place) { job.runSynchronously(on: executor) }
  }

  /// The next job, or nil when this thread has been idle long enough to leave.
  private func next(sleepingAt place: Parking) -> UnownedJob? {
    var wasWoken = false
    while true {
      let processor = sched_getcpu()
      let job = state.withLock { state -> UnownedJob? in
        if wasWoken { state.waking -= 1 }
        if let job = state.take() { return job }
        state.sleepers.append(Sleeper(place: place, processor: processor))
        return nil
      }
      if let job { return job }
      wasWoken = place.sleep(seconds: idleSeconds)
      if wasWoken { continue }
      enum Next { case stays, leaves, wasChosen }
      let next = state.withLock { state -> Next in
        guard let index = state.sleepers.firstIndex(where: { $0.place === place }) else { return .wasChosen }
        state.sleepers.remove(at: index)
        guard state.jobs.isEmpty, state.threads > coreThreads else { return .stays }
        state.threads -= 1
        return .leaves
      }
      switch next {
      case .leaves: return nil
      case .stays: break
      // In the moment in which the time was over: the call that wakes it is on its way.
      case .wasChosen: wasWoken = place.sleep(seconds: nil)
      }
    }
  }

  /// Sleeps while the queue is empty; while it is not, starts a thread whenever nothing was taken for `patience`.
  private func watchForStalls() {
    while true {
      let ticket = watch.ticket()
      let before = state.withLock { state -> UInt64? in
        state.watcherSleeps = state.jobs.isEmpty
        return state.jobs.isEmpty ? nil : state.taken
      }
      guard let before else {
        _ = watch.wait(after: ticket, seconds: 3600)
        continue
      }
      // The more threads there are, the more likely it is that the machine is busy rather than the threads blocked.
      let surplus = UInt32(max(0, threadCount - coreThreads))
      usleep(patience * (1 + surplus / 4))
      let starts = state.withLock { state -> Bool in
        guard !state.jobs.isEmpty, state.taken == before, state.sleepers.isEmpty, state.waking == 0,
          state.threads < maximumThreads
        else { return false }
        state.threads += 1
        return true
      }
      if starts, !Thread.start({ self.work() }) { state.withLock { $0.threads -= 1 } }
    }
  }
}

/// One thread's place for the first job that comes up while it handles an event: that is done on the spot, on the
/// thread that is awake, instead of by another one that has to be woken for it.
final class FirstJob {
  private static let key: pthread_key_t = {
    var key = pthread_key_t()
    // Without a key (PTHREAD_KEYS_MAX are taken) every job goes to the executor's own threads.
    return pthread_key_create(&key, nil) == 0 ? key : pthread_key_t.max
  }()

  /// The place of the thread that asks, while it handles an event.
  static var ofThisThread: FirstJob? {
    guard let place = pthread_getspecific(key) else { return nil }
    return Unmanaged<FirstJob>.fromOpaque(place).takeUnretainedValue()
  }

  private let executor: ElasticExecutor
  private var job: UnownedJob?

  init(of executor: ElasticExecutor) { self.executor = executor }

  /// - Returns: false when the place is taken, or is another executor's.
  func take(_ job: UnownedJob, _ executor: ElasticExecutor) -> Bool {
    guard self.job == nil, executor === self.executor else { return false }
    self.job = job
    return true
  }

  /// Calls `body`, then runs the first job that came up in it; the others went to the executor.
  func run(_ body: () -> Void) {
    pthread_setspecific(Self.key, Unmanaged.passUnretained(self).toOpaque())
    body()
    pthread_setspecific(Self.key, nil)
    guard let job else { return }
    self.job = nil
    job.runSynchronously(on: executor.asUnownedTaskExecutor())
  }
}

/// A first-in-first-out queue whose storage is reused.
private struct JobQueue {
  private var storage: [UnownedJob?] = []
  private var head = 0

  var count: Int { storage.count - head }
  var isEmpty: Bool { head == storage.count }

  mutating func append(_ job: UnownedJob) { storage.append(job) }

  mutating func popFirst() -> UnownedJob? {
    guard head < storage.count else { return nil }
    let job = storage[head]
    storage[head] = nil
    head += 1
    if head == storage.count {
      storage.removeAll(keepingCapacity: true)
      head = 0
    } else if head > 1024 && head * 2 > storage.count {
      storage.removeFirst(head)
      head = 0
    }
    return job
  }
}
