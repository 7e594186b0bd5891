import Contracts

/// Why a command line could not be read.
enum ParseError: Error, Equatable {
  /// `--help`.
  case help
  /// One line that says what is wrong.
  case invalid(String)
}

/// Reads flags and arguments with the grammar of Docker's command line (that of the Go package pflag): `-p8080:80`,
/// `-itd`, `--rm=false`, a value that begins with a dash, and `--`.
struct Parser {
  private let flags: [Flag]
  /// Whether flags may follow arguments; otherwise the first argument ends them, as the image does for `run`.
  private let isInterspersed: Bool

  init(flags: [Flag], isInterspersed: Bool) {
    self.flags = flags
    self.isInterspersed = isInterspersed
  }

  func parse(_ words: some Sequence<String>) throws(ParseError) -> (options: Options, arguments: [String]) {
    var options = Options()
    var arguments: [String] = []
    var rest = Array(words)[...]
    while let word = rest.popFirst() {
      if word == "--" {
        arguments += rest
        break
      }
      if word.hasPrefix("--") {
        try readLong(word.dropFirst(2), &rest, &options)
      } else if word.utf8.first == 0x2D, word.utf8.count > 1 {
        try readShort(word.dropFirst(), &rest, &options)
      } else {
        arguments.append(word)
        if !isInterspersed {
          arguments += rest
          break
        }
      }
    }
    return (options, arguments)
  }

  private func readLong(
    _ text: Substring, _ rest: inout ArraySlice<String>, _ options: inout Options
  ) throws(ParseError) {
    let separator = text.utf8.firstIndex(of: 0x3D)
    let name = String(text[..<(separator ?? text.endIndex)])
    guard !name.isEmpty, name.utf8.first != 0x2D else { throw .invalid("bad flag syntax: --\(text)") }
    guard let flag = flags.first(where: { $0.name == name || $0.aliases.contains(name) }) else {
      if name == "help" { throw .help }
      let candidates = flags.lazy.filter { !$0.isHidden }.map(\.name)
      let hint = Suggestion.nearest(to: name, among: candidates).map { " (did you mean --\($0)?)" } ?? ""
      throw .invalid("unknown flag: --\(name)\(hint)")
    }
    if let separator {
      try set(flag, String(text[text.utf8.index(after: separator)...]), &options)
    } else if !flag.takesValue {
      try set(flag, "true", &options)
    } else if let value = rest.popFirst() {
      try set(flag, value, &options)
    } else {
      throw .invalid("flag needs an argument: --\(name)")
    }
  }

  private func readShort(
    _ text: Substring, _ rest: inout ArraySlice<String>, _ options: inout Options
  ) throws(ParseError) {
    var cluster = text
    while let letter = cluster.first {
      let whole = cluster
      cluster.removeFirst()
      guard let flag = flags.first(where: { $0.short == letter }) else {
        if letter == "h" { throw .help }
        throw .invalid("unknown shorthand flag: '\(letter)' in -\(whole)")
      }
      if cluster.first == "=" {
        return try set(flag, String(cluster.dropFirst()), &options)
      }
      if !flag.takesValue {
        try set(flag, "true", &options)
      } else if !cluster.isEmpty {
        return try set(flag, String(cluster), &options)
      } else if let value = rest.popFirst() {
        return try set(flag, value, &options)
      } else {
        throw .invalid("flag needs an argument: '\(letter)' in -\(whole)")
      }
    }
  }

  private func set(_ flag: Flag, _ text: String, _ options: inout Options) throws(ParseError) {
    do {
      switch flag.kind {
      case .boolean:
        options.append(try Truth.parse(text) ? "true" : "false", to: flag.name, isList: false)
      case .single, .list:
        try flag.check?(text)
        options.append(text, to: flag.name, isList: flag.kind == .list)
      }
    } catch {
      throw .invalid("invalid argument \"\(text)\" for \"\(flag.display)\" flag: \(error)")
    }
  }
}
