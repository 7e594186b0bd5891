import Contracts
import Glibc

/// The name of an archive's entry, taken apart: components joined by single slashes, as bytes of any encoding.
struct EntryPath: CustomStringConvertible {
  /// The whole path without a leading or final slash, NUL-terminated; only the NUL for the root itself.
  private(set) var bytes: [CChar] = []
  /// Where the last component begins.
  private(set) var lastStart = 0

  var description: String { String(decoding: bytes.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self) }
  var isRoot: Bool { bytes.count == 1 }
  /// The path of the directory that holds it, without a NUL; empty for the root.
  var parent: ArraySlice<CChar> { bytes[..<max(0, lastStart - 1)] }
  /// The last component, NUL-terminated.
  var last: ArraySlice<CChar> { bytes[lastStart...] }

  /// Absolute names begin at the root of the layer, and `..` takes a component away, as Docker reads them; nothing
  /// rises above the root.
  ///
  /// - Throws: `invalidArgument` that names the entry, for a relative name that leads out of the layer.
  init(_ name: UnsafePointer<CChar>, of entry: UnsafePointer<CChar>, what: String) throws(EngineError) {
    let slash = CChar(bitPattern: UInt8(ascii: "/"))
    let dot = CChar(bitPattern: UInt8(ascii: "."))
    let isAbsolute = name[0] == slash
    var cursor = name
    bytes.reserveCapacity(strlen(name) + 1)
    while true {
      while cursor.pointee == slash { cursor += 1 }
      if cursor.pointee == 0 { break }
      let start = cursor
      while cursor.pointee != 0 && cursor.pointee != slash { cursor += 1 }
      let length = cursor - start
      if length == 1 && start[0] == dot { continue }
      if length == 2 && start[0] == dot && start[1] == dot {
        if bytes.isEmpty && !isAbsolute { throw Self.refusal(entry, "\(what) leads out of the layer") }
        bytes.removeLast(bytes.count - max(0, lastStart - 1))
        lastStart = bytes.lastIndex(of: slash).map { $0 + 1 } ?? 0
        continue
      }
      if !bytes.isEmpty { bytes.append(slash) }
      lastStart = bytes.count
      bytes.append(contentsOf: UnsafeBufferPointer(start: start, count: length))
    }
    bytes.append(0)
  }

  /// The one error for a hostile entry.
  static func refusal(_ entry: UnsafePointer<CChar>, _ why: String) -> EngineError {
    EngineError(.invalidArgument, "the archive is refused: entry \"\(String(cString: entry))\": \(why)")
  }
}
