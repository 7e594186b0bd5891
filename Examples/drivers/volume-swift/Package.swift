// swift-tools-version: 6.2
import PackageDescription

// A driver out of tree is a package of its own; it needs nothing of the engine but PluginKit.
let package = Package(
  name: "volume-swift",
  dependencies: [.package(name: "engine", path: "../../..")],
  targets: [
    .executableTarget(
      name: "volume-swift", dependencies: [.product(name: "PluginKit", package: "engine")],
      // The Linux calls are GNU extensions of the headers, and every module must see the same headers.
      swiftSettings: [.unsafeFlags(["-Xcc", "-D_GNU_SOURCE"])])
  ],
  swiftLanguageModes: [.v6]
)
