import Contracts

/// One of the two things that are measured in turn.
enum Side: String, CaseIterable {
  /// The engine's own code.
  case engine
  /// The same system calls with nothing around them.
  case raw
}

/// One figure of the report: what is measured, before it is.
struct FigureName {
  var name: String
  /// What the raw side does.
  var floor: String
  var curve = ""
  var position = 0
}

/// Something that is done once on one side, with a time for each of its steps; it leaves everything as it was before.
struct Probe {
  /// What of the kernel it keeps busy. After a pause, one probe of each lane is measured: as a start does one step of
  /// each kind, while nothing else of its kind has happened for a while.
  enum Lane: Int, CaseIterable {
    case processes
    case links
    case ports
    case cgroups
    case mounts
    /// Too large to share its pause with another one.
    case containers
  }

  var lane: Lane
  var figures: [FigureName]
  /// Nanoseconds, one for each figure.
  var measure: (Side) async throws -> [Int64]

  init(_ lane: Lane, _ figures: [FigureName], measure: @escaping (Side) async throws -> [Int64]) {
    self.lane = lane
    self.figures = figures
    self.measure = measure
  }

  init(_ lane: Lane, _ figure: FigureName, measure: @escaping (Side) async throws -> Int64) {
    self.init(lane, [figure]) { [try await measure($0)] }
  }
}
