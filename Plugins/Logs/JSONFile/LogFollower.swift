import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Reads one log to its end and, where asked, on as it grows, through every rotation.
///
/// It sleeps in poll(2) on the directory's inotify(7), on the container, on the client's output and on its own
/// cancellation; there is nothing it looks at in intervals.
final class LogFollower {
  /// Milliseconds between keep-alives.
  private static let keepAlive: Int32 = 10_000

  private let request: LogRead
  private let files: LogFiles
  private let cancelled: Descriptor
  private var output: LogOutput
  private var current: LogFile?
  private var offset = 0
  /// Bytes of a line whose end is not there yet.
  private var rest: [UInt8] = []
  private let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
  private let since: [UInt8]?
  private let until: [UInt8]?
  private var isPastEnd = false

  init(_ request: LogRead, files: LogFiles) throws(EngineError) {
    self.request = request
    self.files = files
    since = request.since.map { LogLine.padded($0.description.utf8) }
    until = request.until.map { LogLine.padded($0.description.utf8) }
    do {
      cancelled = Descriptor(
        adopting: try SystemCallError.check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC)) })
    } catch {
      throw Self.failure(error)
    }
    output = LogOutput(request.output, request.error, cancelled: cancelled)
  }

  deinit { chunk.deallocate() }

  func run(_ sink: Sink<Done>) async throws(EngineError) {
    let cancelled = cancelled
    let result = await withTaskCancellationHandler { () async -> Result<Void, EngineError> in
      do throws(EngineError) {
        return .success(try await self.read(sink))
      } catch {
        return .failure(error)
      }
    } onCancel: {
      eventfd_write(cancelled.number, 1)
    }
    try result.get()
  }

  private func read(_ sink: Sink<Done>) async throws(EngineError) {
    do {
      // Watched before the first read, so that nothing falls between the two.
      let follows = request.follow && request.running != nil
      let watch = OwnedDescriptor(adopting: follows ? try self.watch() : -1)
      try begin()
      try drain()
      while follows && !isPastEnd && !output.isClosed {
        switch try wait(watch.number) {
        case .changed: try drain()
        case .quiet: try await sink.yield(Done())
        case .ended:
          try drain()
          return try finish()
        case .cancelled: return
        }
      }
      try finish()
    } catch let error as SystemCallError {
      throw Self.failure(error)
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  private static func failure(_ error: SystemCallError) -> EngineError {
    EngineError(.internalFailure, "the log cannot be read: \(error)")
  }

  private func begin() throws(SystemCallError) {
    let all = files.open()
    guard !all.isEmpty else { return }
    if let tail = request.tail {
      let start = try LogFiles.tail(tail, of: all)
      current = all[start.index]
      offset = start.offset
    } else {
      current = all[0]
    }
  }

  /// Everything that is there now.
  private func drain() throws(SystemCallError) {
    if current == nil { current = files.open().first }
    while let file = current, !isPastEnd, !output.isClosed {
      // Looked up before the read: a file that was rotated away before a read that finds its end is complete.
      let next = files.next(after: file)
      var isAtEnd = false
      while !isAtEnd && !isPastEnd && !output.isClosed { isAtEnd = try readChunk(file) }
      guard let next else { break }
      current = next
      offset = 0
      rest = []
    }
    try output.flush()
  }

  /// - Returns: whether there was nothing more to read.
  private func readChunk(_ file: LogFile) throws(SystemCallError) -> Bool {
    let count = try file.read(chunk, at: offset)
    if count == 0 { return true }
    offset += count
    let bytes = UnsafeRawBufferPointer(rebasing: chunk[..<count])
    var start = 0
    while !isPastEnd, !output.isClosed, let base = bytes.baseAddress,
      let found = memchr(base + start, 10, count - start)
    {
      let end = UnsafeRawPointer(found) - base
      let line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
      if rest.isEmpty {
        try emit(line)
      } else {
        rest.append(contentsOf: line)
        try emitRest()
      }
      start = end + 1
    }
    rest.append(contentsOf: bytes[start...])
    return false
  }

  /// A last line without a newline is shown when it is whole otherwise.
  private func finish() throws(SystemCallError) {
    if !rest.isEmpty && !isPastEnd && !output.isClosed { try emitRest() }
    try output.flush()
  }

  private func emitRest() throws(SystemCallError) {
    let line = rest
    rest = []
    try line.withUnsafeBufferPointer { (bytes) throws(SystemCallError) in try emit(UnsafeRawBufferPointer(bytes)) }
  }

  private func emit(_ bytes: UnsafeRawBufferPointer) throws(SystemCallError) {
    guard let line = LogLine(bytes) else { return }
    if since == nil && until == nil && !request.timestamps {
      return try output.append(isError: line.isError) { LogLine.unescape(bytes[line.text], into: &$0) }
    }
    let time = LogLine.padded(bytes[line.time])
    if let since, time.lexicographicallyPrecedes(since) { return }
    if let until, until.lexicographicallyPrecedes(time) {
      isPastEnd = true
      return
    }
    try output.append(isError: line.isError) { buffer in
      if request.timestamps {
        buffer.append(contentsOf: time)
        buffer.append(32)
      }
      LogLine.unescape(bytes[line.text], into: &buffer)
    }
  }

  // MARK: Waiting

  private enum Wake { case changed, ended, quiet, cancelled }

  private func watch() throws(SystemCallError) -> Int32 {
    let descriptor = try SystemCallError.check("inotify_init1") {
      inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
    }
    let mask = UInt32(IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE_SELF | IN_ONLYDIR)
    guard inotify_add_watch(descriptor, files.directory, mask) >= 0 else {
      let number = errno
      close(descriptor)
      throw SystemCallError(call: "inotify_add_watch", subject: files.directory, number: number)
    }
    return descriptor
  }

  private func wait(_ watch: Int32) throws(SystemCallError) -> Wake {
    var timeout = Self.keepAlive
    if let until = request.until {
      let left = (until.nanoseconds - Timestamp.now.nanoseconds) / 1_000_000
      if left < 0 { return .ended }
      timeout = Int32(min(Int64(timeout), left + 1))
    }
    var polled = [
      pollfd(fd: cancelled.number, events: Int16(POLLIN), revents: 0),
      pollfd(fd: watch, events: Int16(POLLIN), revents: 0),
      pollfd(fd: request.running?.number ?? -1, events: Int16(POLLIN), revents: 0),
      // No events: only that nobody reads any more.
      pollfd(fd: request.output.number, events: 0, revents: 0),
    ]
    let ready = try SystemCallError.check("poll") { poll(&polled, nfds_t(polled.count), timeout) }
    if ready == 0 { return .quiet }
    if polled[0].revents != 0 || polled[3].revents != 0 { return .cancelled }
    if polled[2].revents != 0 { return .ended }
    // The events say nothing that reading does not: they are thrown away.
    _ = Glibc.read(watch, chunk.baseAddress, chunk.count)
    return .changed
  }
}
