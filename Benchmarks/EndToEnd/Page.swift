import BenchmarkSupport

/// The results as a page.
enum Page {
  static func html(_ results: Results) -> String {
    let machine = results.machine
    var body = "<h1>engine: benchmarks</h1>\n"
    body += "<p>\(Document.escaped(machine.line)). "
    body +=
      "Medians, everything side by side in one run; the thin line reaches to the 90th percentile.</p>\n"
    if !results.peers.isEmpty { body += peers(results.peers) }
    if !results.targets.isEmpty { body += "<h2>Targets</h2>\n" + targets(results.targets) }
    for mode in results.modes {
      body += "<h2>Commands, \(Document.escaped(mode.mode)), \(mode.runs) runs</h2>\n" + comparisons(mode)
    }
    if !results.throughput.isEmpty {
      body += "<h2>Containers a second</h2>\n<p>Run to their end and removed, so many at once.</p>\n"
      body += throughput(results.throughput)
    }
    if !results.scaling.isEmpty { body += scaling(results) }
    if !results.images.isEmpty { body += images(results.images) }
    if !results.logs.isEmpty { body += logs(results.logs) }
    if !results.network.isEmpty { body += network(results.network) }
    if let start = results.start { body += "<h2>A start, step by step</h2>\n" + waterfall(start) }
    if !results.messages.isEmpty { body += "<h2>Work without the kernel</h2>\n" + messages(results.messages) }
    for mode in results.modes { body += "<h2>Every figure, \(Document.escaped(mode.mode))</h2>\n" + table(mode) }
    if !results.omissions.isEmpty {
      let items = results.omissions.map { "<li>\(Document.escaped($0))</li>\n" }
      body += "<h2>What was not measured</h2>\n<ul>\n\(items.joined())</ul>\n"
    }
    return Document.html(title: "engine: benchmarks", body: body)
  }

  /// Who is compared, and why the others are not.
  private static func peers(_ peers: [Results.Peer]) -> String {
    let items = peers.map { peer in
      let what = peer.absence.map { "not compared: \($0)" } ?? peer.version ?? ""
      return "<li>\(Document.escaped(peer.name)) \(Document.escaped(what))</li>\n"
    }
    return "<ul>\n\(items.joined())</ul>\n"
  }

  private static func targets(_ targets: [Target]) -> String {
    var text = "<table><tr><th>what</th><th>target</th><th>measured</th><th></th></tr>\n"
    for target in targets {
      let cells = [target.what, target.limit, target.measured ?? "", target.verdict]
      text += "<tr>\(cells.map { "<td>\(Document.escaped($0))</td>" }.joined())</tr>\n"
    }
    return text + "</table>\n"
  }

  /// Every command of ours with what it is compared with: a chart with a scale of its own.
  private static func comparisons(_ mode: Results.Mode) -> String {
    var text = ""
    for row in mode.results {
      if row.comparisons.isEmpty { continue }
      let others = row.comparisons.compactMap { other in mode.results.first { $0.name == other.name } }
      let rows = [row] + others
      let bars = rows.map { row in
        Chart.Bar(
          label: row.name, value: Double(row.p50) / 1000, whisker: Double(row.p90) / 1000,
          text: "\(Text.decimal(Double(row.p50) / 1000, 2)) ms", color: color(row.name))
      }
      text += "<h3>\(Document.escaped(row.name)): \(Document.escaped(ratios(row)))</h3>\n" + Chart.bars(bars)
    }
    return text
  }

  private static func ratios(_ row: Results.Row) -> String {
    row.comparisons.map { Text.ratio($0.ratio, $0.name) }.joined(separator: ", ")
  }

  private static func throughput(_ rows: [Results.Throughput]) -> String {
    var text = ""
    for concurrency in [1, 4, 16] {
      let bars = rows.filter { $0.concurrency == concurrency }.map { row in
        Chart.Bar(
          label: row.peer, value: row.perSecond, whisker: nil, text: "\(Text.decimal(row.perSecond, 1)) a second",
          color: color(row.peer))
      }
      text += "<h3>\(concurrency) at once</h3>\n" + Chart.bars(bars)
    }
    return text
  }

  private static func scaling(_ results: Results) -> String {
    let names = ["engine", "docker", "podman"].filter { name in results.scaling.contains { $0.peer == name } }
    func lines(_ value: (Results.Scale) -> Double?) -> [Chart.Line] {
      names.compactMap { name in
        let points = results.scaling.filter { $0.peer == name }.compactMap { row in
          value(row).map { (Double(row.containers), $0) }
        }
        return points.isEmpty ? nil : Chart.Line(label: name, points: points, color: color(name))
      }
    }
    var text = "<h2>With more and more idle containers</h2>\n"
    let slopes = names.compactMap { name in results.perContainer[name].map { "\(name) \($0) kB" } }
    text += "<h3>Memory of everything but the payload, MB of PSS</h3>\n"
    if !slopes.isEmpty { text += "<p>Each further container: \(slopes.joined(separator: ", ")).</p>\n" }
    text += Chart.lines(lines { Double($0.proportionalSize) / 1024 }, across: "containers")
    text += "<h3><code>ps</code>, milliseconds</h3>\n"
    text += Chart.lines(lines { Double($0.list) / 1000 }, across: "containers")
    text += "<h3>Attaching one more container to the bridge, milliseconds</h3>\n"
    text += "<p>As a step of a start, beside which files and record are made on the same processors.\n"
    if let link = results.attachment {
      text +=
        "A link with its address and route alone (<code>engine bench</code>): the first \(link.first) \u{B5}s, "
        + "the 300th \(link.last) \u{B5}s; after pauses \(link.firstAfterPause) and \(link.lastAfterPause).\n"
    }
    text += "</p>\n"
    var attach = lines { $0.attach.map { Double($0) / 1000 } }
    for line in lines({ $0.attachAfterPause.map { Double($0) / 1000 } }) {
      attach.append(Chart.Line(label: "\(line.label), after a pause", points: line.points, color: "#0891b2"))
    }
    return text + Chart.lines(attach, across: "containers")
  }

  /// One bar for each peer, with a scale of its own.
  private static func bars(_ title: String, _ values: [(peer: String, value: Double, text: String)]) -> String {
    let bars = values.map {
      Chart.Bar(label: $0.peer, value: $0.value, whisker: nil, text: $0.text, color: color($0.peer))
    }
    return "<h3>\(Document.escaped(title))</h3>\n" + Chart.bars(bars)
  }

  private static func images(_ rows: [Results.Image]) -> String {
    guard let first = rows.first else { return "" }
    let megabytes = [first.packed, first.unpacked].map { Text.decimal(Double($0) / 1e6, 0) }
    return
      "<h2>An image, pulled and unpacked</h2>\n<p>\(first.layers) layers from a registry on the loopback interface, "
      + "\(megabytes[0]) MB packed, \(megabytes[1]) MB unpacked.</p>\n"
      + bars(
        "Seconds",
        rows.map { ($0.peer, Double($0.pull) / 1e6, "\(Text.decimal(Double($0.pull) / 1e6, 2)) s") })
  }

  private static func logs(_ rows: [Results.Log]) -> String {
    let lines = rows.first?.lines ?? 0
    func rate(_ value: Double) -> String { "\(Text.decimal(value, 1)) MB a second" }
    return
      "<h2>Logs</h2>\n<p>A container writes \(lines) lines as fast as its log is written, from its start to its end; "
      + "<code>logs</code> reads them all.</p>\n"
      + bars("Written", rows.map { ($0.peer, $0.writeRate, rate($0.writeRate)) })
      + bars("Read", rows.map { ($0.peer, $0.readRate, rate($0.readRate)) })
  }

  private static func network(_ rows: [Results.Network]) -> String {
    var text = "<h2>Network</h2>\n<p>iperf3 with one TCP connection, and one byte sent there and back.</p>\n"
    for path in [Results.Network.between, Results.Network.fromHost] {
      let those = rows.filter { $0.path == path }
      text += bars(
        "\(path), gigabits a second",
        those.map { ($0.peer, Double($0.megabitsPerSecond), Text.decimal(Double($0.megabitsPerSecond) / 1000, 1)) })
      let trips = those.map {
        Chart.Bar(
          label: $0.peer, value: $0.roundTrip, whisker: $0.roundTrip90, text: "\(Text.decimal($0.roundTrip, 1)) µs",
          color: color($0.peer))
      }
      text += "<h3>\(path), there and back</h3>\n" + Chart.bars(trips)
    }
    return text
  }

  private static func messages(_ rows: [Results.Message]) -> String {
    var text = "<table><tr><th>what</th><th>p50 ns</th><th>p90 ns</th><th>p99 ns</th><th>of one</th></tr>\n"
    for row in rows {
      let cells = ["\(row.group): \(row.name)", "\(row.p50)", "\(row.p90)", "\(row.p99)", row.per]
      text += "<tr>\(cells.map { "<td>\(Document.escaped($0))</td>" }.joined())</tr>\n"
    }
    return text + "</table>\n"
  }

  private static func waterfall(_ start: Results.Start) -> String {
    let colors = ["engine": "#2563eb", "shim": "#d97706", "process": "#16a34a"]
    let spans = start.Steps.map { step in
      Chart.Span(
        label: step.Place == "engine" ? step.Name : "\(step.Place): \(step.Name)", begin: Double(step.Start) / 1e6,
        end: Double(step.Start + step.Duration) / 1e6, color: colors[step.Place] ?? "#64748b")
    }
    return Chart.waterfall(spans, total: Double(start.Duration) / 1e6)
  }

  private static func table(_ mode: Results.Mode) -> String {
    var text = "<table><tr><th>command</th><th>p50 ms</th><th>p90 ms</th><th>p99 ms</th><th>min ms</th><th></th></tr>\n"
    for row in mode.results {
      let cells = [row.p50, row.p90, row.p99, row.min].map { "<td>\(Text.decimal(Double($0) / 1000, 2))</td>" }
      text +=
        "<tr><td>\(Document.escaped(row.name))</td>\(cells.joined())<td>\(Document.escaped(ratios(row)))</td></tr>\n"
    }
    return text + "</table>\n"
  }

  private static func color(_ name: String) -> String {
    if name.hasPrefix("engine") { return "#2563eb" }
    if name.hasPrefix("raw") { return "#16a34a" }
    if name.hasPrefix("docker") { return "#94a3b8" }
    if name.hasPrefix("podman") { return "#7c3aed" }
    return "#d97706"
  }
}
