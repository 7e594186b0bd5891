import BenchmarkSupport

/// The README's table, made of the results file, so that the two say the same.
enum Readme {
  static let begin = "<!-- benchmarks: written by `make bench-readme` -->"
  static let end = "<!-- benchmarks: end -->"

  /// Puts the table between the marks of a file.
  static func update(_ path: String, from results: String) throws {
    let text = Processes.read(path)
    guard let updated = replaced(in: text, with: table(try Suite.Files.read(results))) else {
      throw Processes.Failure(description: "\(path) has no line \"\(begin)\" with \"\(end)\" after it")
    }
    try Processes.write(updated, to: path)
    print("written to \(path)")
  }

  /// The text with what stands between the marks replaced; nil where the marks are missing.
  static func replaced(in text: String, with table: String) -> String? {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    guard let first = lines.firstIndex(of: begin), let last = lines[first...].firstIndex(of: end) else { return nil }
    return (lines[...first] + [table] + lines[last...]).joined(separator: "\n")
  }

  private static let titles = [
    ("run", "`run --rm IMAGE true`, bridge network"), ("run -p", "the same with `-p 80`"),
    ("run -m --cpus", "the same with `-m 64m --cpus 1`"),
    (Names.everything, "with all of these and a seccomp profile of one's own"),
    ("run --network none", "with `--network none`"), ("exec", "`exec`"), ("start", "`start`"), ("stop", "`stop`"),
  ]

  static func table(_ results: Results) -> String {
    let machine = results.machine
    let runs = results.modes.map(\.runs).min() ?? results.runs
    let versions = results.peers.filter { $0.name != "engine" }.compactMap { peer in
      peer.version.map { "\(peer.name) \($0)" }
    }
    var sentences = [
      "Measured on \(machine.line);",
      "medians of \(runs) runs, everything side by side in one run, in brackets with pauses of",
      "\(results.pauseMilliseconds) ms between runs, as real users have. Read the ratios.",
    ]
    if !versions.isEmpty { sentences.append("Beside it: \(versions.joined(separator: ", ")).") }
    for peer in results.peers {
      if let absence = peer.absence { sentences.append("Not compared: \(peer.name), \(absence).") }
    }
    var text = wrapped(sentences.joined(separator: " ")) + "\n"
    text += "\n| command | engine | docker | ratio | podman |\n| --- | --- | --- | --- | --- |\n"
    for (name, title) in titles {
      guard results.modes.first?.row("engine \(name)") != nil else { continue }
      let cells = [
        title, times(results, "engine \(name)"), times(results, "docker \(name)"),
        ratios(results, "engine \(name)", "docker \(name)"), times(results, "podman \(name)"),
      ]
      text += "| \(cells.joined(separator: " | ")) |\n"
    }
    text += "\n| beside | it | `engine run` | ratio |\n| --- | --- | --- | --- |\n"
    for (name, ours, title) in [
      (Names.floor, "engine run", "the same system calls with nothing around them"),
      ("crun run", "engine run --network none", "`crun run`, equal root, no network"),
      ("runc run", "engine run --network none", "`runc run`, the same"),
      ("bubblewrap", "engine run --network none", "bubblewrap, which only makes namespaces"),
    ] where results.modes.first?.row(name) != nil {
      text += "| \(title) | \(times(results, name)) | \(times(results, ours)) | \(ratios(results, ours, name)) |\n"
    }
    return text + figures(results)
  }

  /// What is no single command.
  private static func figures(_ results: Results) -> String {
    var rows: [(String, (String) -> String)] = []
    for concurrency in [1, 4, 16] {
      let raw = results.throughput.first { $0.peer == Names.raw && $0.concurrency == concurrency }
      let beside = raw.map { " (raw system calls \(Text.decimal($0.perSecond, 1)))" } ?? ""
      rows.append(
        (
          "containers run to their end a second, \(concurrency) at once\(beside)",
          { peer in
            results.throughput.first { $0.peer == peer && $0.concurrency == concurrency }
              .map { Text.decimal($0.perSecond, 1) } ?? ""
          }
        ))
    }
    rows.append(
      (
        "memory of one more idle container",
        { peer in results.perContainer[peer].map { "\(Text.decimal(Double($0) / 1024, 2)) MB" } ?? "" }
      ))
    rows.append(
      (
        "daemon, idle",
        { peer in
          peer == "podman" ? "" : results.idleResident[peer].map { "\(Text.decimal(Double($0) / 1024, 1)) MB" } ?? ""
        }
      ))
    func megabytes(_ containers: Int) -> (String) -> String {
      { peer in
        results.scaling.first { $0.peer == peer && $0.containers == containers }
          .map { "\(Text.decimal(Double($0.proportionalSize) / 1024, 0)) MB" } ?? ""
      }
    }
    for count in [1, 50, 200] { rows.append(("memory of everything with \(count) idle", megabytes(count))) }
    rows.append(
      (
        "`ps` with 200 containers",
        { peer in
          results.scaling.first { $0.peer == peer && $0.containers == 200 }.map { milliseconds($0.list) } ?? ""
        }
      ))
    if let image = results.images.first {
      rows.append(
        (
          "`pull` of \(image.unpacked / 1_000_000) MB in \(image.layers) layers from loopback",
          { peer in
            results.images.first { $0.peer == peer }.map { "\(Text.decimal(Double($0.pull) / 1e6, 2)) s" } ?? ""
          }
        ))
    }
    rows.append(
      (
        "log written",
        { peer in results.logs.first { $0.peer == peer }.map { "\(Text.decimal($0.writeRate, 0)) MB/s" } ?? "" }
      ))
    rows.append(
      (
        "`logs`, read back",
        { peer in results.logs.first { $0.peer == peer }.map { "\(Text.decimal($0.readRate, 0)) MB/s" } ?? "" }
      ))
    for path in [Results.Network.between, Results.Network.fromHost] {
      rows.append(
        (
          "iperf3 and there and back, \(path)",
          { peer in
            results.network.first { $0.peer == peer && $0.path == path }.map {
              "\(Text.decimal(Double($0.megabitsPerSecond) / 1000, 1)) Gbit/s, \(Text.decimal($0.roundTrip, 1)) µs"
            } ?? ""
          }
        ))
    }
    var text = "\n| figure | engine | docker | podman |\n| --- | --- | --- | --- |\n"
    for (title, value) in rows {
      let cells = ["engine", "docker", "podman"].map(value)
      if cells.allSatisfy(\.isEmpty) { continue }
      text += "| \(title) | \(cells.joined(separator: " | ")) |\n"
    }
    let judged = results.targets.filter { $0.isMet != nil }
    let missed = judged.filter { $0.isMet == false }
    var verdict = "Targets met: \(judged.count - missed.count) of \(judged.count)"
    if !missed.isEmpty {
      let parts = missed.map { "\($0.what) (\($0.measured ?? ""), \($0.limit))" }
      verdict += "; not met: \(parts.joined(separator: "; "))"
    }
    return "\(text)\n\(wrapped(verdict))."
  }

  /// Broken into lines of at most 120 columns.
  static func wrapped(_ text: String) -> String {
    var lines: [String] = []
    for word in text.split(separator: " ") {
      if let last = lines.last, last.count + 1 + word.count <= 120 {
        lines[lines.count - 1] = "\(last) \(word)"
      } else {
        lines.append(String(word))
      }
    }
    return lines.joined(separator: "\n")
  }

  private static func milliseconds(_ microseconds: Int) -> String {
    "\(Text.decimal(Double(microseconds) / 1000, microseconds < 100_000 ? 1 : 0)) ms"
  }

  /// Hot, and in brackets with pauses.
  private static func times(_ results: Results, _ name: String) -> String {
    let times = results.modes.compactMap { $0.row(name)?.p50 }.map(milliseconds)
    return brackets(times)
  }

  private static func ratios(_ results: Results, _ one: String, _ other: String) -> String {
    brackets(
      results.modes.compactMap { $0.ratio(one, other) }.map {
        $0 < 1 ? "1/\(Text.decimal(1 / $0, 1))" : Text.decimal($0, 2)
      })
  }

  private static func brackets(_ texts: [String]) -> String {
    guard let first = texts.first else { return "" }
    return texts.count > 1 ? "\(first) (\(texts[1]))" : first
  }
}
