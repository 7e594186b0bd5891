import Contracts
import Glibc
import LinuxSystem
import Logging

/// What a driver writes to its standard output and error: into the engine's log, but not more than a log can bear.
struct DriverErrors {
  /// Lines a second that are logged; the others are counted.
  private static let linesPerSecond = 20
  private static let longestLine = 500

  private let log: Logger
  private var pipe: Descriptor?
  private var partial: [UInt8] = []
  private var second: Int = 0
  private var logged = 0
  private var dropped = 0
  private(set) var lastLine: String?

  init(log: Logger) { self.log = log }

  var descriptor: Int32 { pipe?.number ?? -1 }

  mutating func adopt(_ pipe: Descriptor) { self.pipe = pipe }

  /// Takes what is there now, at most 64 KiB, so that a flood does not keep the thread from the messages.
  mutating func drain() {
    guard let number = pipe?.number else { return }
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    for _ in 0..<4 {
      let count = read(number, &buffer, buffer.count)
      if count == 0 { pipe = nil }
      if count <= 0 { break }
      for byte in buffer[..<count] {
        if byte == 10 {
          line()
        } else if partial.count < Self.longestLine {
          partial.append(byte)
        }
      }
    }
    if pipe == nil, !partial.isEmpty { line() }
  }

  private mutating func line() {
    let text = String(decoding: partial, as: UTF8.self)
    partial.removeAll(keepingCapacity: true)
    if text.isEmpty { return }
    lastLine = text
    let now = Int(MonotonicClock.now / 1_000_000_000)
    if now != second {
      if dropped > 0 { log.warning("\(dropped) more lines were dropped") }
      (second, logged, dropped) = (now, 0, 0)
    }
    guard logged < Self.linesPerSecond else {
      dropped += 1
      return
    }
    logged += 1
    log.notice("\(text)")
  }
}
