import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@Suite(.enabled(if: Harness.isRoot, "needs root for overlay mounts"))
struct ImportTests {
  @Test(arguments: ["cat", "gzip", "zstd -q", "xz", "bzip2"])
  func importsEveryCompression(_ program: String) async throws {
    let harness = try await ImagesHarness()
    let path = "\(harness.base.root)/root.tar"
    try Files.replace(path, with: OverlayTests.base().finished, durable: false)
    try shell("\(program) < \(path) > \(path).c")
    let whole = try Files.read("\(path).c")
    // From a file, and from a pipe, which cannot be looked at twice.
    let fromFile = try await harness.importing(try memory(whole), "demo")
    let image = try await harness.resolve("demo")
    #expect(image.id == fromFile && image.references == ["demo:latest"] && image.layers.count == 1)
    let fromPipe = try await harness.importing(try pipeline(whole), "demo:two")
    #expect(try await harness.resolve("demo:two").layers == image.layers)
    #expect(try await harness.resolve(String(fromPipe.hex.prefix(8))).id == fromPipe)
    let root = try await harness.base.mount(.random(), image.layers)
    #expect(try text(root, "sh") == "tool")
    if program != "cat" {
      // Cut short at any place, one clear error, and nothing stays.
      for part in [whole.count / 3, whole.count - 5] {
        let before = harness.base.names(harness.base.layerDirectory)
        await #expect(throws: EngineError.self) {
          _ = try await harness.importing(try pipeline(Array(whole[..<part])), "cut")
        }
        #expect(harness.base.names(harness.base.layerDirectory) == before)
        #expect(harness.leftovers.isEmpty)
      }
    }
  }
}
