/// Finding text in text. The standard library's own are part of its regular expressions, which would be linked in whole.
extension StringProtocol {
  /// Where `text` is found first, or nil; an empty one is found at the start.
  func firstOccurrence(of text: some StringProtocol) -> Range<Index>? {
    var start = startIndex
    while true {
      let rest = self[start...]
      if rest.starts(with: text) { return start..<index(start, offsetBy: text.count) }
      guard start < endIndex else { return nil }
      formIndex(after: &start)
    }
  }

  func holds(_ text: some StringProtocol) -> Bool { firstOccurrence(of: text) != nil }
}
