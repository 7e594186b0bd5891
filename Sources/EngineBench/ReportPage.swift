import BenchmarkSupport

/// A report as a page: distributions, scaling curves, one start, and every figure.
package enum ReportPage {
  private static let engine = "#2563eb"
  private static let raw = "#16a34a"
  private static let enginePaused = "#7c3aed"
  private static let rawPaused = "#d97706"

  /// - Parameter former: results to compare with.
  package static func html(_ report: Report, former: Report?) -> String {
    var body = "<h1>engine bench</h1>\n<p>\(Document.escaped(report.machine.line)). "
    body += "Each step of the engine beside the same system calls with nothing around them, measured in turn: "
    body += "hot, and after pauses of \(report.pauseMilliseconds) ms.</p>\n"
    if let former {
      body += "<p>Compared with \(Document.escaped(former.machine.line)).</p>\n"
    }
    body += "<h2>Distributions</h2>\n<p>The line reaches from the fastest run to the 99th percentile, the box holds "
    body += "the middle half, the mark is the median. Each chart has a scale of its own.</p>\n"
    for figure in report.figures { body += distribution(figure, report) }
    body += curves(report)
    if !report.start.isEmpty {
      body += "<h2>A start, step by step</h2>\n" + waterfall(report.start)
    }
    body += table("Hot", report, former, \.hot)
    body += table("After pauses of \(report.pauseMilliseconds) ms", report, former, \.paused)
    if !report.skipped.isEmpty {
      body += "<h2>Not measured</h2>\n<ul>\n"
      for one in report.skipped {
        body += "<li>\(Document.escaped(one.name)): \(Document.escaped(one.reason))</li>\n"
      }
      body += "</ul>\n"
    }
    return Document.html(title: "engine bench", body: body)
  }

  private static func distribution(_ figure: Report.Figure, _ report: Report) -> String {
    let boxes = [
      box("engine, hot", figure.hot.engine, engine), box("raw, hot", figure.hot.raw, raw),
      box("engine, after a pause", figure.paused.engine, enginePaused),
      box("raw, after a pause", figure.paused.raw, rawPaused),
    ]
    let ratios = "\(ReportTable.ratio(figure.hot.ratio)) hot, \(ReportTable.ratio(figure.paused.ratio)) after a pause"
    return "<h3>\(Document.escaped(figure.name)): \(ratios)</h3>\n<p>Raw: \(Document.escaped(figure.floor)).</p>\n"
      + Chart.boxes(boxes)
  }

  private static func box(_ label: String, _ times: Report.Distribution, _ color: String) -> Chart.Box {
    func quantile(_ twentieth: Int) -> Double {
      times.quantiles.indices.contains(twentieth) ? Double(times.quantiles[twentieth]) : Double(times.p50)
    }
    return Chart.Box(
      label: label, low: Double(times.min), lowerQuartile: quantile(5), median: Double(times.p50),
      upperQuartile: quantile(15), high: Double(times.p99),
      text: "\(ReportTable.time(times.p50)), p99 \(ReportTable.time(times.p99))", color: color)
  }

  // MARK: Scaling

  /// What the curves of a name run over.
  private static let axes = [
    ("publish", "Publishing ports", "ports in one transaction"), ("overlay", "Overlay mounts", "layers"),
    ("veth on the bridge", "Links", "links on the bridge"),
    ("address and route", "Addresses and routes", "links on the bridge"),
  ]

  private static func curves(_ report: Report) -> String {
    var text = ""
    for (name, title, across) in axes {
      let figures = report.figures.filter { $0.curve == name || $0.curve.hasPrefix("\(name), ") }
      if Set(figures.map(\.position)).count < 2 { continue }
      text += "<h3>\(title), median in microseconds</h3>\n" + Chart.lines(lines(figures), across: across)
    }
    return text.isEmpty ? "" : "<h2>Scaling</h2>\n" + text
  }

  private static func lines(_ figures: [Report.Figure]) -> [Chart.Line] {
    var names: [String] = []
    for figure in figures where !names.contains(figure.curve) { names.append(figure.curve) }
    let colors = [engine, enginePaused, "#db2777", raw, rawPaused, "#64748b"]
    var lines: [Chart.Line] = []
    func add(_ label: String, _ curve: String, _ value: (Report.Figure) -> Int64) {
      let points = figures.filter { $0.curve == curve }.map { (Double($0.position), Double(value($0)) / 1000) }
      lines.append(Chart.Line(label: label, points: points, color: colors[lines.count % colors.count]))
    }
    if names.count == 1, let name = names.first {
      add("engine, hot", name) { $0.hot.engine.p50 }
      add("engine, after a pause", name) { $0.paused.engine.p50 }
      add("raw, hot", name) { $0.hot.raw.p50 }
      add("raw, after a pause", name) { $0.paused.raw.p50 }
    } else {
      for name in names {
        add(name.split(separator: ", ").last.map(String.init) ?? name, name) { $0.hot.engine.p50 }
      }
      for name in names { add("raw, \(name.split(separator: ", ").last ?? "")", name) { $0.hot.raw.p50 } }
    }
    return lines
  }

  // MARK: One start

  private static func waterfall(_ steps: [Report.Step]) -> String {
    let colors = ["engine": engine, "shim": rawPaused, "process": raw]
    let spans = steps.map { step in
      Chart.Span(
        label: step.place == "engine" ? step.name : "\(step.place): \(step.name)", begin: Double(step.begin) / 1e6,
        end: Double(step.begin + step.duration) / 1e6, color: colors[step.place] ?? "#64748b")
    }
    return Chart.waterfall(spans, total: spans.map(\.end).max() ?? 1)
  }

  // MARK: Every figure

  private static func table(
    _ title: String, _ report: Report, _ former: Report?, _ pair: KeyPath<Report.Figure, Report.Pair>
  ) -> String {
    var header = ["step", "p50", "p90", "p99", "raw p50", "raw p90", "raw p99", "ratio", "runs"]
    if former != nil { header += ["before", "change"] }
    var text = "<h2>\(Document.escaped(title))</h2>\n<table><tr>\(header.map { "<th>\($0)</th>" }.joined())</tr>\n"
    for figure in report.figures {
      let measured = figure[keyPath: pair]
      let (own, floor) = (measured.engine, measured.raw)
      var cells = [own.p50, own.p90, own.p99, floor.p50, floor.p90, floor.p99].map(ReportTable.time)
      cells += [ReportTable.ratio(measured.ratio), String(own.runs)]
      if let former {
        let before = former.figure(figure.name)?[keyPath: pair].engine.p50
        cells.append(before.map(ReportTable.time) ?? "-")
        cells.append(ReportTable.change(from: before, to: own.p50).map(ReportTable.ratio) ?? "-")
      }
      text += "<tr><td>\(Document.escaped(figure.name))</td>"
      text += cells.map { "<td>\($0)</td>" }.joined() + "</tr>\n"
    }
    return text + "</table>\n"
  }
}
