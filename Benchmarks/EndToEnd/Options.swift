/// The benchmarks' command line.
struct Options {
  struct Problem: Error, CustomStringConvertible {
    let description: String
  }

  static let sections = ["commands", "throughput", "scaling", "messages"]

  /// Where engine, engined and engine-shim are.
  var binaries: String
  /// Runs of each command in each mode.
  var runs = 60
  /// Microseconds between two runs in the mode with pauses.
  var pause: UInt32 = 50_000
  /// The results; a page with charts is written beside them.
  var output = "Benchmarks/results/end-to-end.json"
  var only = Set(Self.sections)

  init(_ arguments: [String]) throws {
    var positional: [String] = []
    for argument in arguments {
      let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
      switch (parts[0], parts.count == 2 ? parts[1] : "") {
      case ("--runs", let value):
        guard let runs = Int(value), runs > 0 else {
          throw Problem(description: "--runs wants a number, not \"\(value)\"")
        }
        self.runs = runs
      case ("--output", let value): output = value
      case ("--only", let value):
        only = Set(value.split(separator: ",").map(String.init))
        guard only.isSubset(of: Self.sections) else {
          throw Problem(description: "--only wants some of \(Self.sections.joined(separator: ",")), not \"\(value)\"")
        }
      case (let name, _) where name.hasPrefix("-"): throw Problem(description: "unknown flag \(name)")
      default: positional.append(argument)
      }
    }
    guard positional.count == 1 else {
      throw Problem(
        description:
          "usage: engine-benchmarks [--runs=N] [--only=SECTION,...] [--output=FILE] DIRECTORY-OF-THE-BINARIES")
    }
    binaries = positional[0]
  }
}
