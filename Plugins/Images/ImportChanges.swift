import Contracts
import Wire

/// Dockerfile instructions that change an image's configuration (`import --change`), with Docker's errors.
enum ImportChanges {
  /// - Throws: `invalidArgument` for the first change that does not read.
  static func apply(_ changes: [String]) throws(EngineError) -> ImageConfiguration.Execution {
    var result = ImageConfiguration.Execution()
    for change in changes {
      let text = trim(Substring(change))
      if text.isEmpty || text.hasPrefix("#") { continue }
      let end = text.firstIndex { $0 == " " || $0 == "\t" } ?? text.endIndex
      try apply(String(text[..<end]), trim(text[end...]), to: &result)
    }
    return result
  }

  private static func apply(
    _ instruction: String, _ rest: Substring, to result: inout ImageConfiguration.Execution
  ) throws(EngineError) {
    let name = instruction.uppercased()
    switch name {
    case "CMD": result.command = try command(rest)
    case "ENTRYPOINT": result.entrypoint = try command(rest)
    case "ENV":
      var environment = result.environment ?? []
      for (key, value) in try pairs(rest, name) {
        environment.removeAll { $0.hasPrefix("\(key)=") }
        environment.append("\(key)=\(value)")
      }
      result.environment = environment
    case "LABEL":
      for (key, value) in try pairs(rest, name) { result.labels = (result.labels ?? [:]).merging([key: value]) { $1 } }
    case "EXPOSE":
      for word in try atLeastOne(try words(rest), name) {
        for port in try ports(word) {
          result.exposedPorts = (result.exposedPorts ?? [:]).merging([port: .init()]) { $1 }
        }
      }
    case "VOLUME":
      let paths = try list(rest) ?? rest.split(whereSeparator: { $0 == " " || $0 == "\t" }).map(String.init)
      for path in try atLeastOne(paths, name) {
        if path.allSatisfy(\.isWhitespace) { throw failure("VOLUME specified can not be an empty string") }
        result.volumes = (result.volumes ?? [:]).merging([path: .init()]) { $1 }
      }
    case "STOPSIGNAL":
      let signal = try exactlyOne(rest, name)
      guard Signals.isKnown(signal) else { throw EngineError(.invalidArgument, "invalid signal: \(signal)") }
      result.stopSignal = signal
    case "USER": result.user = try exactlyOne(rest, name)
    case "WORKDIR": result.workingDirectory = clean(try exactlyOne(rest, name), from: result.workingDirectory ?? "/")
    case "HEALTHCHECK": result.healthCheck = try healthCheck(rest)
    case "ONBUILD": result.onBuild = (result.onBuild ?? []) + [try trigger(rest)]
    default: throw EngineError(.invalidArgument, "\(instruction) is not a valid change command")
    }
  }

  /// `NONE`, or options and `CMD` with a command in either form.
  private static func healthCheck(_ rest: Substring) throws(EngineError) -> ImageConfiguration.HealthCheck {
    var check = ImageConfiguration.HealthCheck()
    var rest = rest
    while rest.hasPrefix("--") {
      let word = rest.prefix { !$0.isWhitespace }
      rest = trim(rest.dropFirst(word.count))
      let parts = word.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let (name, value) = (String(parts[0]), parts.count == 2 ? String(parts[1]) : "")
      switch name {
      case "interval": check.interval = try duration(value, "interval")
      case "timeout": check.timeout = try duration(value, "timeout")
      case "start-period": check.startPeriod = try duration(value, "start-period")
      case "start-interval": check.startInterval = try duration(value, "start-interval")
      case "retries":
        guard let retries = Int(value), retries >= 0 else {
          throw failure("--retries cannot be negative (\(value))")
        }
        check.retries = retries
      default: throw failure("unknown flag: --\(name)")
      }
    }
    let kind = rest.prefix { !$0.isWhitespace }
    let command = trim(rest.dropFirst(kind.count))
    switch kind.uppercased() {
    case "NONE":
      if !command.isEmpty { throw failure("HEALTHCHECK NONE takes no arguments") }
      check.test = ["NONE"]
    case "CMD":
      if command.isEmpty { throw failure("missing command after HEALTHCHECK CMD") }
      check.test = try list(command).map { ["CMD"] + $0 } ?? ["CMD-SHELL", String(command)]
    case "": throw failure("HEALTHCHECK requires at least one argument")
    default: throw failure("unknown type \"\(kind)\" in HEALTHCHECK (try CMD)")
    }
    return check
  }

  /// An instruction for later builds, which cannot be one that means something else there.
  private static func trigger(_ rest: Substring) throws(EngineError) -> String {
    switch rest.prefix(while: { !$0.isWhitespace }).uppercased() {
    case "": throw failure("ONBUILD requires at least one argument")
    case "ONBUILD": throw failure("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    case let name where name == "MAINTAINER" || name == "FROM":
      throw failure("\(name) isn't allowed as an ONBUILD trigger")
    default: return String(rest)
    }
  }

  /// Go's durations such as `1m30s`, in nanoseconds.
  private static func duration(_ text: String, _ name: String) throws(EngineError) -> Int64 {
    let units: [(name: String, nanoseconds: Double)] = [
      ("ns", 1), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9),
    ]
    var rest = Substring(text)
    var total = 0.0
    while !rest.isEmpty {
      let number = rest.prefix { $0.isNumber || $0 == "." }
      let unit = rest.dropFirst(number.count).prefix { $0.isLetter }
      guard let value = Double(number), let size = units.first(where: { $0.name == unit }) else {
        throw failure("invalid duration \"\(text)\" for --\(name)")
      }
      total += value * size.nanoseconds
      rest = rest.dropFirst(number.count + unit.count)
    }
    guard !text.isEmpty, total == 0 || total >= 1e6, total < 9e18 else {
      throw failure("Interval \"\(name)\" cannot be less than 1ms")
    }
    return Int64(total)
  }

  private static func failure(_ why: String) -> EngineError {
    EngineError(.invalidArgument, "dockerfile parse error on line 1: \(why)")
  }

  private static func trim(_ text: Substring) -> Substring {
    var text = text
    while let first = text.first, first.isWhitespace { text.removeFirst() }
    while let last = text.last, last.isWhitespace { text.removeLast() }
    return text
  }

  private static func atLeastOne(_ words: [String], _ name: String) throws(EngineError) -> [String] {
    if words.isEmpty { throw failure("\(name) requires at least one argument") }
    return words
  }

  private static func exactlyOne(_ rest: Substring, _ name: String) throws(EngineError) -> String {
    if rest.isEmpty { throw failure("\(name) requires exactly one argument") }
    return String(rest)
  }

  /// The exec form (a JSON array of strings), else the shell form.
  private static func command(_ rest: Substring) throws(EngineError) -> [String] {
    if let words = try list(rest) { return words }
    return rest.isEmpty ? [] : ["/bin/sh", "-c", String(rest)]
  }

  /// - Returns: nil where the text is no JSON array.
  private static func list(_ rest: Substring) throws(EngineError) -> [String]? {
    guard rest.hasPrefix("["), case .array(let values)? = try? JSON.parse(Array(rest.utf8)) else { return nil }
    return try values.map { (value) throws(EngineError) in
      guard case .string(let text) = value else {
        throw failure("when using JSON array syntax, arrays must be comprised of strings only")
      }
      return text
    }
  }

  /// `name=value ...`, or the old form `name value`.
  private static func pairs(_ rest: Substring, _ name: String) throws(EngineError) -> [(String, String)] {
    let raw = try rawWords(rest)
    guard let first = raw.first else { throw failure("\(name) requires at least one argument") }
    if !first.contains("=") {
      let value = trim(rest.dropFirst(first.count))
      if value.isEmpty { throw failure("\(name) must have two arguments") }
      return [(unquote(first), unquote(String(value)))]
    }
    return try raw.map { (word) throws(EngineError) in
      guard let equals = word.firstIndex(of: "=") else {
        throw failure("Syntax error - can't find = in \"\(word)\". Must be of the form: name=value")
      }
      let key = unquote(String(word[..<equals]))
      if key.isEmpty { throw failure("\(name) names can not be blank") }
      return (key, unquote(String(word[word.index(after: equals)...])))
    }
  }

  private static func words(_ rest: Substring) throws(EngineError) -> [String] { try rawWords(rest).map(unquote) }

  /// Splits at blanks that are neither quoted nor escaped; quotes stay.
  private static func rawWords(_ rest: Substring) throws(EngineError) -> [String] {
    var words: [String] = []
    var word = ""
    var quote: Character?
    var escaped = false
    for character in rest {
      if escaped {
        escaped = false
      } else if character == "\\" && quote != "'" {
        escaped = true
      } else if let open = quote {
        if character == open { quote = nil }
      } else if character == "\"" || character == "'" {
        quote = character
      } else if character.isWhitespace {
        if !word.isEmpty { words.append(word) }
        word = ""
        continue
      }
      word.append(character)
    }
    if !word.isEmpty { words.append(word) }
    if let quote {
      throw failure(
        "unexpected end of statement while looking for matching \(quote == "'" ? "single" : "double")-quote")
    }
    return words
  }

  private static func unquote(_ word: String) -> String {
    var result = ""
    var quote: Character?
    var escaped = false
    for character in word {
      if escaped {
        result.append(character)
        escaped = false
      } else if character == "\\" && quote != "'" {
        escaped = true
      } else if let open = quote {
        if character == open { quote = nil } else { result.append(character) }
      } else if character == "\"" || character == "'" {
        quote = character
      } else {
        result.append(character)
      }
    }
    return result
  }

  /// `80`, `80/udp`, `80-82/tcp` as `80/tcp` and so on.
  private static func ports(_ word: String) throws(EngineError) -> [String] {
    let parts = word.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let kind = parts.count == 2 ? parts[1].lowercased() : "tcp"
    guard ["tcp", "udp", "sctp"].contains(kind) else {
      throw EngineError(.invalidArgument, "invalid proto: \(parts.count == 2 ? String(parts[1]) : "")")
    }
    let range = parts[0].split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
    guard let low = UInt16(range[0]), let high = UInt16(range[range.count - 1]), low > 0, low <= high else {
      throw EngineError(.invalidArgument, "invalid containerPort: \(word)")
    }
    return (low...high).map { "\($0)/\(kind)" }
  }

  /// Go's path.Clean of a path that may be relative to the working directory so far.
  private static func clean(_ path: String, from current: String) -> String {
    var components: [Substring] = []
    for component in (path.hasPrefix("/") ? path : "\(current)/\(path)").split(separator: "/") where component != "." {
      if component == ".." { _ = components.popLast() } else { components.append(component) }
    }
    return "/" + components.joined(separator: "/")
  }
}

/// Names of signals (signal(7)), with or without `SIG`, and their numbers.
enum Signals {
  private static let names: Set<String> = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "POLL", "PWR", "SYS", "RTMIN", "RTMAX",
  ]

  static func isKnown(_ text: String) -> Bool {
    if let number = Int(text) { return (1...64).contains(number) }
    let upper = text.uppercased()
    let name = upper.hasPrefix("SIG") ? String(upper.dropFirst(3)) : upper
    if names.contains(name) { return true }
    if name.hasPrefix("RTMIN+"), let offset = Int(name.dropFirst(6)) { return (0...15).contains(offset) }
    if name.hasPrefix("RTMAX-"), let offset = Int(name.dropFirst(6)) { return (0...14).contains(offset) }
    return false
  }
}
