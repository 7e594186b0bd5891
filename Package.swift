// swift-tools-version: 6.2
import PackageDescription

// One target per module, so that the compiler enforces the import rule:
// Contracts <- Wire <- Kernel <- every plugin <- Composition <- engined. A plugin never names another plugin here.
// The list `plugins` is the composition root: a folder below Plugins and its line there are all that a plugin needs.

/// Modules that the CLI and the shim link must start in well under a millisecond, so these two are static
/// executables and nothing below them may import Foundation.
///
/// A linker that maps its output leaves it in the page cache in single pages; one that writes it leaves it in large
/// folios, which a new process maps and gives back in a fraction of the time.
let staticExecutable: [LinkerSetting] = [
  .unsafeFlags(["-static-executable", "-Xlinker", "--no-mmap-output-file"])
]

/// The daemon needs no Swift where it runs, and what it does not use of the libraries takes no memory. Its C libraries
/// stay shared, because security updates come to them.
let staticLibraries: [LinkerSetting] = [
  .unsafeFlags(
    ["-static-stdlib"]
      + ["_FoundationCShims", "_FoundationCollections", "_FoundationICU", "CoreFoundation"].map { "-l\($0)" },
    .when(configuration: .release))
]

let cModules: [Target] = [
  .target(name: "CLinux", path: "Sources/CLinux"),
  .systemLibrary(
    name: "CNetlink", path: "Sources/CNetlink", pkgConfig: "libnl-route-3.0",
    providers: [.apt(["libnl-3-dev", "libnl-route-3-dev"])]),
  .systemLibrary(
    name: "CNftables", path: "Sources/CNftables", pkgConfig: "libnftnl",
    providers: [.apt(["libmnl-dev", "libnftnl-dev"])]),
  .systemLibrary(
    name: "CSeccomp", path: "Sources/CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
  .systemLibrary(
    name: "CArchive", path: "Sources/CArchive", pkgConfig: "libarchive", providers: [.apt(["libarchive-dev"])]),
  .systemLibrary(name: "CIsal", path: "Sources/CIsal", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
  .systemLibrary(name: "CZstd", path: "Sources/CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
  .systemLibrary(
    name: "CSQLite", path: "Sources/CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
  .systemLibrary(
    name: "CCrypto", path: "Sources/CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
]

let core: [Target] = [
  .target(name: "Contracts"),
  .target(name: "LinuxSystem", dependencies: ["CLinux"]),
  .target(name: "Wire", dependencies: ["Contracts", "LinuxSystem"]),
  .target(
    name: "Kernel",
    dependencies: ["Contracts", "Wire", "LinuxSystem", .product(name: "Logging", package: "swift-log")]),
  // What a driver out of tree links, and what examines drivers.
  .target(name: "PluginKit", dependencies: ["Contracts", "Wire", "LinuxSystem", "CLinux"]),
  .target(name: "ShimProtocol", dependencies: ["LinuxSystem"]),
  .target(
    name: "ContentStreams",
    dependencies: ["Contracts", "LinuxSystem", "CLinux", "CArchive", "CCrypto", "CIsal", "CZstd"]),
  .target(name: "ShimCore", dependencies: ["ShimProtocol", "LinuxSystem", "CLinux"]),
  .target(name: "EngineCLI", dependencies: ["Contracts", "Wire", "LinuxSystem"]),
  .executableTarget(name: "engine", dependencies: ["EngineCLI"], linkerSettings: staticExecutable),
  .executableTarget(name: "engine-shim", dependencies: ["ShimCore"], linkerSettings: staticExecutable),
]

/// A built-in plugin: its module, which has a class of the same name that is the plugin; its folder below `Plugins`; and
/// what it links beyond the kernel and the contracts.
func plugin(_ name: String, _ folder: String, _ libraries: [Target.Dependency] = []) -> Target {
  .target(
    name: name, dependencies: ["Contracts", "Wire", "Kernel", "LinuxSystem", "CLinux"] + libraries,
    path: "Plugins/\(folder)")
}

/// The composition root: every built-in plugin. They are started in this order where their dependencies leave it open.
let plugins: [Target] = [
  plugin("SQLiteRecordsPlugin", "Records/SQLite", ["CSQLite"]),
  plugin("JSONFileLogsPlugin", "Logs/JSONFile"),
  plugin("OverlaySnapshotsPlugin", "Snapshots/Overlay", ["ContentStreams", "CArchive"]),
  plugin(
    "RegistryPlugin", "Registry",
    [
      "ContentStreams", .product(name: "AsyncHTTPClient", package: "async-http-client"),
      .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
      .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
    ]),
  plugin("ImagesPlugin", "Images", ["ContentStreams", "CArchive"]),
  plugin("CgroupsPlugin", "Resources/Cgroups"),
  plugin("LinuxRuntimePlugin", "Runtime/Linux", ["ShimProtocol", "CSeccomp"]),
  plugin("BridgeNetworkPlugin", "Networks/Bridge", ["CNetlink", "CNftables"]),
  plugin("HostNetworkPlugin", "Networks/Host"),
  plugin("NoneNetworkPlugin", "Networks/None"),
  plugin("CNINetworkPlugin", "Networks/CNI"),
  plugin("NetworkCatalogPlugin", "Networks/Catalog"),
  plugin("LocalVolumePlugin", "Volumes/Local"),
  plugin("BindVolumePlugin", "Volumes/Bind"),
  plugin("TmpfsVolumePlugin", "Volumes/Tmpfs"),
  plugin("DockerVolumePlugin", "Volumes/Docker"),
  plugin("VolumeCatalogPlugin", "Volumes/Catalog"),
  plugin("ContainersPlugin", "Containers"),
  plugin("SystemPlugin", "System"),
]

/// Tells the daemon, and the tests, what is in the list. (A build-tool plugin could write that as Swift; but SwiftPM waits
/// now and then for ever for such a plugin's process to end.)
let composition: [Target] = [
  .target(
    name: "CComposition", path: "Sources/CComposition",
    cSettings: [
      .define(
        "BUILT_IN_MODULES", to: plugins.map { "MODULE(\($0.name), \($0.name.utf8.count))" }.joined(separator: " "))
    ]),
  .target(
    name: "Composition",
    dependencies: ["CComposition", "Contracts", "Kernel"] + plugins.map { .target(name: $0.name) }),
]

let host: [Target] = [
  .target(
    name: "EngineConfiguration",
    dependencies: ["Contracts", "Kernel", "LinuxSystem", .product(name: "TOMLKit", package: "TOMLKit")]),
  .executableTarget(
    name: "engined",
    dependencies: [
      "Composition", "Contracts", "Wire", "Kernel", "EngineConfiguration", "PluginKit", "LinuxSystem", "CLinux",
    ],
    linkerSettings: staticLibraries),
]

/// Also a package of its own; here so that the tests have it.
let examples: [Target] = [
  .executableTarget(
    name: "example-volume-swift", dependencies: ["PluginKit", "LinuxSystem"],
    path: "Examples/drivers/volume-swift/Sources/volume-swift")
]

let benchmarks: [Target] = [
  // What all benchmarks share: charts, pages, statistics, and the raw system calls.
  .target(
    name: "BenchmarkSupport", dependencies: ["CLinux", "CNetlink", "LinuxSystem"], path: "Benchmarks/Support"),
  .target(
    name: "EngineBench",
    dependencies: [
      "BenchmarkSupport", "EngineCLI", "Contracts", "Wire", "Kernel", "LinuxSystem", "CLinux", "ShimCore",
      "BridgeNetworkPlugin", "NetworkCatalogPlugin", "CgroupsPlugin", "OverlaySnapshotsPlugin", "LinuxRuntimePlugin",
    ]),
  // What `engine bench` becomes: it links the drivers that it measures, which the CLI must not.
  .executableTarget(name: "engine-bench", dependencies: ["EngineBench"], linkerSettings: staticLibraries),
  .target(
    name: "EndToEndBenchmarks", dependencies: ["BenchmarkSupport", "CLinux", "Contracts", "Wire"],
    path: "Benchmarks/EndToEnd"),
  .executableTarget(name: "engine-benchmarks", dependencies: ["EndToEndBenchmarks"], path: "Benchmarks/Program"),
  // What the micro benchmarks time; the library that times it is paid for by Benchmarks/Micro, a package of its own.
  .target(
    name: "BenchmarkWorkloads",
    dependencies: [
      "Contracts", "Wire", "Kernel", "LinuxSystem", "CLinux", "CArchive", "ContentStreams", "BridgeNetworkPlugin",
    ], path: "Benchmarks/Workloads"),
]

/// A test target beside what it tests; EndToEnd drives the built binaries and links none of them.
func tests(_ name: String, _ folder: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, path: "Tests/\(folder)")
}

let testTargets: [Target] = [
  tests("ContractsTests", "Contracts", ["Contracts"]),
  tests("WireTests", "Wire", ["Wire", "Contracts", "LinuxSystem"]),
  tests("KernelTests", "Kernel", ["Kernel", "Wire", "Contracts", "LinuxSystem"]),
  tests("ConfigurationTests", "Configuration", ["EngineConfiguration", "Kernel", "Contracts", "LinuxSystem"]),
  // The conformance kits examine every driver there is.
  tests(
    "PluginKitTests", "PluginKit",
    ["PluginKit", "Kernel", "Wire", "Contracts", "LinuxSystem", "CLinux", "Composition", "CNINetworkPlugin"]),
  tests("EngineCLITests", "EngineCLI", ["EngineCLI", "Contracts"]),
  tests(
    "ShimTests", "Shim",
    ["ShimProtocol", "ShimCore", "LinuxRuntimePlugin", "Kernel", "Contracts", "LinuxSystem", "CLinux"]),
  tests(
    "ImagesTests", "Images",
    [
      "ImagesPlugin", "OverlaySnapshotsPlugin", "ContentStreams", "Kernel", "Contracts", "Wire", "LinuxSystem",
      "CLinux",
    ]),
  tests(
    "NetworksTests", "Networks",
    [
      "BridgeNetworkPlugin", "NetworkCatalogPlugin", "HostNetworkPlugin", "NoneNetworkPlugin", "SQLiteRecordsPlugin",
      "Kernel", "Contracts", "LinuxSystem",
    ]),
  tests(
    "RegistryTests", "Registry", ["RegistryPlugin", "ContentStreams", "Kernel", "Contracts", "Wire", "LinuxSystem"]),
  tests("JSONFileLogsTests", "Logs", ["JSONFileLogsPlugin", "Kernel", "Contracts", "LinuxSystem"]),
  tests(
    "VolumesTests", "Volumes",
    [
      "VolumeCatalogPlugin", "LocalVolumePlugin", "BindVolumePlugin", "TmpfsVolumePlugin", "DockerVolumePlugin",
      "Kernel",
      "Contracts", "LinuxSystem",
    ]),
  tests("CgroupsTests", "Resources", ["CgroupsPlugin", "Kernel", "Contracts", "LinuxSystem"]),
  tests(
    "ContainersTests", "Containers",
    ["ContainersPlugin", "SQLiteRecordsPlugin", "Kernel", "Contracts", "Wire", "LinuxSystem"]),
  tests("EngineBenchTests", "EngineBench", ["EngineBench", "BenchmarkSupport", "Contracts", "LinuxSystem"]),
  tests(
    "BenchmarksTests", "Benchmarks",
    ["BenchmarkSupport", "BenchmarkWorkloads", "EndToEndBenchmarks", "Contracts", "Wire", "LinuxSystem"]),
  tests("EndToEndTests", "EndToEnd", ["Contracts", "LinuxSystem", "CLinux"]),
]

// The Linux calls are GNU extensions of glibc's headers, and every module must see the same headers.
let everything = cModules + core + plugins + composition + host + examples + benchmarks + testTargets
for target in everything where target.type != .system && target.name != "CLinux" {
  target.swiftSettings = [.unsafeFlags(["-Xcc", "-D_GNU_SOURCE"])]
}

/// What the CLI and the shim are made of. It stays free of the regular expressions that every module would import
/// unasked, which are half of what the linker would take; and its generic types are made from what the compiler knows of
/// them, where finding them by name would search all conformances of the program at the first use of each.
let startsFast: Set<String> = [
  "Contracts", "LinuxSystem", "Wire", "EngineCLI", "engine", "ShimProtocol", "ShimCore", "engine-shim",
]
for target in everything where startsFast.contains(target.name) {
  target.swiftSettings?.append(
    .unsafeFlags([
      "-Xfrontend", "-disable-implicit-string-processing-module-import",
      "-Xfrontend", "-disable-concrete-type-metadata-mangled-name-accessors",
    ]))
}

let package = Package(
  name: "engine",
  products: [
    .executable(name: "engine", targets: ["engine"]),
    .executable(name: "engined", targets: ["engined"]),
    .executable(name: "engine-shim", targets: ["engine-shim"]),
    .executable(name: "engine-bench", targets: ["engine-bench"]),
    .executable(name: "example-volume-swift", targets: ["example-volume-swift"]),
    .library(name: "PluginKit", targets: ["PluginKit"]),
    .library(name: "BenchmarkWorkloads", targets: ["BenchmarkWorkloads"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
    .package(url: "https://github.com/LebJe/TOMLKit.git", from: "0.6.0"),
    .package(url: "https://github.com/swift-server/async-http-client.git", from: "1.37.0"),
    .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.6"),
  ],
  targets: everything,
  swiftLanguageModes: [.v6]
)
