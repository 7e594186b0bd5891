import Contracts
import Glibc

/// `bench`: this program becomes the one that links the drivers which are measured, and so stays small itself.
enum BenchCommand {
  static let all: [Command] = [
    Command(
      "bench", usage: "[OPTIONS]",
      summary: "Measure every step of the engine on this machine beside the raw system calls", arguments: .exactly(0),
      flags: {
        [
          .string("compare", nil, "Results of a former --json to compare with", type: "file"),
          .string("html", nil, "Write a page with charts", type: "file"),
          .string(
            "json", nil, "Write the results as JSON; \"-\" for the standard output, instead of the table", type: "file"),
          .boolean("list", nil, "Print the names of the steps, and measure nothing"),
          .list("only", nil, "Steps whose name has this part or matches this pattern, or a group of them"),
          .integer("pause", nil, "Milliseconds of rest before each measurement of the second half (default 30)"),
          .integer(
            "runs", nil, "Runs of every step (default 100, and after pauses as many as fit into a minute in all)"),
        ]
      }, run: run)
  ]

  private static func run(_ invocation: borrowing Invocation) throws -> Int32 {
    let executable = try DaemonStarter.sibling("engine-bench")
    guard access(executable, X_OK) == 0 else {
      throw Failure("engine: there is no \(executable), which is what measures; 'make install' puts it there")
    }
    return try ConfigCommands.become(executable, words(invocation.options))
  }

  /// The options as the other program takes them.
  static func words(_ options: Options) -> [String] {
    var words: [String] = []
    for name in ["compare", "html", "json", "pause", "runs"] {
      if let value = options.string(name) { words.append("--\(name)=\(value)") }
    }
    words += options.list("only").map { "--only=\($0)" }
    if options.boolean("list") { words.append("--list") }
    return words
  }
}
