import CLinux
import Contracts
import Glibc
import LinuxSystem
import Logging
import Synchronization
import Wire

/// Answers the bus's messages for other processes: one thread waits for all connections (epoll(7)) and cuts their bytes
/// into messages; each request runs as a task of its own on the elastic executor.
public final class WireServer: Sendable {
  private struct State {
    var connections: [UInt64: Connection] = [:]
    var nextToken: UInt64 = 1
    var isStopping = false
    /// When the last connection went, in nanoseconds of CLOCK_MONOTONIC.
    var lastActivity = Timekeeper.clock()
  }

  private static let listenerToken: UInt64 = 0
  private static let wakeToken: UInt64 = 1

  private let bus: Bus
  private let agent: String
  private let listener: OwnedDescriptor
  private let poller: OwnedDescriptor
  private let wake: OwnedDescriptor
  private let state = Mutex(State())
  private let log = Logger(label: "wire")
  private let stopped = Once<Void>()

  /// - Parameters:
  ///   - listener: a listening Unix socket.
  ///   - agent: how this side names itself in the greeting.
  public init(bus: Bus, listener: consuming OwnedDescriptor, agent: String) throws(SystemCallError) {
    self.bus = bus
    self.agent = agent
    self.listener = listener
    poller = OwnedDescriptor(
      adopting: try SystemCallError.check("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    wake = OwnedDescriptor(
      adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
    try SystemCallError.check("fcntl") { linux_fcntl(self.listener.number, F_SETFL, Int(O_NONBLOCK)) }
    try watch(self.listener.number, Self.listenerToken, EPOLLIN.rawValue, add: true)
    try watch(wake.number, Self.wakeToken, EPOLLIN.rawValue, add: true)
  }

  /// Starts to answer.
  ///
  /// - Returns: false when the system has no thread left.
  public func start() -> Bool { Thread.start { self.run() } }

  /// Closes every connection and returns when the thread has ended.
  public func stop() async {
    state.withLock { $0.isStopping = true }
    poke()
    await stopped.value
  }

  /// How many clients are connected.
  public var connectionCount: Int { state.withLock { $0.connections.count } }

  /// Nanoseconds since a client was last connected; 0 while one is.
  public var idleNanoseconds: UInt64 {
    state.withLock { $0.connections.isEmpty ? Timekeeper.clock() - $0.lastActivity : 0 }
  }

  private func poke() {
    var one: UInt64 = 1
    _ = write(wake.number, &one, 8)
  }

  func watch(_ descriptor: Int32, _ token: UInt64, _ events: UInt32, add: Bool = false) throws(SystemCallError) {
    var event = epoll_event(events: events, data: epoll_data_t(u64: token))
    try SystemCallError.check("epoll_ctl") {
      epoll_ctl(poller.number, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, descriptor, &event)
    }
  }

  private func run() {
    var events = [epoll_event](repeating: epoll_event(), count: 64)
    while !state.withLock({ $0.isStopping }) {
      let count = epoll_wait(poller.number, &events, Int32(events.count), -1)
      for event in events[..<max(0, Int(count))] {
        switch event.data.u64 {
        case Self.listenerToken:
          accept()
        case Self.wakeToken:
          var value: UInt64 = 0
          _ = read(wake.number, &value, 8)
        default:
          guard let connection = state.withLock({ $0.connections[event.data.u64] }) else { continue }
          if !connection.handle(events: event.events) { drop(connection) }
        }
      }
    }
    for connection in state.withLock({ Array($0.connections.values) }) { drop(connection) }
    stopped.resolve(())
  }

  private func accept() {
    while true {
      let number = accept4(
        listener.number, __SOCKADDR_ARG(__sockaddr__: nil), nil, Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue))
      guard number >= 0 else {
        if errno == EINTR || errno == ECONNABORTED { continue }
        if errno != EAGAIN { log.error("a client cannot be accepted: \(SystemCallError.text(errno))") }
        return
      }
      let socket = OwnedDescriptor(adopting: number)
      var credentials = ucred()
      var length = socklen_t(MemoryLayout<ucred>.size)
      guard getsockopt(number, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0,
        credentials.uid == 0 || credentials.uid == geteuid()
      else {
        log.warning("a client of user \(credentials.uid) was refused")
        continue
      }
      let peer = PeerCredentials(pid: credentials.pid, uid: credentials.uid, gid: credentials.gid)
      let token = state.withLock { state -> UInt64 in
        state.nextToken += 1
        return state.nextToken
      }
      let connection = Connection(token: token, socket: socket, bus: bus, server: self, peer: peer, agent: agent)
      state.withLock { $0.connections[token] = connection }
      do {
        try watch(number, connection.token, EPOLLIN.rawValue | EPOLLRDHUP.rawValue, add: true)
      } catch {
        log.error("a client cannot be watched: \(error)")
        drop(connection)
        continue
      }
      // Most clients have sent their first request by now, which saves one round through the poller.
      if !connection.handle(events: EPOLLIN.rawValue) { drop(connection) }
    }
  }

  private func drop(_ connection: Connection) {
    var event = epoll_event()
    epoll_ctl(poller.number, EPOLL_CTL_DEL, connection.descriptor, &event)
    connection.close()
    state.withLock { state in
      state.connections[connection.token] = nil
      state.lastActivity = Timekeeper.clock()
    }
  }
}
