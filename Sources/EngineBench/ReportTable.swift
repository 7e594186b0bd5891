import BenchmarkSupport
import EngineCLI

/// A report for people: a table a mode.
package enum ReportTable {
  /// - Parameter former: results to compare with.
  package static func text(_ report: Report, former: Report?) -> String {
    var text = "\(report.machine.line)\n"
    if let former { text += "compared with \(former.machine.line)\n" }
    text += "\n" + mode("hot", report, former, \.hot)
    text += "\n" + mode("after pauses of \(report.pauseMilliseconds) ms", report, former, \.paused)
    if !report.skipped.isEmpty {
      text += "\n" + Table.text([["NOT MEASURED", "WHY"]] + report.skipped.map { [$0.name, $0.reason] })
    }
    return text
  }

  private static func mode(
    _ name: String, _ report: Report, _ former: Report?, _ pair: KeyPath<Report.Figure, Report.Pair>
  ) -> String {
    let runs = report.figures.map { $0[keyPath: pair].engine.runs }
    var header = ["STEP, \(name.uppercased())", "P50", "P90", "P99", "RAW P50", "RATIO"]
    if former != nil { header += ["BEFORE", "CHANGE"] }
    var rows = [header]
    for figure in report.figures {
      let measured = figure[keyPath: pair]
      var row = [
        figure.name, time(measured.engine.p50), time(measured.engine.p90), time(measured.engine.p99),
        time(measured.raw.p50), ratio(measured.ratio),
      ]
      if let former {
        let before = former.figure(figure.name)?[keyPath: pair].engine.p50
        row.append(before.map(time) ?? "-")
        row.append(change(from: before, to: measured.engine.p50).map(ratio) ?? "-")
      }
      rows.append(row)
    }
    var text = Table.text(rows)
    if let least = runs.min(), let most = runs.max() {
      text += least == most ? "\(least) runs" : "\(least) to \(most) runs"
      text += least < 100 ? "; the P99 of fewer than 100 is the slowest of them\n" : "\n"
    }
    return text
  }

  /// What a figure is now, divided by what it was.
  package static func change(from before: Int64?, to now: Int64) -> Double? {
    guard let before, before > 0 else { return nil }
    return Double(now) / Double(before)
  }

  /// `1.25x`, and `1/40` for what is far below one.
  package static func ratio(_ ratio: Double) -> String {
    ratio < 0.1 && ratio > 0 ? "1/\(Text.decimal(1 / ratio, 0))" : "\(Text.decimal(ratio, 2))x"
  }

  /// Nanoseconds with three digits or four: `850 ns`, `12.3 µs`, `1.45 ms`.
  package static func time(_ nanoseconds: Int64) -> String {
    let value = Double(nanoseconds)
    switch value {
    case ..<1000: return "\(nanoseconds) ns"
    case ..<99_950: return "\(Text.decimal(value / 1e3, 1)) µs"
    case ..<999_500: return "\(Text.decimal(value / 1e3, 0)) µs"
    default: return "\(Text.decimal(value / 1e6, 2)) ms"
    }
  }
}
