/// Words that can stand at the end of a command line, for the shell (`engine __complete WORDS...`).
enum Completions {
  static func run(_ words: [String]) -> Int32 {
    Console.out(candidates(words).map { $0 + "\n" }.joined())
    return 0
  }

  /// - Parameter words: the command line after the program's name; the last one is being typed.
  static func candidates(_ words: [String]) -> [String] {
    guard let typed = words.last else { return [] }
    let before = words.dropLast()
    if before.isEmpty {
      let names = CommandTable.commands.flatMap(\.spellings).filter { !$0.contains(" ") }
      return (names + CommandTable.groups.map(\.name)).filter { $0.hasPrefix(typed) }.sorted()
    }
    guard case .command(let command, _, _)? = try? CommandTable.find(Array(before)) else {
      let group = "\(before[0]) "
      return CommandTable.commands.compactMap { $0.spellings.first { $0.hasPrefix(group) } }
        .map { String($0.dropFirst(group.count)) }.filter { $0.hasPrefix(typed) }.sorted()
    }
    guard typed.hasPrefix("-") else { return [] }
    return command.flags().filter { !$0.isHidden }.map { "--\($0.name)" }.filter { $0.hasPrefix(typed) }.sorted()
  }
}
