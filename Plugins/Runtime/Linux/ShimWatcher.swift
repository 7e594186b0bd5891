import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import ShimProtocol
import Synchronization

/// One thread that hears every shim.
final class ShimWatcher: Sendable {
  /// What a shim says by itself.
  enum Tiding: Sendable {
    case exited(ExitStatus)
    case detached(exec: String, client: UInt32)
    case ended
  }

  private let epoll: Descriptor
  private let links = Mutex<[Int32: ShimLink]>([:])
  private let hear: @Sendable (ShimLink, Tiding) -> Void

  /// - Parameter hear: Called on the watcher's thread: it must not block.
  init(_ hear: @escaping @Sendable (ShimLink, Tiding) -> Void) throws(EngineError) {
    let number = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard number >= 0 else { throw EngineError(.resourceExhausted, "epoll_create1: \(SystemCallError.text(errno))") }
    epoll = Descriptor(adopting: number)
    self.hear = hear
    guard Kernel.Thread.start({ [self] in run() }) else {
      throw EngineError(.resourceExhausted, "no thread is left for watching containers")
    }
  }

  /// Watches a shim's connection until its end, and reaps the shim where it is our child.
  func watch(_ link: ShimLink) {
    links.withLock { links in
      links[link.socket.number] = link
      if let shim = link.shim { links[shim.number] = link }
    }
    if let shim = link.shim { _ = add(shim.number) }
    if add(link.socket.number) { return }
    // Without room for one more watch (epoll_ctl(2)) nobody would ever hear how the container ends: so it ends now.
    if let shim = link.shim { _ = pidfd_send_signal(shim.number, SIGKILL, nil, 0) }
    forget(link.socket.number)
    link.disconnected()
    hear(link, .ended)
  }

  private func add(_ number: Int32) -> Bool {
    var event = epoll_event(events: UInt32(EPOLLIN.rawValue), data: epoll_data(fd: number))
    return epoll_ctl(epoll.number, EPOLL_CTL_ADD, number, &event) == 0
  }

  private func forget(_ number: Int32) {
    _ = epoll_ctl(epoll.number, EPOLL_CTL_DEL, number, nil)
    _ = links.withLock { $0.removeValue(forKey: number) }
  }

  private func run() {
    var events = [epoll_event](repeating: epoll_event(), count: 32)
    while true {
      let count = epoll_wait(epoll.number, &events, Int32(events.count), -1)
      if count < 0 { continue }
      for event in events[..<Int(count)] {
        let number = event.data.fd
        guard let link = links.withLock({ $0[number] }) else { continue }
        if number == link.socket.number {
          read(link)
        } else {
          // The shim has ended; what it still said is in the socket and comes by itself.
          _ = waitpid(link.shimPID, nil, WNOHANG)
          forget(number)
        }
      }
    }
  }

  private func read(_ link: ShimLink) {
    let received: Channel.Received?
    do {
      received = try Channel.receive(from: link.socket.number, flags: Int32(MSG_DONTWAIT))
    } catch {
      if error.number == EAGAIN { return }
      received = nil
    }
    guard let received else {
      forget(link.socket.number)
      link.disconnected()
      hear(link, .ended)
      return
    }
    let descriptors = received.descriptors.map { Descriptor(adopting: $0) }
    guard let frame = try? Frame<FromShim>(decoding: received.bytes) else { return }
    switch frame.body {
    case .exited(let code, let time):
      hear(link, .exited(ExitStatus(code: code, finished: Timestamp(nanoseconds: time))))
    case .execExited(let name, let code, let time):
      let status = ExitStatus(code: code, finished: Timestamp(nanoseconds: time))
      link.removeExec(name)?.ended.resolve(.success(status))
    case .detached(let process, let client):
      hear(link, .detached(exec: process, client: client))
    case .started, .failed, .done, .state:
      link.resolve(frame, descriptors)
    }
  }
}
