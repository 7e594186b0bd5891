import CLinux
import Contracts
import Glibc
import LinuxSystem
import Logging
import Synchronization
import Wire

/// Answers the bus's messages for other processes: a poller waits for all connections and cuts their bytes into
/// messages; each request runs as a task of its own on the elastic executor, and begins on the thread that received it.
public final class WireServer: Sendable {
  private struct State {
    var connections: [UInt64: Connection] = [:]
    var nextToken: UInt64 = 1
    var isStopping = false
    /// When the last connection went, in nanoseconds of CLOCK_MONOTONIC.
    var lastActivity = Timekeeper.clock()
  }

  private static let listenerToken: UInt64 = 0

  private let bus: Bus
  private let agent: String
  private let listener: OwnedDescriptor
  private let poller: Poller
  private let state = Mutex(State())
  private let log = Logger(label: "wire")

  /// - Parameters:
  ///   - listener: a listening Unix socket.
  ///   - agent: how this side names itself in the greeting.
  public init(bus: Bus, listener: consuming OwnedDescriptor, agent: String) throws(SystemCallError) {
    self.bus = bus
    self.agent = agent
    self.listener = listener
    poller = try Poller(executor: bus.executor)
    try SystemCallError.check("fcntl") { linux_fcntl(self.listener.number, F_SETFL, Int(O_NONBLOCK)) }
    try poller.arm(self.listener.number, Self.listenerToken, EPOLLIN.rawValue, isNew: true)
  }

  /// Starts to answer.
  ///
  /// - Returns: false when the system has no thread left.
  public func start() -> Bool { poller.start { [self] token, _ in hear(token) } }

  /// Closes every connection; nobody is accepted any more when this returns.
  public func stop() async {
    state.withLock { $0.isStopping = true }
    await poller.stop()
    for connection in state.withLock({ Array($0.connections.values) }) { drop(connection) }
  }

  /// How many clients are connected.
  public var connectionCount: Int { state.withLock { $0.connections.count } }

  /// Nanoseconds since a client was last connected; 0 while one is.
  public var idleNanoseconds: UInt64 {
    state.withLock { $0.connections.isEmpty ? Timekeeper.clock() - $0.lastActivity : 0 }
  }

  /// Waits for the next that a connection has to say, or can take.
  func arm(_ connection: Connection, _ events: UInt32, isNew: Bool) throws(SystemCallError) {
    try poller.arm(connection.descriptor, connection.token, events, isNew: isNew)
  }

  private func hear(_ token: UInt64) {
    guard token == Self.listenerToken else {
      if let connection = state.withLock({ $0.connections[token] }), !connection.handle() { drop(connection) }
      return
    }
    accept()
    do {
      try poller.arm(listener.number, Self.listenerToken, EPOLLIN.rawValue, isNew: false)
    } catch {
      log.critical("no more clients are heard: \(error)")
    }
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
      let isStopping = state.withLock { state -> Bool in
        if !state.isStopping { state.connections[token] = connection }
        return state.isStopping
      }
      if isStopping { return }
      // Most clients have sent their first request by now, which saves one round through the poller.
      if !connection.handle() { drop(connection) }
    }
  }

  private func drop(_ connection: Connection) {
    poller.forget(connection.descriptor)
    connection.close()
    state.withLock { state in
      state.connections[connection.token] = nil
      state.lastActivity = Timekeeper.clock()
    }
  }
}
