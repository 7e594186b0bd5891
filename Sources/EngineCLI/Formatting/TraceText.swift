import Contracts

/// Spans in Chrome's trace-event format ("Trace Event Format", JSON object format, complete events).
enum TraceText {
  /// A process has lanes (threads, as the format calls them): in a lane spans lie side by side or within each other,
  /// never across. What is done at the same time lies in lanes of its own.
  static func chrome(_ spans: [TraceSpan]) -> String {
    let base = spans.map(\.begin).min() ?? 0
    let last = spans.compactMap(\.end).max() ?? base
    // One that was not over when the trace was read lasts until the end of it.
    let ends = spans.map { $0.end ?? max(last, $0.begin) }
    let lanes = lanes(spans, ends)
    var events: [JSONValue] = []
    var named: Set<Int32> = []
    for span in spans where named.insert(span.process).inserted {
      events.append(metadata("process_name", span.process, [.init("name", .string(span.program))]))
      events.append(
        metadata("process_sort_index", span.process, [.init("sort_index", .integer(Int64(named.count)))]))
    }
    for (index, span) in spans.enumerated() {
      var arguments = [JSONValue.Member("span", .integer(Int64(index)))]
      if span.parent >= 0 { arguments.append(.init("parent", .integer(Int64(span.parent)))) }
      if !span.plugin.isEmpty { arguments.append(.init("plugin", .string(span.plugin))) }
      if !span.driver.isEmpty { arguments.append(.init("driver", .string(span.driver))) }
      if !span.error.isEmpty { arguments.append(.init("error", .string(span.error))) }
      events.append(
        .object([
          .init("name", .string(span.name)), .init("cat", .string(span.plugin.isEmpty ? "step" : "message")),
          .init("ph", .string("X")), .init("ts", microseconds(span.begin - base)),
          .init("dur", microseconds(ends[index] - span.begin)), .init("pid", .integer(Int64(span.process))),
          .init("tid", .integer(Int64(lanes[index]))), .init("args", .object(arguments)),
        ]))
    }
    let document = JSONValue.object([
      .init("displayTimeUnit", .string("ms")),
      .init(
        "otherData",
        .object([.init("clock", .string("CLOCK_MONOTONIC")), .init("beginNanoseconds", .integer(base))])),
      .init("traceEvents", .array(events)),
    ])
    return JSONText.write(document, indent: " ") + "\n"
  }

  /// A span whose parent's index counts from another place.
  static func moved(_ span: TraceSpan, by offset: Int) -> TraceSpan {
    var span = span
    if span.parent >= 0 { span.parent += offset }
    return span
  }

  private static func metadata(_ name: String, _ process: Int32, _ arguments: [JSONValue.Member]) -> JSONValue {
    .object([
      .init("name", .string(name)), .init("ph", .string("M")), .init("pid", .integer(Int64(process))),
      .init("tid", .integer(0)), .init("args", .object(arguments)),
    ])
  }

  private static func microseconds(_ nanoseconds: Int64) -> JSONValue { .number(Double(nanoseconds) / 1000) }

  /// The lane of each span: its parent's where it lies within that and beside what is there already, otherwise the
  /// first one that is free.
  static func lanes(_ spans: [TraceSpan], _ ends: [Int64]) -> [Int] {
    var lanes = [Int](repeating: 0, count: spans.count)
    // For each lane of each process, the spans that are not over, outermost first.
    var open: [Int32: [[Int]]] = [:]
    // What begins at the same time and lasts longer comes first; then what was recorded first.
    let order = spans.indices.sorted {
      (spans[$0].begin, -ends[$0], $0) < (spans[$1].begin, -ends[$1], $1)
    }
    for index in order {
      let span = spans[index]
      var stacks = open[span.process] ?? []
      for lane in stacks.indices {
        while let top = stacks[lane].last, ends[top] <= span.begin { stacks[lane].removeLast() }
      }
      let within = stacks.firstIndex { stack in
        guard let top = stack.last else { return false }
        return top == span.parent && ends[index] <= ends[top]
      }
      let lane = within ?? stacks.firstIndex { $0.isEmpty } ?? stacks.count
      if lane == stacks.count { stacks.append([]) }
      stacks[lane].append(index)
      open[span.process] = stacks
      lanes[index] = lane + 1
    }
    return lanes
  }
}
