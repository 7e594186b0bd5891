/// Charts as SVG.
package enum Chart {
  package struct Bar {
    package var label: String
    package var value: Double
    package var whisker: Double?
    package var text: String
    package var color: String

    package init(label: String, value: Double, whisker: Double?, text: String, color: String) {
      self.label = label
      self.value = value
      self.whisker = whisker
      self.text = text
      self.color = color
    }
  }

  package struct Line {
    package var label: String
    package var points: [(x: Double, y: Double)]
    package var color: String

    package init(label: String, points: [(x: Double, y: Double)], color: String) {
      self.label = label
      self.points = points
      self.color = color
    }
  }

  package struct Span {
    package var label: String
    package var begin: Double
    package var end: Double
    package var color: String

    package init(label: String, begin: Double, end: Double, color: String) {
      self.label = label
      self.begin = begin
      self.end = end
      self.color = color
    }
  }

  /// How samples are distributed.
  package struct Box {
    package var label: String
    /// The least, the quarters between, and what is drawn as the most.
    package var low: Double
    package var lowerQuartile: Double
    package var median: Double
    package var upperQuartile: Double
    package var high: Double
    package var text: String
    package var color: String

    package init(
      label: String, low: Double, lowerQuartile: Double, median: Double, upperQuartile: Double, high: Double,
      text: String, color: String
    ) {
      self.label = label
      self.low = low
      self.lowerQuartile = lowerQuartile
      self.median = median
      self.upperQuartile = upperQuartile
      self.high = high
      self.text = text
      self.color = color
    }
  }

  private static let width = 860.0
  private static let margin = 210.0

  private static func svg(height: Double, _ body: String) -> String {
    "<svg viewBox=\"0 0 \(number(width)) \(number(height))\" role=\"img\">\n\(body)</svg>\n"
  }

  private static func number(_ value: Double) -> String { Text.decimal(max(0, value), 2) }

  private static func rectangle(_ x: Double, _ y: Double, _ w: Double, _ h: Double, _ color: String) -> String {
    "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(w))\" height=\"\(number(h))\" fill=\"\(color)\"/>\n"
  }

  private static func text(_ x: Double, _ y: Double, _ content: String, anchor: String = "start") -> String {
    "<text x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor)\">\(Document.escaped(content))</text>\n"
  }

  private static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ color: String) -> String {
    "<line x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\" stroke=\"\(color)\"/>\n"
  }

  package static func bars(_ bars: [Bar]) -> String {
    let most = bars.map { max($0.value, $0.whisker ?? 0) }.max() ?? 1
    let scale = (width - margin - 120) / max(most, 1e-9)
    var body = ""
    for (index, bar) in bars.enumerated() {
      let y = Double(index) * 24
      body += text(margin - 8, y + 16, bar.label, anchor: "end")
      body += rectangle(margin, y + 3, max(1, bar.value * scale), 18, bar.color)
      var end = bar.value
      if let whisker = bar.whisker, whisker > bar.value {
        body += line(margin + bar.value * scale, y + 12, margin + whisker * scale, y + 12, bar.color)
        end = whisker
      }
      body += text(margin + end * scale + 6, y + 16, bar.text)
    }
    return svg(height: Double(bars.count) * 24 + 4, body)
  }

  /// A line from the least to the most, a box around the middle half, and a mark at the median.
  package static func boxes(_ boxes: [Box]) -> String {
    let scale = (width - margin - 190) / max(boxes.map(\.high).max() ?? 1, 1e-9)
    var body = ""
    for (index, box) in boxes.enumerated() {
      let y = Double(index) * 22
      func x(_ value: Double) -> Double { margin + value * scale }
      body += text(margin - 8, y + 15, box.label, anchor: "end")
      body += line(x(box.low), y + 11, x(box.high), y + 11, box.color)
      let breadth = max(2, (box.upperQuartile - box.lowerQuartile) * scale)
      body += rectangle(x(box.lowerQuartile), y + 4, breadth, 14, box.color)
      body += line(x(box.median), y + 1, x(box.median), y + 21, "currentColor")
      body += text(x(box.high) + 6, y + 15, box.text)
    }
    return svg(height: Double(boxes.count) * 22 + 4, body)
  }

  /// Lines over a common scale that begins at zero.
  package static func lines(_ lines: [Line], across: String) -> String {
    let height = 240.0
    let (left, right, bottom) = (60.0, width - 190, height - 40)
    let mostX = max(1e-9, lines.flatMap { $0.points.map(\.x) }.max() ?? 1)
    let mostY = max(1e-9, lines.flatMap { $0.points.map(\.y) }.max() ?? 1)
    func x(_ value: Double) -> Double { left + value / mostX * (right - left) }
    func y(_ value: Double) -> Double { bottom - value / mostY * (bottom - 14) }
    var body = line(left, bottom, right, bottom, "#94a3b8") + line(left, 10, left, bottom, "#94a3b8")
    for part in 0...4 {
      let value = mostY * Double(part) / 4
      body += text(left - 6, y(value) + 4, Text.decimal(value, mostY < 10 ? 2 : 0), anchor: "end")
    }
    for value in Set(lines.flatMap { $0.points.map(\.x) }).sorted() {
      body += text(x(value), bottom + 18, Text.decimal(value, 0), anchor: "middle")
    }
    body += text((left + right) / 2, height - 4, across, anchor: "middle")
    for (index, drawn) in lines.enumerated() {
      let points = drawn.points.map { "\(number(x($0.x))),\(number(y($0.y)))" }.joined(separator: " ")
      body += "<polyline points=\"\(points)\" fill=\"none\" stroke=\"\(drawn.color)\" stroke-width=\"2\"/>\n"
      for point in drawn.points {
        body += "<circle cx=\"\(number(x(point.x)))\" cy=\"\(number(y(point.y)))\" r=\"3\" fill=\"\(drawn.color)\"/>\n"
      }
      body += rectangle(right + 14, 14 + Double(index) * 22, 12, 12, drawn.color)
      body += text(right + 32, 25 + Double(index) * 22, drawn.label)
    }
    return svg(height: height, body)
  }

  /// What happened when, in milliseconds.
  package static func waterfall(_ spans: [Span], total: Double) -> String {
    let scale = (width - margin - 80) / max(total, 1e-9)
    var body = ""
    for (index, span) in spans.enumerated() {
      let y = Double(index) * 20
      body += text(margin - 8, y + 14, span.label, anchor: "end")
      body += rectangle(margin + span.begin * scale, y + 3, max(1, (span.end - span.begin) * scale), 14, span.color)
      body += text(margin + span.end * scale + 5, y + 14, "\(Text.decimal(span.end - span.begin, 2)) ms")
    }
    return svg(height: Double(spans.count) * 20 + 4, body)
  }
}
