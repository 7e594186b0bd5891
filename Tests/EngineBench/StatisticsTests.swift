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
