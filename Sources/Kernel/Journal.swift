import Contracts
import Glibc
import LinuxSystem
import Synchronization

/// Something that this engine has on the host, or is about to have, or has not quite removed.
public struct JournalEntry: Sendable, Equatable {
  public let number: UInt64
  /// The plugin that owns it.
  public let plugin: String
  /// The plugin's own word for the kind of thing: `link`, `cgroup`, ...
  public let kind: String
  /// What identifies it on the host: a link's name, a path.
  public let object: String
  /// The container it is for, or empty.
  public let container: String
}

/// The ledger of host changes: an entry is written before something is made on the host and ended after it is gone, so
/// that after a crash the open entries are exactly what may be there.
///
/// One line of tab-separated fields an entry, appended with one write(2) to a file in the runtime directory. That
/// survives the death of the engine; a reboot clears the file together with what it lists. A last line that was cut
/// short is the write that the crash interrupted: nothing had been made yet for it, so it is dropped.
public final class Journal: Sendable {
  private struct State: ~Copyable {
    var open: [UInt64: JournalEntry] = [:]
    var file: OwnedDescriptor
    /// Lines in the file, ended entries included.
    var lines = 0
    /// Bytes in the file.
    var size: Int
  }

  private let state: Mutex<State>
  /// The next entry's number.
  private let next: Atomic<UInt64>
  private let path: String
  /// The file is rewritten when it has this many lines and most of them are ended.
  private let compactionThreshold: Int

  /// Opens the journal and reads what a former engine left open.
  ///
  /// - Throws: `corrupt` with the path and line of a line that does not read.
  public init(path: String, compactionThreshold: Int = 4096) throws(EngineError) {
    self.path = path
    self.compactionThreshold = compactionThreshold
    do {
      let text = Files.exists(path) ? try Files.readText(path, limit: 1 << 30) : ""
      var (open, next, lines) = try Self.parse(text, path: path)
      if lines > 0 || !text.isEmpty { lines = open.count }
      try Self.rewrite(path, open)
      let file = try Files.open(path, O_WRONLY | O_APPEND)
      let size = Self.size(of: file.number)
      state = Mutex(State(open: open, file: file, lines: lines, size: size))
      self.next = Atomic(next)
    } catch let error as SystemCallError {
      throw EngineError(.internalFailure, "the journal cannot be opened: \(error)")
    } catch {
      throw EngineError(wrapping: error)
    }
  }

  /// Records that the objects are about to be made. The write has happened when this returns.
  @discardableResult
  public func begin(
    plugin: String, container: String = "", _ objects: [(kind: String, object: String)]
  ) throws(EngineError) -> [UInt64] {
    let first = next.add(UInt64(objects.count), ordering: .relaxed).oldValue
    let begun = objects.enumerated().map { index, object in
      JournalEntry(
        number: first + UInt64(index), plugin: plugin, kind: object.kind, object: object.object, container: container)
    }
    try append(begun.map(Self.line).joined(), begun: begun)
    return begun.map(\.number)
  }

  /// Records that the objects are gone from the host.
  public func end(_ numbers: [UInt64]) throws(EngineError) {
    if numbers.isEmpty { return }
    try append(numbers.map { "-\t\($0)\n" }.joined(), ended: numbers)
  }

  /// The open entries of a plugin in the order they were begun.
  public func entries(plugin: String, kind: String? = nil, container: String? = nil) -> [JournalEntry] {
    state.withLock { state in
      state.open.values
        .filter {
          $0.plugin == plugin && (kind == nil || $0.kind == kind) && (container == nil || $0.container == container)
        }
        .sorted { $0.number < $1.number }
    }
  }

  /// Writes lines that were made before, because nobody else can write meanwhile. Entries that were ended already are
  /// ended again: that says nothing new.
  private func append(
    _ text: String, begun: [JournalEntry] = [], ended: [UInt64] = []
  ) throws(EngineError) {
    let bytes = Array(text.utf8)
    if bytes.isEmpty { return }
    do {
      try state.withLock { state throws(SystemCallError) in
        if begun.isEmpty, !ended.contains(where: { state.open[$0] != nil }) { return }
        do throws(SystemCallError) {
          try Files.writeAll(state.file.number, bytes, subject: path)
        } catch {
          // Half a line would make the next one unreadable.
          _ = ftruncate(state.file.number, off_t(state.size))
          throw error
        }
        state.size += bytes.count
        state.lines += begun.count + ended.count
        for entry in begun { state.open[entry.number] = entry }
        for number in ended { state.open[number] = nil }
        // Where there is no room for a shorter file, the long one goes on.
        if state.lines > compactionThreshold && state.lines > state.open.count * 4,
          (try? Self.rewrite(path, state.open)) != nil
        {
          state.file = try Files.open(path, O_WRONLY | O_APPEND)
          state.lines = state.open.count
          state.size = Self.size(of: state.file.number)
        }
      }
    } catch {
      throw EngineError(.internalFailure, "the journal cannot be written, so nothing was changed: \(error)")
    }
  }

  private static func size(of file: Int32) -> Int { max(0, Int(lseek(file, 0, SEEK_END))) }

  private static func line(_ entry: JournalEntry) -> String {
    "+\t\(entry.number)\t\(entry.plugin)\t\(entry.kind)\t\(escape(entry.object))\t\(entry.container)\n"
  }

  private static func rewrite(_ path: String, _ open: [UInt64: JournalEntry]) throws(SystemCallError) {
    let text = open.values.sorted { $0.number < $1.number }.map(line).joined()
    try Files.replace(path, with: Array(text.utf8), durable: false)
  }

  private static func parse(
    _ text: String, path: String
  ) throws(EngineError) -> (open: [UInt64: JournalEntry], next: UInt64, lines: Int) {
    var open: [UInt64: JournalEntry] = [:]
    var next: UInt64 = 1
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    lines.removeLast()
    for (index, line) in lines.enumerated() {
      let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
      guard fields.count >= 2, let number = UInt64(fields[1]) else { throw corrupt(path, index) }
      switch (fields[0], fields.count) {
      case ("+", 6):
        open[number] = JournalEntry(
          number: number, plugin: String(fields[2]), kind: String(fields[3]), object: unescape(fields[4]),
          container: String(fields[5]))
        next = max(next, number + 1)
      case ("-", 2):
        open[number] = nil
      default:
        throw corrupt(path, index)
      }
    }
    return (open, next, lines.count)
  }

  private static func corrupt(_ path: String, _ index: Int) -> EngineError {
    EngineError(.corrupt, "the journal \(path) does not read at line \(index + 1)")
  }

  private static func escape(_ text: String) -> String {
    guard text.utf8.contains(where: { $0 == 9 || $0 == 10 || $0 == 92 }) else { return text }
    return text.reduce(into: "") { result, character in
      switch character {
      case "\t": result += "\\t"
      case "\n": result += "\\n"
      case "\\": result += "\\\\"
      default: result.append(character)
      }
    }
  }

  private static func unescape(_ text: Substring) -> String {
    guard text.contains("\\") else { return String(text) }
    var result = ""
    var escaped = false
    for character in text {
      if escaped {
        result.append(character == "t" ? "\t" : character == "n" ? "\n" : character)
        escaped = false
      } else if character == "\\" {
        escaped = true
      } else {
        result.append(character)
      }
    }
    return result
  }
}
