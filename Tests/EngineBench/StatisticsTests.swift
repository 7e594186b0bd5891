import BenchmarkSupport
import Testing

@testable import EngineBench

@Suite("Statistics of the benchmarks")
struct StatisticsTests {
  @Test(
    "Percentiles are the nearest rank",
    arguments: [
      ([5.0], 0.5, 5.0), ([5.0], 0.99, 5.0), ([1, 2], 0.5, 1), ([1, 2], 0.51, 2), ([3, 1, 2], 0.5, 2),
      ([3, 1, 2], 0, 1), ([3, 1, 2], 1, 3), ((1...100).map(Double.init), 0.99, 99),
      ((1...100).map(Double.init), 0.9, 90), ((1...10).map(Double.init), 0.99, 10), ([], 0.5, 0),
    ] as [([Double], Double, Double)])
  func percentile(values: [Double], share: Double, expected: Double) {
    #expect(Samples(values).percentile(share) == expected)
  }
}

@Suite("Reports of the benchmarks")
struct ReportTests {
  @Test("A distribution is ordered, from the least to the most")
  func distribution() {
    let times = Report.Distribution([9, 1, 5, 3, 7])
    #expect((times.runs, times.min, times.p50, times.p90, times.p99, times.max) == (5, 1, 5, 9, 9, 9))
    #expect(times.quantiles.count == 21)
    #expect(times.quantiles == times.quantiles.sorted())
    #expect(times.quantiles.first == 1 && times.quantiles.last == 9)
  }

  @Test("The ratio is of the medians, and a floor of nothing does not divide by zero")
  func ratio() {
    #expect(Report.Pair(engine: [30, 10, 20], raw: [5, 4, 100]).ratio == 4)
    #expect(Report.Pair(engine: [7], raw: [0]).ratio == 7)
  }

  @Test("JSON brings back what was written")
  func roundTrip() throws {
    let report = Report.example()
    #expect(try ReportFile.parse(try ReportFile.text(report)) == report)
  }

  @Test(
    "What is no report is refused",
    arguments: ["", "{}", "[]", "not JSON", "{\"format\": 1}"])
  func garbage(text: String) {
    #expect(throws: (any Error).self) { try ReportFile.parse(text) }
  }

  @Test("A report of another format is refused with both numbers")
  func format() throws {
    var report = Report.example()
    report.format = 7
    let text = try ReportFile.text(report)
    let error = #expect(throws: (any Error).self) { try ReportFile.parse(text) }
    #expect("\(try #require(error))".contains("format 7"))
  }

  @Test(
    "Times have three digits or four",
    arguments: [
      (0, "0 ns"), (850, "850 ns"), (999, "999 ns"), (1000, "1.0 µs"), (12_345, "12.3 µs"), (99_949, "99.9 µs"),
      (99_950, "100 µs"), (123_456, "123 µs"), (999_499, "999 µs"), (999_500, "1.00 ms"), (1_454_999, "1.45 ms"),
      (296_000_000, "296.00 ms"),
    ] as [(Int64, String)])
  func times(nanoseconds: Int64, text: String) {
    #expect(ReportTable.time(nanoseconds) == text)
  }

  @Test(
    "Ratios far below one are fractions",
    arguments: [(1.254, "1.25x"), (0.5, "0.50x"), (0.1, "0.10x"), (0.025, "1/40"), (0.0, "0.00x")])
  func ratios(ratio: Double, text: String) {
    #expect(ReportTable.ratio(ratio) == text)
  }

  @Test("The table has every figure, and says why others are missing")
  func table() {
    let text = ReportTable.text(.example(), former: nil)
    for name in ["overlay, 1 layer", "overlay, 5 layers", "namespace user", "not <allowed>"] {
      #expect(text.contains(name))
    }
    #expect(!text.contains("BEFORE"))
    #expect(text.contains("100 runs\n"))
  }

  @Test("Compared with a former report, each figure shows what it was and the change")
  func compare() throws {
    var former = Report.example()
    former.figures.removeLast()
    let text = ReportTable.text(.example(scale: 2), former: former)
    let lines = text.split(separator: "\n")
    #expect(lines.contains { $0.contains("BEFORE") && $0.contains("CHANGE") })
    let grown = try #require(lines.first { $0.hasPrefix("overlay, 5 layers") })
    #expect(grown.contains("6.1 µs") && grown.hasSuffix("1.99x"))
    let new = try #require(lines.first { $0.hasPrefix("a <b>") })
    #expect(new.hasSuffix("-"))
    #expect(ReportTable.change(from: nil, to: 5) == nil)
    #expect(ReportTable.change(from: 0, to: 5) == nil)
    #expect(ReportTable.change(from: 10, to: 5) == 0.5)
  }
}
