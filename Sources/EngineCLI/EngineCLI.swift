import Contracts
import Glibc
import LinuxSystem

/// The command line: finds the command, reads its flags, runs it, and says in one line what went wrong.
public enum EngineCLI {
  public static let version = "0.1.0"

  /// When this program began, nanoseconds of CLOCK_MONOTONIC.
  static let began = MonotonicClock.now

  /// - Parameter words: the arguments without the program's name.
  /// - Returns: the exit status.
  public static func main(_ words: [String]) -> Int32 {
    _ = began
    do {
      return try dispatch(words)
    } catch let failure as Failure {
      if !failure.message.isEmpty { Console.error(failure.message) }
      return failure.status
    } catch {
      Console.error(Reports.line(EngineError(wrapping: error)))
      return 1
    }
  }

  static let globalFlags: [Flag] = [
    .string("root", nil, "Directory of the instance (default \"/var/lib/engine\", or $ENGINE_ROOT)"),
    .list("host", "H", "Socket of the engine to connect to"),
    .string("config", nil, "Configuration file of the instance (default \"<root>/engine.toml\", or $ENGINE_CONFIG)"),
    .boolean("debug", "D", "Enable debug mode"),
    .string("log-level", "l", "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")"),
    .boolean("version", "v", "Print version information and quit"),
  ]

  private static func dispatch(_ words: [String]) throws -> Int32 {
    if words == ["--version"] || words == ["-v"] { return printVersion() }
    let options: Options
    let rest: [String]
    do {
      (options, rest) = try Parser(flags: globalFlags, isInterspersed: false).parse(words)
    } catch .help {
      return overview()
    } catch .invalid(let why) {
      throw Failure(
        "\(why)\n\nUsage:  engine [OPTIONS] COMMAND [ARG...]\n\nRun 'engine --help' for more information", status: 125)
    }
    if options.boolean("version") { return printVersion() }
    guard let first = rest.first else { return overview() }
    if first == "help" { return try help(Array(rest.dropFirst())) }
    if first == "__complete" { return Completions.run(Array(rest.dropFirst())) }
    switch try CommandTable.find(rest) {
    case .command(let command, let spelling, let arguments):
      return try run(command, spelling, arguments, try global(options))
    case .group(let group):
      Console.out(Help.text(for: group, commands: CommandTable.commands))
      return 0
    }
  }

  private static func run(
    _ command: Command, _ spelling: String, _ words: [String], _ global: GlobalOptions
  ) throws -> Int32 {
    var usage: String { Help.usageLine(command, spelling: spelling) }
    do {
      let (options, arguments) = try Parser(flags: command.flags(), isInterspersed: command.isInterspersed).parse(words)
      if let complaint = command.complaint(about: arguments.count, spelling: spelling) {
        throw Failure(
          "\(complaint)\n\n\(usage)\n\nSee 'engine \(spelling) --help' for more information",
          status: command.spellings[0] == "run" ? 125 : 1)
      }
      return try command.run(
        Invocation(command: command, spelling: spelling, options: options, arguments: arguments, global: global))
    } catch ParseError.help {
      Console.out(Help.text(for: command, spelling: spelling, width: Console.width))
      return 0
    } catch ParseError.invalid(let why) {
      throw Failure("\(why)\n\n\(usage)\n\nRun 'engine \(spelling) --help' for more information", status: 125)
    }
  }

  private static func global(_ options: Options) throws -> GlobalOptions {
    var global = GlobalOptions()
    global.root = options.string("root") ?? ""
    global.isDebugging = options.boolean("debug")
    if let host = options.list("host").last ?? Environment.value("ENGINE_HOST"), !host.isEmpty {
      guard host.hasPrefix("unix://") || host.hasPrefix("/") else {
        throw Failure("unable to parse engine host \"\(host)\": only unix:///path is supported", status: 125)
      }
      global.socket = host.hasPrefix("/") ? host : String(host.dropFirst(7))
    }
    if let file = options.string("config") { try ConfigCommands.select(file, global) }
    return global
  }

  private static func printVersion() -> Int32 {
    Console.out("Engine version \(version)\n")
    return 0
  }

  private static func overview() -> Int32 {
    Console.out(
      Help.overview(
        commands: CommandTable.commands, groups: CommandTable.groups, globals: globalFlags, width: Console.width))
    return 0
  }

  private static func help(_ words: [String]) throws -> Int32 {
    guard !words.isEmpty else { return overview() }
    return try dispatch(words + ["--help"])
  }
}

/// What went wrong, as commands other than `run` report it.
enum Reports {
  /// What the engine itself answered, also where it is that something else is not available.
  static func answered(_ error: EngineError) -> any Error {
    error.code == .unavailable ? Failure("Error response from engine: \(error)") : error
  }

  static func line(_ error: EngineError) -> String {
    switch error.code {
    case .unavailable, .versionMismatch: error.description
    default: "Error response from engine: \(error)"
    }
  }
}
