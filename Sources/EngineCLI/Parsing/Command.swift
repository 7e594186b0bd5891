/// One command, as the table says it.
struct Command: Sendable {
  /// Every spelling, the one that the help shows first: `ps`, `container ls`, `container list`, `container ps`.
  let spellings: [String]
  /// What follows the spelling in the usage line.
  let usage: String
  let summary: String
  let arguments: ClosedRange<Int>
  let isInterspersed: Bool
  let flags: @Sendable () -> [Flag]
  let run: @Sendable (borrowing Invocation) throws -> Int32

  init(
    _ spellings: String..., usage: String, summary: String, arguments: ClosedRange<Int>,
    isInterspersed: Bool = true, flags: @escaping @Sendable () -> [Flag] = { [] },
    run: @escaping @Sendable (borrowing Invocation) throws -> Int32
  ) {
    self.spellings = spellings
    self.usage = usage
    self.summary = summary
    self.arguments = arguments
    self.isInterspersed = isInterspersed
    self.flags = flags
    self.run = run
  }

  /// Why that many arguments do not do, in Docker's words, or nil.
  func complaint(about count: Int, spelling: String) -> String? {
    if arguments.contains(count) { return nil }
    let (low, high) = (arguments.lowerBound, arguments.upperBound)
    func plural(_ number: Int) -> String { "\(number) argument\(number == 1 ? "" : "s")" }
    let wants =
      high == 0
      ? "accepts no arguments"
      : low == high
        ? "requires \(plural(low))"
        : count < low ? "requires at least \(plural(low))" : "requires at most \(plural(high))"
    return "engine: 'engine \(spelling)' \(wants)"
  }
}

/// A word that gathers commands: `engine volume ls`.
struct CommandGroup: Sendable {
  let name: String
  let summary: String
}

extension ClosedRange<Int> {
  static func atLeast(_ count: Int) -> ClosedRange<Int> { count...Int.max }
  static func exactly(_ count: Int) -> ClosedRange<Int> { count...count }
}

/// A command line that was read.
struct Invocation: Sendable {
  let command: Command
  /// How the user spelled the command.
  let spelling: String
  let options: Options
  let arguments: [String]
  let global: GlobalOptions
}

/// What stands before the command.
struct GlobalOptions: Sendable, Equatable {
  /// The instance's root as the user wrote it; empty for the default.
  var root = ""
  /// Another socket than the instance's own.
  var socket: String?
  var isDebugging = false
}

/// An end of the program with a message that is printed as it is.
struct Failure: Error, Equatable {
  var message: String
  var status: Int32

  init(_ message: String, status: Int32 = 1) {
    self.message = message
    self.status = status
  }
}
