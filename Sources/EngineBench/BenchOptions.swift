import Contracts
import Glibc

/// The command line, which `engine bench` has checked as far as its table goes.
package struct BenchOptions: Equatable {
  /// Runs of each side of each figure in each mode.
  package var runs = 100
  /// False when the user said how many runs: then they are all made, however long they take.
  package var isBounded = true
  /// Milliseconds without any work before a measurement in the second mode.
  package var pause = 30
  /// Parts of names, or patterns with `*`; empty for everything.
  package var only: [String] = []
  /// `-` is the standard output, in place of the table.
  package var json: String?
  package var compare: String?
  package var html: String?
  package var listsOnly = false

  /// - Throws: `invalidArgument` that names the flag.
  package init(_ arguments: [String]) throws(EngineError) {
    for argument in arguments {
      let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let value = parts.count == 2 ? parts[1] : ""
      func number(_ range: ClosedRange<Int>) throws(EngineError) -> Int {
        guard let number = Int(value), range.contains(number) else {
          throw EngineError(
            .invalidArgument,
            "\(parts[0]) takes a number from \(range.lowerBound) to \(range.upperBound), not \"\(value)\"")
        }
        return number
      }
      switch parts[0] {
      case "--runs":
        runs = try number(1...1_000_000)
        isBounded = false
      case "--pause": pause = try number(1...60_000)
      case "--only": only += value.split(separator: ",").map(String.init)
      case "--json": json = value
      case "--compare": compare = value
      case "--html": html = value
      case "--list": listsOnly = true
      default: throw EngineError(.invalidArgument, "unknown argument \"\(argument)\"")
      }
    }
  }

  /// Whether a figure is wanted: one of the patterns is its group, or else a part of its name, or matches it whole
  /// (fnmatch(3)).
  package func selects(_ name: String, group: String) -> Bool {
    if only.isEmpty { return true }
    return only.contains { pattern in
      if pattern.contains(where: { $0 == "*" || $0 == "?" || $0 == "[" }) {
        return fnmatch(pattern, name, 0) == 0 || fnmatch(pattern, group, 0) == 0
      }
      return group == pattern || !Catalogue.groups.contains { $0.name == pattern } && name.contains(pattern)
    }
  }
}
