import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import ShimProtocol
import Synchronization

/// Hears every shim.
final class ShimWatcher: Sendable {
  /// What a shim says by itself.
  enum Tiding: Sendable {
    case exited(ExitStatus, canServeAgain: Bool)
    case detached(exec: String, client: UInt32)
    case ended
  }

  private let poller: Poller
  private let links = Mutex<[Int32: ShimLink]>([:])
  private let hear: @Sendable (ShimLink, Tiding) -> Void

  /// - Parameter hear: Called on a thread of the watcher: it must not block.
  init(
    executor: ElasticExecutor, _ hear: @escaping @Sendable (ShimLink, Tiding) -> Void
  ) throws(EngineError) {
    do {
      poller = try Poller(executor: executor)
    } catch {
      throw EngineError(.resourceExhausted, "\(error)")
    }
    self.hear = hear
    guard poller.start({ [self] token, _ in dispatch(Int32(truncatingIfNeeded: token)) }) else {
      throw EngineError(.resourceExhausted, "no thread is left for watching containers")
    }
  }

  /// Watches a shim's connection until its end, and reaps the shim where it is our child.
  func watch(_ link: ShimLink) {
    links.withLock { links in
      links[link.socket.number] = link
      if let shim = link.shim { links[shim.number] = link }
    }
    if let shim = link.shim { _ = arm(shim.number, isNew: true) }
    if arm(link.socket.number, isNew: true) { return }
    // Without room for one more watch (epoll_ctl(2)) nobody would ever hear how the container ends: so it ends now.
    if let shim = link.shim { _ = pidfd_send_signal(shim.number, SIGKILL, nil, 0) }
    forget(link.socket.number)
    link.disconnected()
    hear(link, .ended)
  }

  /// Watches a shim no longer: what becomes of it is another's.
  func letGo(_ link: ShimLink) {
    forget(link.socket.number)
    if let shim = link.shim { forget(shim.number) }
  }

  private func arm(_ number: Int32, isNew: Bool) -> Bool {
    do {
      try poller.arm(number, UInt64(number), EPOLLIN.rawValue, isNew: isNew)
      return true
    } catch {
      return false
    }
  }

  private func forget(_ number: Int32) {
    poller.forget(number)
    _ = links.withLock { $0.removeValue(forKey: number) }
  }

  private func dispatch(_ number: Int32) {
    guard let link = links.withLock({ $0[number] }) else { return }
    if number != link.socket.number {
      // The shim has ended; what it still said is in the socket and comes by itself.
      _ = waitpid(link.shimPID, nil, WNOHANG)
      forget(number)
    } else if read(link) {
      _ = arm(number, isNew: false)
    } else {
      forget(number)
      link.disconnected()
      hear(link, .ended)
    }
  }

  /// - Returns: false when the shim is at its end.
  private func read(_ link: ShimLink) -> Bool {
    let received: Channel.Received?
    do {
      received = try Channel.receive(from: link.socket.number, flags: Int32(MSG_DONTWAIT))
    } catch {
      if error.number == EAGAIN { return true }
      received = nil
    }
    guard let received else { return false }
    let descriptors = received.descriptors.map { Descriptor(adopting: $0) }
    guard let frame = try? Frame<FromShim>(decoding: received.bytes) else { return true }
    switch frame.body {
    case .exited(let code, let time, let canServeAgain):
      let status = ExitStatus(code: code, finished: Timestamp(nanoseconds: time))
      hear(link, .exited(status, canServeAgain: canServeAgain))
    case .execExited(let name, let code, let time):
      let status = ExitStatus(code: code, finished: Timestamp(nanoseconds: time))
      link.removeExec(name)?.ended.resolve(.success(status))
    case .detached(let process, let client):
      hear(link, .detached(exec: process, client: client))
    case .started, .failed, .done, .state:
      link.resolve(frame, descriptors)
    }
    return true
  }
}
