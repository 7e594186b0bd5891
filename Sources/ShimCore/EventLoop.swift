import CLinux
import Glibc
import LinuxSystem

/// epoll(7) with one closure a descriptor, and alarms. The shim's only thread lives in `run`.
final class EventLoop {
  typealias Handler = (UInt32) -> Void

  private struct Watched {
    var handler: Handler
    var events: UInt32
    /// Not known to epoll: a file or a device that is always ready (EPERM).
    var isAlwaysReady: Bool
    /// Taken out of epoll for a while.
    var isPaused = false
  }

  private let epoll: OwnedDescriptor
  private var watched: [Int32: Watched] = [:]
  /// Those that are always ready and wanted now.
  private var ready: Set<Int32> = []
  private var later: [() -> Void] = []
  private var alarms: [(due: UInt64, action: () -> Void)] = []

  init() throws(SystemCallError) {
    epoll = OwnedDescriptor(
      adopting: try SystemCallError.check("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
  }

  static let readable = UInt32(EPOLLIN.rawValue)
  static let writable = UInt32(EPOLLOUT.rawValue)

  /// Watches a descriptor; with 0 events only errors and the end of the other side are told.
  func watch(_ descriptor: Int32, _ events: UInt32, _ handler: @escaping Handler) {
    var event = epoll_event(events: events, data: epoll_data(fd: descriptor))
    let result = epoll_ctl(epoll.number, EPOLL_CTL_ADD, descriptor, &event)
    // Files and /dev/null cannot be waited for (epoll_ctl(2)); what can be is not taken for one of them.
    let isAlwaysReady = result != 0 && errno == EPERM && !isStream(descriptor)
    // Deaf to its container or its engine, a shim would hang with both; its end takes the container along, and is told.
    if result != 0 && !isAlwaysReady && errno != EEXIST { _exit(1) }
    watched[descriptor] = Watched(handler: handler, events: events, isAlwaysReady: isAlwaysReady)
    if isAlwaysReady && events != 0 { ready.insert(descriptor) }
  }

  private func isStream(_ descriptor: Int32) -> Bool {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return false }
    return status.st_mode & S_IFMT == S_IFSOCK || status.st_mode & S_IFMT == S_IFIFO
  }

  /// Tells nothing until `change`, not even the end of the other side, which epoll would repeat for ever.
  func pause(_ descriptor: Int32) {
    guard var entry = watched[descriptor], !entry.isPaused else { return }
    entry.isPaused = true
    entry.events = 0
    watched[descriptor] = entry
    ready.remove(descriptor)
    if !entry.isAlwaysReady { _ = epoll_ctl(epoll.number, EPOLL_CTL_DEL, descriptor, nil) }
  }

  /// Changes what is waited for.
  func change(_ descriptor: Int32, _ events: UInt32) {
    guard var entry = watched[descriptor], entry.events != events else { return }
    let operation = entry.isPaused ? EPOLL_CTL_ADD : EPOLL_CTL_MOD
    entry.isPaused = false
    entry.events = events
    watched[descriptor] = entry
    if entry.isAlwaysReady {
      if events == 0 { ready.remove(descriptor) } else { ready.insert(descriptor) }
      return
    }
    var event = epoll_event(events: events, data: epoll_data(fd: descriptor))
    if epoll_ctl(epoll.number, operation, descriptor, &event) != 0, errno == ENOMEM || errno == ENOSPC { _exit(1) }
  }

  /// Forgets a descriptor; before it is closed.
  func forget(_ descriptor: Int32) {
    guard let entry = watched.removeValue(forKey: descriptor) else { return }
    ready.remove(descriptor)
    if !entry.isAlwaysReady && !entry.isPaused { _ = epoll_ctl(epoll.number, EPOLL_CTL_DEL, descriptor, nil) }
  }

  /// Calls `action` once after so many milliseconds.
  func setAlarm(milliseconds: UInt64, _ action: @escaping () -> Void) {
    alarms.append((monotonicClock() + milliseconds * 1_000_000, action))
  }

  /// Calls `action` when the handlers of this turn have returned: for freeing what may be one of them.
  func afterwards(_ action: @escaping () -> Void) { later.append(action) }

  func run(while goesOn: () -> Bool) {
    var events = [epoll_event](repeating: epoll_event(), count: 16)
    while goesOn() {
      let count = epoll_wait(epoll.number, &events, Int32(events.count), timeout)
      if count > 0 {
        for event in events[..<Int(count)] {
          // A handler before this one may have forgotten the descriptor.
          if let entry = watched[event.data.fd] { entry.handler(event.events) }
        }
      }
      for descriptor in ready {
        if let entry = watched[descriptor], entry.events != 0 { entry.handler(entry.events) }
      }
      while !later.isEmpty { later.removeFirst()() }
      if !alarms.isEmpty {
        let now = monotonicClock()
        let due = alarms.filter { $0.due <= now }
        alarms.removeAll { $0.due <= now }
        for alarm in due { alarm.action() }
      }
    }
  }

  private var timeout: Int32 {
    if !ready.isEmpty { return 0 }
    guard let due = alarms.map(\.due).min() else { return -1 }
    let now = monotonicClock()
    return now >= due ? 0 : Int32(clamping: (due - now) / 1_000_000 + 1)
  }
}
