import Contracts

/// A sequence of keys that lets go of a container: `ctrl-p,ctrl-q`, `a,b`, or empty for none.
enum DetachKeys {
  static let standard = "ctrl-p,ctrl-q"

  static func check(_ text: String) throws(EngineError) {
    if text.isEmpty { return }
    for key in text.split(separator: ",", omittingEmptySubsequences: false) {
      if key.utf8.count == 1 { continue }
      let letter = key.dropFirst(5)
      guard key.hasPrefix("ctrl-"), letter.utf8.count == 1, let byte = letter.utf8.first,
        (0x61...0x7A).contains(byte) || "@[\\]^_".utf8.contains(byte)
      else {
        throw EngineError(.invalidArgument, "invalid detach keys (\(text)): Unknown character: '\(key)'")
      }
    }
  }
}
