/// The help, in Docker's layout, from the table of commands.
enum Help {
  /// `Usage:  engine run [OPTIONS] IMAGE [COMMAND] [ARG...]`.
  static func usageLine(_ command: Command, spelling: String) -> String {
    "Usage:  engine \(spelling)\(command.usage.isEmpty ? "" : " \(command.usage)")"
  }

  static func text(for command: Command, spelling: String, width: Int) -> String {
    var text = "\(usageLine(command, spelling: spelling))\n\n\(command.summary)\n"
    if command.spellings.count > 1 {
      let sorted = command.spellings.dropFirst() + command.spellings.prefix(1)
      text += "\nAliases:\n  " + sorted.map { "engine \($0)" }.joined(separator: ", ") + "\n"
    }
    let flags = command.flags()
    if flags.contains(where: { !$0.isHidden }) { text += "\nOptions:\n" + list(flags, width: width) }
    return text
  }

  static func text(for group: CommandGroup, commands: [Command]) -> String {
    var text = "Usage:  engine \(group.name) COMMAND\n\n\(group.summary)\n\nCommands:\n"
    let rows = commands.compactMap { command in
      command.spellings.first { $0.hasPrefix("\(group.name) ") }
        .map { (String($0.dropFirst(group.name.count + 1)), command.summary) }
    }
    text += columns(rows.sorted { $0.0 < $1.0 })
    return text + "\nRun 'engine \(group.name) COMMAND --help' for more information on a command.\n"
  }

  static func overview(commands: [Command], groups: [CommandGroup], globals: [Flag], width: Int) -> String {
    let common = ["run", "exec", "ps", "images", "version", "info"]
    let single = commands.compactMap { command in
      command.spellings.first { !$0.contains(" ") }.map { ($0, command.summary) }
    }
    let first = common.compactMap { name in single.first { $0.0 == name } }
    var text = "Usage:  engine [OPTIONS] COMMAND\n\nA container engine for one Linux host\n"
    text += "\nCommon Commands:\n" + columns(first)
    text += "\nManagement Commands:\n" + columns(groups.map { ($0.name, $0.summary) })
    text += "\nCommands:\n" + columns(single.filter { !common.contains($0.0) }.sorted { $0.0 < $1.0 })
    text += "\nGlobal Options:\n" + list(globals, width: width)
    return text + "\nRun 'engine COMMAND --help' for more information on a command.\n"
  }

  private static func columns(_ rows: [(String, String)]) -> String {
    let width = max(10, rows.map(\.0.count).max() ?? 0)
    return rows.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count + 2))\($0.1)\n" }.joined()
  }

  /// The flags in columns, wrapped as pflag's FlagUsagesWrapped does.
  static func list(_ flags: [Flag], width: Int) -> String {
    let rows = flags.filter { !$0.isHidden }.sorted { $0.name < $1.name }.map { flag in
      var start = flag.short.map { "  -\($0), --\(flag.name)" } ?? "      --\(flag.name)"
      if flag.takesValue { start += " \(flag.valueName)" }
      return (start, flag.kind == .boolean(true) ? "\(flag.help) (default true)" : flag.help)
    }
    let column = (rows.map(\.0.count).max() ?? 0) + 3
    return rows.map { start, help in
      start + String(repeating: " ", count: column - start.count) + wrap(help, at: column, width: width - 1) + "\n"
    }.joined()
  }

  private static func wrap(_ text: String, at indent: Int, width: Int) -> String {
    let space = width - indent - 5
    guard space >= 19 else { return text }
    let margin = "\n" + String(repeating: " ", count: indent)
    var lines: [String] = []
    for paragraph in text.split(separator: "\n", omittingEmptySubsequences: false) {
      var rest = paragraph
      while rest.count > space + 5, let cut = rest.prefix(space).lastIndex(of: " "), cut != rest.startIndex {
        lines.append(String(rest[..<cut]))
        rest = rest[rest.index(after: cut)...]
      }
      lines.append(String(rest))
    }
    return lines.joined(separator: margin)
  }
}
