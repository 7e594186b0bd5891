import CLinux
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

/// Prints what the steps cost; not a test, so it only runs when asked for: `ENGINE_MEASURE=1`, best in a release build.
@Suite(.enabled(if: getenv("ENGINE_MEASURE") != nil, "set ENGINE_MEASURE to measure"), .serialized)
struct Measurements {
  private func microseconds(_ body: () async throws -> Void) async throws -> Double {
    let clock = ContinuousClock()
    let time = try await clock.measure { try await body() }
    return Double(time.components.attoseconds) / 1e12 + Double(time.components.seconds) * 1e6
  }

  private func median(_ values: [Double]) -> String {
    let sorted = values.sorted()
    return "median \(Int(sorted[sorted.count / 2])) min \(Int(sorted[0])) p90 \(Int(sorted[sorted.count * 9 / 10])) us"
  }

  @Test(arguments: [1, 40], [UInt32(0), 30_000])
  func mount(_ count: Int, pause: UInt32) async throws {
    let harness = try await Harness()
    var layers: [Digest] = []
    for number in 0..<count {
      var tar = TarWriter()
      tar.add("n\(number)", text: "\(number)")
      layers.append(try await harness.apply(tar.finished, parent: layers.last).chainID)
    }
    let call = Call(bus: harness.bus)
    var mounts: [Double] = []
    var removals: [Double] = []
    for _ in 0..<(pause == 0 ? 1000 : 60) {
      if pause > 0 { usleep(pause) }
      let container = ObjectID.random()
      mounts.append(
        try await microseconds {
          _ = try await call.request(SnapshotMount(container: container, layers: layers, discardable: true))
        })
      removals.append(
        try await microseconds { _ = try await call.request(SnapshotRemove(container: container)) })
    }
    print("mount and close \(count) layers, pause \(pause) us: \(median(mounts)); remove: \(median(removals))")
  }

  @Test func unpack() async throws {
    let harness = try await ImagesHarness()
    let path = "\(harness.base.root)/big.tar"
    try shell(
      "tar -C /usr -cf \(path) --exclude=*.swiftmodule lib/x86_64-linux-gnu include share/perl 2>/dev/null; gzip -1 -k \(path)"
    )
    let size = try #require(status(path)).st_size
    for name in [path, "\(path).gz"] {
      for round in 0..<3 {
        let time = try await microseconds {
          let file = Descriptor(adopting: try Files.open(name, O_RDONLY).release())
          _ = try await harness.importing(file, "r\(round):x")
        }
        print("import \(name.suffix(3)) \(size >> 20) MiB: \(Int(time / 1000)) ms, \(Int(Double(size) / time)) MB/s")
        _ = try await harness.bus.request(ImageRemove(reference: "r\(round):x", force: false))
      }
    }
  }

  @Test func resolve() async throws {
    let harness = try await ImagesHarness()
    _ = try await harness.loading(try memory(try ArchiveBuilder.standard().bytes))
    let call = Call(bus: harness.bus)
    let request = ImageResolve(reference: "demo:one")
    let time = try await microseconds { for _ in 0..<100_000 { _ = try await call.request(request) } }
    print("resolve: \(time / 100_000) us")
  }

  @Test func removeDeep() async throws {
    let harness = try await Harness()
    let container = ObjectID.random()
    let root = try await harness.mount(container, [])
    var deep = OwnedDescriptor(adopting: dup(root.number))
    let making = try await microseconds {
      for _ in 0..<3000 {
        mkdirat(deep.number, "d", 0o700)
        deep = try Files.open(at: deep.number, "d", O_RDONLY | O_DIRECTORY)
      }
    }
    _ = try await harness.bus.request(SnapshotRemove(container: container))
    let removing = try await microseconds {
      try await waitUntil { harness.names("\(harness.state)/trash").isEmpty }
    }
    print("3000 levels: made in \(making) us, deleted in \(removing) us")
  }
}
