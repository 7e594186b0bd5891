import BenchmarkSupport

/// The results as a page.
enum Page {
  static func html(_ results: Results) -> String {
    let machine = results.machine
    var body = "<h1>engine: benchmarks</h1>\n"
    body += "<p>\(Document.escaped(machine.line)). "
    body +=
      "Medians of \(results.runs) runs, side by side in one run; the thin line reaches to the 90th percentile.</p>\n"
    for mode in results.modes {
      body += "<h2>Commands, \(Document.escaped(mode.mode))</h2>\n" + comparisons(mode)
    }
    if !results.throughput.isEmpty {
      body += "<h2>Containers a second</h2>\n<p>Run to their end and removed, so many at once.</p>\n"
      body += throughput(results.throughput)
    }
    if !results.scaling.isEmpty { body += scaling(results) }
    if let start = results.start { body += "<h2>A start, step by step</h2>\n" + waterfall(start) }
    for mode in results.modes { body += "<h2>Every figure, \(Document.escaped(mode.mode))</h2>\n" + table(mode) }
    return Document.html(title: "engine: benchmarks", body: body)
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
    let names = ["engine", "docker"].filter { name in results.scaling.contains { $0.peer == name } }
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
    var attach = lines { $0.attach.map { Double($0) / 1000 } }
    for line in lines({ $0.attachAfterPause.map { Double($0) / 1000 } }) {
      attach.append(Chart.Line(label: "\(line.label), after a pause", points: line.points, color: "#7c3aed"))
    }
    return text + Chart.lines(attach, across: "containers")
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
    return "#d97706"
  }
}
