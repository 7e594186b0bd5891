import Benchmark
import BenchmarkWorkloads
import Glibc

// Times every workload with google/swift-benchmark, which warms up and runs each as often as its deviation asks for.
//
// usage: engine-micro-benchmarks [--json] [--seconds=N] [FILTER]

/// Nanoseconds of one message, address, port or megabyte.
struct Figure {
  var workload: Workload
  var samples: [Double]

  func percentile(_ share: Double) -> Double {
    samples.isEmpty ? 0 : samples[min(samples.count - 1, Int(Double(samples.count) * share))]
  }

  var json: String {
    "{\"group\":\"\(workload.group)\",\"name\":\"\(workload.name)\",\"per\":\"\(workload.unit)\","
      + "\"unit\":\"nanoseconds\",\"runs\":\(samples.count),\"p50\":\(Int(percentile(0.5))),"
      + "\"p90\":\(Int(percentile(0.9))),\"p99\":\(Int(percentile(0.99)))}"
  }

  var line: String {
    let name = "\(workload.group): \(workload.name)"
    return name + String(repeating: " ", count: max(1, 52 - name.count))
      + "p50 \(Int(percentile(0.5))), p90 \(Int(percentile(0.9))), p99 \(Int(percentile(0.99))) ns per \(workload.unit)"
  }
}

var asJSON = false
var seconds = 1.0
var filter = ""
for argument in CommandLine.arguments.dropFirst() {
  if argument == "--json" {
    asJSON = true
  } else if argument.hasPrefix("--seconds="), let number = Double(argument.dropFirst(10)), number > 0 {
    seconds = number
  } else if argument.hasPrefix("-") {
    let line = Array("usage: engine-micro-benchmarks [--json] [--seconds=N] [FILTER]\n".utf8)
    _ = write(2, line, line.count)
    exit(64)
  } else {
    filter = argument
  }
}

let workloads = try Workloads()
let chosen = workloads.all.filter { filter.isEmpty || "\($0.group) \($0.name)".contains(filter) }
let suite = BenchmarkSuite(name: "engine")
for (index, workload) in chosen.enumerated() { suite.benchmark("\(index)") { try workload.run() } }
var runner = BenchmarkRunner(
  suites: [suite],
  settings: [Quiet(true), Format(.none), MinTime(seconds: seconds), WarmupIterations(5), MaxIterations(100_000)])
try runner.run()
let figures = zip(chosen, runner.results).map { workload, result in
  Figure(workload: workload, samples: result.measurements.map { $0 / Double(workload.count) }.sorted())
}
print(asJSON ? "[\(figures.map(\.json).joined(separator: ","))]" : figures.map(\.line).joined(separator: "\n"))
