import CLinux
import Glibc
import LinuxSystem

/// Writes a container's output in Docker's json-file form: one JSON object a line of output, with `log`, `stream` and
/// `time`; a line longer than 16 KiB becomes several entries of which only the last ends in a newline.
final class LogWriter {
  static let longestEntry = 16 << 10
  private let path: String
  private let maximumSize: UInt64
  private let maximumFiles: Int
  private var file: Int32 = -1
  private var size: UInt64 = 0
  /// Encoded entries that are not written yet.
  private var pending: [UInt8] = []
  /// Beginnings of lines, by stream.
  private var partial: [[UInt8]] = [[], []]
  private var lastSecond: Int64 = -1
  private var date: [UInt8] = []
  /// Why the log cannot be written, told once.
  private(set) var problem: String?

  /// - Parameters:
  ///   - maximumSize: Bytes after which a new file is begun; 0 for never.
  ///   - maximumFiles: Files that are kept, the newest included.
  init(path: String, maximumSize: UInt64, maximumFiles: Int) {
    self.path = path
    self.maximumSize = maximumSize
    self.maximumFiles = max(1, maximumFiles)
  }

  deinit { if file >= 0 { close(file) } }

  /// Opens the file, or begins a new one; before the first entry.
  func open() {
    if file >= 0 { close(file) }
    file = linux_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0o640)
    if file < 0 { problem = "the log \(path) cannot be opened: \(reason(errno))" }
    var status = stat()
    size = file >= 0 && fstat(file, &status) == 0 ? UInt64(status.st_size) : 0
  }

  /// - Parameter stream: 1 for stdout, 2 for stderr.
  func append(_ bytes: UnsafeRawBufferPointer, stream: Int) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let room = Self.longestEntry - partial[stream - 1].count
      let window = rest.prefix(room)
      if let newline = window.firstIndex(of: 10) {
        finishLine(rest[rest.startIndex...newline], stream)
        rest = rest[(newline + 1)...]
      } else if window.count == room {
        finishLine(window, stream)
        rest = rest[window.endIndex...]
      } else {
        partial[stream - 1].append(contentsOf: rest)
        break
      }
    }
    flush()
  }

  /// What is left of a stream that has ended without a newline.
  func end(stream: Int) {
    if partial[stream - 1].isEmpty { return }
    finishLine(UnsafeRawBufferPointer(start: nil, count: 0)[...], stream)
    flush()
  }

  private func finishLine(_ tail: Slice<UnsafeRawBufferPointer>, _ stream: Int) {
    pending.append(contentsOf: #"{"log":""#.utf8)
    if partial[stream - 1].isEmpty {
      JSONText.escape(tail, into: &pending)
    } else {
      partial[stream - 1].append(contentsOf: tail)
      JSONText.escape(partial[stream - 1], into: &pending)
      partial[stream - 1] = []
    }
    pending.append(contentsOf: (stream == 1 ? #"","stream":"stdout","time":""# : #"","stream":"stderr","time":""#).utf8)
    appendTime()
    pending.append(contentsOf: "\"}\n".utf8)
    if pending.count > 32 << 10 { flush() }
  }

  private func flush() {
    guard !pending.isEmpty else { return }
    if file >= 0 {
      if maximumSize > 0 && size >= maximumSize { rotate() }
      var offset = 0
      while offset < pending.count {
        let count = pending.withUnsafeBytes { write(file, $0.baseAddress?.advanced(by: offset), $0.count - offset) }
        if count < 0 {
          if errno == EINTR { continue }
          // A full disk must not stop the container: the entry is lost, and the next one is tried again.
          problem = "the log \(path) cannot be written: \(reason(errno))"
          break
        }
        offset += count
      }
      size += UInt64(offset)
    }
    if pending.capacity > 8 << 10 { pending = [] } else { pending.removeAll(keepingCapacity: true) }
  }

  /// `x.log` becomes `x.log.1` and so on; the oldest is dropped.
  private func rotate() {
    if maximumFiles == 1 {
      if ftruncate(file, 0) == 0 { size = 0 }
      return
    }
    var number = maximumFiles - 1
    while number > 1 {
      rename("\(path).\(number - 1)", "\(path).\(number)")
      number -= 1
    }
    rename(path, "\(path).1")
    open()
  }

  /// RFC 3339 with nine digits of fraction, trailing zeros cut as Go's RFC3339Nano does.
  private func appendTime() {
    let now = wallClock()
    let second = now / 1_000_000_000
    if second != lastSecond {
      lastSecond = second
      var clock = time_t(second)
      var parts = tm()
      gmtime_r(&clock, &parts)
      date = []
      func put(_ value: Int32, _ width: Int, _ separator: String) {
        let digits = String(value)
        date.append(contentsOf: [UInt8](repeating: 48, count: max(0, width - digits.utf8.count)))
        date.append(contentsOf: digits.utf8)
        date.append(contentsOf: separator.utf8)
      }
      put(parts.tm_year + 1900, 4, "-")
      put(parts.tm_mon + 1, 2, "-")
      put(parts.tm_mday, 2, "T")
      put(parts.tm_hour, 2, ":")
      put(parts.tm_min, 2, ":")
      put(parts.tm_sec, 2, "")
    }
    pending.append(contentsOf: date)
    var fraction = now % 1_000_000_000
    if fraction != 0 {
      pending.append(46)
      var scale: Int64 = 100_000_000
      while fraction > 0 {
        pending.append(48 + UInt8(fraction / scale))
        fraction %= scale
        scale /= 10
      }
    }
    pending.append(90)
  }
}

/// Text inside a JSON string.
enum JSONText {
  private static let digits = Array("0123456789abcdef".utf8)

  /// Escapes as Docker's encoder does; bytes that are not UTF-8 become U+FFFD.
  static func escape(_ bytes: some Collection<UInt8>, into result: inout [UInt8]) {
    let isPlain = bytes.allSatisfy { $0 < 128 }
    if isPlain {
      for byte in bytes { append(byte, &result) }
    } else {
      for byte in String(decoding: bytes, as: UTF8.self).utf8 { append(byte, &result) }
    }
  }

  private static func append(_ byte: UInt8, _ result: inout [UInt8]) {
    switch byte {
    case 34, 92: result.append(contentsOf: [92, byte])
    case 10: result.append(contentsOf: [92, 110])
    case 13: result.append(contentsOf: [92, 114])
    case 9: result.append(contentsOf: [92, 116])
    case 0..<32, 60, 62, 38, 127:
      // `<`, `>` and `&` too, as Go's encoder has it.
      result.append(contentsOf: [92, 117, 48, 48, digits[Int(byte >> 4)], digits[Int(byte & 15)]])
    default: result.append(byte)
    }
  }
}
