/// Every command there is.
enum CommandTable {
  /// The lists of commands, each made when it is looked at: who runs a command needs one of them.
  private static let lists: [@Sendable () -> [Command]] = [
    { RunCommands.all }, { ContainerCommands.all }, { LifecycleCommands.all }, { StatisticsCommand.all },
    { EventsCommand.all }, { PruneCommands.all }, { ListCommands.all }, { InspectCommands.all },
    { ImageCommands.all }, { TransferCommands.all }, { RegistryCommands.all }, { VolumeCommands.all },
    { NetworkCommands.all }, { SystemCommands.all }, { ConfigCommands.all }, { PluginCommands.all },
    { BusCommands.all }, { BenchCommand.all },
  ]

  static let commands: [Command] = lists.flatMap { $0() }

  private static func command(spelled spelling: String) -> Command? {
    for list in lists {
      for command in list() where command.spellings.contains(spelling) { return command }
    }
    return nil
  }

  static let groups: [CommandGroup] = [
    CommandGroup(name: "bus", summary: "Watch the engine's messages"),
    CommandGroup(name: "config", summary: "Show and check configurations"),
    CommandGroup(name: "container", summary: "Manage containers"),
    CommandGroup(name: "image", summary: "Manage images"),
    CommandGroup(name: "network", summary: "Manage networks"),
    CommandGroup(name: "plugin", summary: "Manage plugins"),
    CommandGroup(name: "system", summary: "Manage the engine"),
    CommandGroup(name: "volume", summary: "Manage volumes"),
  ]

  /// Docker's commands that this engine is to have and has not yet.
  static let later: Set<String> = [
    "build", "commit", "connect", "cp", "df", "disconnect",
  ]

  enum Found {
    case command(Command, spelling: String, arguments: [String])
    case group(CommandGroup)
  }

  /// - Parameter words: the command and what follows it; not empty.
  /// - Throws: `Failure` for a command that is not there, with the nearest that is.
  static func find(_ words: [String]) throws -> Found {
    if let group = groups.first(where: { $0.name == words[0] }) {
      guard words.count > 1, words[1] != "--help", words[1] != "-h" else { return .group(group) }
      let spelling = "\(words[0]) \(words[1])"
      guard let command = command(spelled: spelling) else {
        throw unknown(words[1], in: group)
      }
      return .command(command, spelling: spelling, arguments: Array(words.dropFirst(2)))
    }
    guard let command = command(spelled: words[0]) else {
      throw unknown(words[0], in: nil)
    }
    return .command(command, spelling: words[0], arguments: Array(words.dropFirst()))
  }

  private static func unknown(_ word: String, in group: CommandGroup?) -> Failure {
    let whole = group.map { "\($0.name) \(word)" } ?? word
    let help = group.map { "engine \($0.name) --help" } ?? "engine --help"
    if later.contains(word) {
      return Failure("engine: '\(whole)' is not available yet.\n\nSee '\(help)'")
    }
    let spellings = commands.flatMap(\.spellings)
    let candidates: [String]
    if let group {
      candidates = spellings.filter { $0.hasPrefix("\(group.name) ") }.map {
        String($0.dropFirst(group.name.count + 1))
      }
    } else {
      candidates = spellings.filter { !$0.contains(" ") } + groups.map(\.name)
    }
    let hint = Suggestion.nearest(to: word, among: candidates).map { nearest in
      "\n\nDid you mean 'engine \(group.map { "\($0.name) " } ?? "")\(nearest)'?"
    }
    return Failure("engine: '\(whole)' is not an engine command.\(hint ?? "")\n\nSee '\(help)'")
  }
}
