import Contracts

/// The steps of a start for people and for programs.
enum TimingsText {
  private static let width = 40

  /// A line a step, with a bar that shows where in the start it lay.
  static func table(_ start: ContainerTimings.Reply) -> String {
    let total = max(1, start.end - start.begin)
    var rows = [["STEP", "START", "TOOK", ""]]
    for step in start.steps {
      // The shim's and the process's steps happen within the engine's.
      let indent = step.place == .engine ? "" : step.place == .shim ? "  shim: " : "    process: "
      rows.append([
        indent + step.name, milliseconds(step.begin - start.begin), milliseconds(step.end - step.begin),
        bar(from: step.begin - start.begin, to: step.end - start.begin, of: total),
      ])
    }
    let title = "\(start.containerName) (\(start.id.short)): \(milliseconds(total)) from the request until it ran\n"
    return title + Table.text(rows)
  }

  /// What `--format json` and templates see; times are whole nanoseconds, `Start` is counted from the request.
  static func value(_ start: ContainerTimings.Reply) -> JSONValue {
    .object([
      .init("Id", .string(start.id.text)), .init("Name", .string("/\(start.containerName)")),
      .init("StartedAt", .string(start.started.description)), .init("Duration", .integer(start.end - start.begin)),
      .init(
        "Steps",
        .array(
          start.steps.map { step in
            .object([
              .init("Name", .string(step.name)), .init("Place", .string(step.place.rawValue)),
              .init("Start", .integer(step.begin - start.begin)), .init("Duration", .integer(step.end - step.begin)),
            ])
          })),
    ])
  }

  /// Nanoseconds as milliseconds with three digits: `12.345 ms`.
  static func milliseconds(_ nanoseconds: Int64) -> String {
    let microseconds = max(0, nanoseconds + 500) / 1000
    let fraction = String(microseconds % 1000)
    return "\(microseconds / 1000).\(String(repeating: "0", count: 3 - fraction.count))\(fraction) ms"
  }

  /// A bar of the line from 0 to `total`, in eighths of a column and never empty.
  private static func bar(from begin: Int64, to end: Int64, of total: Int64) -> String {
    func column(_ time: Int64) -> Int { Int(min(max(0, time), total) * Int64(width * 8) / total) }
    let first = min(column(begin) / 8, width - 1)
    let eighths = max(1, column(end) - first * 8)
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
    return String(repeating: " ", count: first) + String(repeating: "█", count: eighths / 8) + partial[eighths % 8]
  }
}
