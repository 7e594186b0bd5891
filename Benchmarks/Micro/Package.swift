// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that only who runs the benchmarks builds the library that times them.
let package = Package(
  name: "micro-benchmarks",
  dependencies: [
    .package(name: "engine", path: "../.."),
    .package(url: "https://github.com/google/swift-benchmark.git", from: "0.1.2"),
  ],
  targets: [
    .executableTarget(
      name: "engine-micro-benchmarks",
      dependencies: [
        .product(name: "BenchmarkWorkloads", package: "engine"),
        .product(name: "Benchmark", package: "swift-benchmark"),
      ])
  ],
  swiftLanguageModes: [.v6]
)
