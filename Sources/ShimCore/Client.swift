import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// One place where output goes: a client's stdout or stderr. What it does not take at once waits here, and whoever
/// writes stops reading until it is gone: back-pressure, no loss, no growth.
final class Sink {
  private let loop: EventLoop
  private let isSocket: Bool
  private(set) var descriptor: Int32
  private var backlog: [UInt8] = []
  /// Called when the backlog is gone, and when the sink is dead.
  var onChange: () -> Void = {}

  /// Takes ownership of the client's descriptor.
  init(adopting original: Int32, loop: EventLoop) {
    self.loop = loop
    var status = stat()
    fstat(original, &status)
    isSocket = status.st_mode & S_IFMT == S_IFSOCK
    descriptor = reopen(original, status, O_WRONLY)
    loop.watch(descriptor, 0) { [unowned self] events in
      let isGone = events & (UInt32(EPOLLERR.rawValue) | UInt32(EPOLLHUP.rawValue)) != 0
      if isGone { self.close() } else { self.drain() }
    }
  }

  var isOpen: Bool { descriptor >= 0 }
  var isWaiting: Bool { !backlog.isEmpty }

  func write(_ bytes: UnsafeRawBufferPointer) {
    guard isOpen, !bytes.isEmpty else { return }
    if isWaiting {
      backlog.append(contentsOf: bytes)
      return
    }
    let sent = attempt(bytes)
    guard sent < bytes.count, isOpen else { return }
    backlog = Array(bytes[sent...])
    loop.change(descriptor, EventLoop.writable)
  }

  private func attempt(_ bytes: UnsafeRawBufferPointer) -> Int {
    var sent = 0
    while sent < bytes.count {
      let start = bytes.baseAddress?.advanced(by: sent)
      let count =
        isSocket
        ? send(descriptor, start, bytes.count - sent, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
        : Glibc.write(descriptor, start, bytes.count - sent)
      if count >= 0 {
        sent += count
      } else if errno == EAGAIN {
        break
      } else if errno != EINTR {
        close()
        break
      }
    }
    return sent
  }

  private func drain() {
    guard isWaiting else { return }
    let waiting = backlog
    let sent = waiting.withUnsafeBytes { attempt($0) }
    guard isOpen else { return }
    backlog = sent == waiting.count ? [] : Array(waiting[sent...])
    if backlog.isEmpty {
      loop.change(descriptor, 0)
      onChange()
    }
  }

  func close() {
    guard isOpen else { return }
    loop.forget(descriptor)
    Glibc.close(descriptor)
    descriptor = -1
    backlog = []
    onChange()
  }
}

/// A second open file of the same pipe or terminal, for non-blocking use without changing what the client sees; other
/// things (a file has an offset, a socket cannot be opened) are used as they are. The original is closed where replaced.
private func reopen(_ original: Int32, _ status: stat, _ access: Int32) -> Int32 {
  let kind = status.st_mode & S_IFMT
  guard kind == S_IFIFO || (kind == S_IFCHR && isatty(original) == 1) else { return original }
  let fresh = linux_open("/proc/self/fd/\(original)", access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0)
  if fresh < 0 { return original }
  close(original)
  return fresh
}

/// A client's input, pumped into a process. It reads only while the process takes what was read.
final class InputPump {
  private let loop: EventLoop
  private var source: Int32
  private var backlog: [UInt8] = []
  private var keys: DetachKeys
  private let destination: InputDestination
  private let closesAtEnd: Bool
  var onDetach: () -> Void = {}

  /// Takes ownership of the client's descriptor.
  init(
    adopting original: Int32, to destination: InputDestination, detachKeys: [UInt8], closesAtEnd: Bool, loop: EventLoop
  ) {
    self.loop = loop
    self.destination = destination
    self.closesAtEnd = closesAtEnd
    keys = DetachKeys(detachKeys)
    var status = stat()
    fstat(original, &status)
    source = reopen(original, status, O_RDONLY)
    loop.watch(source, EventLoop.readable) { [unowned self] _ in self.read() }
  }

  private func read() {
    guard source >= 0, backlog.isEmpty else { return }
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
      let count = Glibc.read(source, buffer.baseAddress, buffer.count)
      if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
      if count <= 0 {
        stop()
        if closesAtEnd { destination.close() }
        return
      }
      let (passed, isDetached) = keys.filter(UnsafeRawBufferPointer(buffer)[..<count])
      backlog = passed
      drain()
      if isDetached { onDetach() }
    }
  }

  private func drain() {
    guard !backlog.isEmpty else { return }
    switch destination.write(backlog) {
    case .all:
      backlog = []
      if source >= 0 { loop.change(source, EventLoop.readable) }
    case .some(let count):
      backlog.removeFirst(count)
      if source >= 0 { loop.pause(source) }
      destination.awaitRoom { [weak self] in self?.drain() }
    case .gone:
      backlog = []
      stop()
    }
  }

  /// Lets go of the client's input.
  func stop() {
    guard source >= 0 else { return }
    loop.forget(source)
    close(source)
    source = -1
  }
}

/// The end of a process's stdin that the shim writes: a pipe, or a pty's master.
final class InputDestination {
  enum Outcome {
    case all
    case some(Int)
    case gone
  }

  private let loop: EventLoop
  private var descriptor: Int32
  /// The pumps that have something left to write, each of another client.
  private var waiting: [() -> Void] = []

  /// Takes ownership of a descriptor that is non-blocking.
  init(adopting descriptor: Int32, loop: EventLoop) {
    self.loop = loop
    self.descriptor = descriptor
    loop.watch(descriptor, 0) { [unowned self] events in
      if events & EventLoop.writable != 0 {
        self.loop.change(self.descriptor, 0)
        let waiting = self.waiting
        self.waiting = []
        for pump in waiting { pump() }
      } else {
        // The process closed its stdin: EPOLLERR would come for ever.
        self.close()
      }
    }
  }

  func write(_ bytes: [UInt8]) -> Outcome {
    guard descriptor >= 0 else { return .gone }
    while true {
      let count = Glibc.write(descriptor, bytes, bytes.count)
      if count == bytes.count { return .all }
      if count >= 0 || errno == EAGAIN {
        loop.change(descriptor, EventLoop.writable)
        return .some(max(0, count))
      }
      if errno != EINTR {
        close()
        return .gone
      }
    }
  }

  /// Calls `action` once, when the process has taken some of what it was given.
  func awaitRoom(_ action: @escaping () -> Void) { waiting.append(action) }

  func close() {
    guard descriptor >= 0 else { return }
    loop.forget(descriptor)
    Glibc.close(descriptor)
    descriptor = -1
    waiting = []
  }
}

/// Finds the keys that let go of a terminal in what the user types. Keys that turn out to be something else are passed
/// on, late but complete.
struct DetachKeys {
  private let sequence: [UInt8]
  private var matched = 0

  init(_ sequence: [UInt8]) { self.sequence = sequence }

  /// - Returns: what goes to the process, and whether the sequence is complete; what follows it is dropped.
  mutating func filter(_ bytes: Slice<UnsafeRawBufferPointer>) -> (passed: [UInt8], isDetached: Bool) {
    if sequence.isEmpty { return (Array(bytes), false) }
    var passed: [UInt8] = []
    for byte in bytes {
      if byte == sequence[matched] {
        matched += 1
        if matched == sequence.count {
          matched = 0
          return (passed, true)
        }
        continue
      }
      passed.append(contentsOf: sequence[..<matched])
      matched = 0
      if byte == sequence[0] {
        matched = 1
        if sequence.count == 1 { return (passed, true) }
      } else {
        passed.append(byte)
      }
    }
    return (passed, false)
  }
}
