/// The benchmarks' command line.
struct Options {
  struct Problem: Error, CustomStringConvertible {
    let description: String
  }

  /// What there is to measure, and which part of the time it gets.
  static let sections: [(name: String, share: Double)] = [
    ("messages", 4), ("commands", 29), ("throughput", 18), ("scaling", 26), ("images", 6), ("logs", 5),
    ("network", 12),
  ]
  static let peers = ["docker", "podman", "crun", "runc", "bubblewrap"]
  static let usage = """
    usage: engine-benchmarks [--runs=N] [--minutes=N] [--only=FIGURE,... [--merge]] [--peers=PEER,...]
                             [--micro=PROGRAM] [--output=FILE] DIRECTORY-OF-THE-BINARIES
           engine-benchmarks --readme[=FILE] [--output=FILE]
           engine-benchmarks --page [--output=FILE]

    FIGURE is one of \(sections.map(\.name).joined(separator: ", ")); PEER one of \(peers.joined(separator: ", ")).
    What is chosen goes into \(partialResults), or with --merge in the place of the same figures into the results.
    --readme puts the table of the results into the README, --page writes their page anew.
    """

  static let allResults = "Benchmarks/results/end-to-end.json"
  static let partialResults = "Benchmarks/results/partial.json"

  enum Action: Equatable {
    case measure
    /// Puts the table into this file.
    case readme(String)
    case page
  }

  var action = Action.measure
  /// Where engine, engined and engine-shim are.
  var binaries = ""
  /// Runs of each command in each mode.
  var runs = 15
  /// About how long everything may take; what there is no time for is left off, and said.
  var minutes = 12.0
  /// Microseconds between two runs in the mode with pauses.
  var pause: UInt32 = 50_000
  /// The results; a page with charts is written beside them.
  var output = Self.allResults
  /// What is not measured stays as it is in the results.
  var merges = false
  /// The micro benchmarks, which are a package of their own.
  var micro = ".build/micro/release/engine-micro-benchmarks"
  var only = Set(Self.sections.map(\.name))
  var peers = Set(Self.peers)

  init(_ arguments: [String]) throws {
    var positional: [String] = []
    var output: String?
    for argument in arguments {
      let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
      switch (parts[0], parts.count == 2 ? parts[1] : "") {
      case ("--runs", let value):
        guard let runs = Int(value), runs > 0 else {
          throw Problem(description: "--runs wants a number, not \"\(value)\"")
        }
        self.runs = runs
      case ("--minutes", let value):
        guard let minutes = Double(value), minutes > 0 else {
          throw Problem(description: "--minutes wants a number, not \"\(value)\"")
        }
        self.minutes = minutes
      case ("--output", let value): output = value
      case ("--merge", ""): merges = true
      case ("--micro", let value): micro = value
      case ("--only", let value): only = try Self.choice("--only", value, of: Self.sections.map(\.name))
      case ("--peers", let value): peers = try Self.choice("--peers", value, of: Self.peers)
      case ("--readme", let value): action = .readme(value.isEmpty ? "README.md" : value)
      case ("--page", ""): action = .page
      case (let name, _) where name.hasPrefix("-"):
        throw Problem(description: "unknown flag \(name)\n\(Self.usage)")
      default: positional.append(argument)
      }
    }
    let isPartial = only.count < Self.sections.count || peers.count < Self.peers.count
    self.output = output ?? (isPartial && !merges ? Self.partialResults : Self.allResults)
    if action != .measure { return }
    guard positional.count == 1 else { throw Problem(description: Self.usage) }
    binaries = positional[0]
  }

  private static func choice(_ flag: String, _ value: String, of names: [String]) throws -> Set<String> {
    let chosen = Set(value.split(separator: ",").map(String.init))
    if let unknown = chosen.subtracting(names).sorted().first {
      throw Problem(description: "\(flag) wants some of \(names.joined(separator: ",")), not \"\(unknown)\"")
    }
    return chosen
  }
}
