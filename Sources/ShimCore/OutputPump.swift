import CLinux
import Glibc
import LinuxSystem

/// One stream of a process's output, given to the log and to every client.
final class OutputPump {
  /// Shared by all: one read is dealt with before the next.
  private static let bufferSize = 16 << 10
  /// What is read at most after the process has ended, where others still write: what a pipe can hold, and more.
  private static let lastBytes = 1 << 20

  private let loop: EventLoop
  private var source: Int32
  private let stream: Int
  private let log: LogWriter?
  private var sinks: [Sink] = []
  private var bytesAfterExit = 0
  private var isFinishing = false
  /// Everything was read and the log has it.
  private(set) var isDone = false
  var onDone: () -> Void = {}

  /// Takes ownership of a descriptor, which becomes non-blocking.
  init(adopting source: Int32, stream: Int, log: LogWriter?, loop: EventLoop) {
    self.loop = loop
    self.source = source
    self.stream = stream
    self.log = log
    _ = linux_fcntl(source, F_SETFL, Int(O_NONBLOCK))
    loop.watch(source, EventLoop.readable) { [unowned self] _ in self.read() }
  }

  func add(_ sink: Sink) {
    sinks.append(sink)
    sink.onChange = { [unowned self] in self.sinksChanged() }
  }

  /// A client takes all of it: nothing more may be written to it when this is true.
  var isDelivered: Bool { !sinks.contains { $0.isOpen && $0.isWaiting } }

  private func sinksChanged() {
    sinks.removeAll { !$0.isOpen }
    if source >= 0 && isDelivered {
      loop.change(source, EventLoop.readable)
      if isFinishing { read() }
    } else if isDone && isDelivered {
      onDone()
    }
  }

  /// The process has ended: what is there is read, then the stream is done, whoever else still holds its other end.
  func finish() {
    isFinishing = true
    if isDelivered { read() }
  }

  private func read() {
    // A few at a time, so that one loud stream does not starve the rest; all of it once the process has ended.
    var turns = 0
    while source >= 0 && isDelivered && (isFinishing || turns < 4) {
      turns += 1
      let goesOn = withUnsafeTemporaryAllocation(byteCount: Self.bufferSize, alignment: 16) { buffer -> Bool in
        let count = Glibc.read(source, buffer.baseAddress, buffer.count)
        if count > 0 {
          deliver(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count]))
          bytesAfterExit += isFinishing ? count : 0
          if bytesAfterExit > Self.lastBytes { end() }
          return count == buffer.count || isFinishing
        }
        if count < 0 && errno == EINTR { return true }
        if count < 0 && errno == EAGAIN {
          if isFinishing { end() }
          return false
        }
        end()
        return false
      }
      if !goesOn { return }
    }
  }

  private func deliver(_ bytes: UnsafeRawBufferPointer) {
    log?.append(bytes, stream: stream)
    for sink in sinks { sink.write(bytes) }
    if !isDelivered && source >= 0 { loop.pause(source) }
  }

  private func end() {
    guard source >= 0 else { return }
    loop.forget(source)
    close(source)
    source = -1
    log?.end(stream: stream)
    isDone = true
    onDone()
  }
}
