/// The times of one thing, in whatever unit they were taken.
package struct Samples {
  private var sorted: [Double]

  package init(_ values: [Double]) { sorted = values.sorted() }

  package var count: Int { sorted.count }

  /// The smallest value that at least a share of the samples does not exceed (nearest rank); 0 where there are none.
  package func percentile(_ share: Double) -> Double {
    if sorted.isEmpty { return 0 }
    let rank = (Double(sorted.count) * share).rounded(.up)
    return sorted[min(sorted.count - 1, max(0, Int(rank) - 1))]
  }

  package var median: Double { percentile(0.5) }
}

/// Numbers and lines for people.
package enum Text {
  package static func row(_ cells: String...) -> String {
    zip(cells, [34, 9, 9, 9, 0]).map { $0 + String(repeating: " ", count: max(1, $1 - $0.count)) }.joined()
  }

  package static func ratio(_ ratio: Double, _ other: String) -> String {
    ratio < 1 ? "1/\(decimal(1 / ratio, 1)) of \(other)" : "\(decimal(ratio, 2)) x \(other)"
  }

  package static func decimal(_ value: Double, _ digits: Int) -> String {
    let scale = digits == 0 ? 1 : digits == 1 ? 10 : 100
    let scaled = Int((value * Double(scale)).rounded())
    if digits == 0 { return String(scaled) }
    let fraction = String(abs(scaled) % scale)
    return "\(scaled / scale).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
  }
}
