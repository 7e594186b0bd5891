import Testing

@testable import LinuxSystem

@Suite("What the kernel's file systems know")
struct MountsTests {
  /// Linux 6.1 takes every option of overlay when it is named, and refuses `lowerdir+` only when it is mounted.
  @Test(
    arguments: [
      ("knows it", ["lowerdir+", "upperdir"], true), ("knows none", [], false), ("knows others", ["upperdir"], false),
    ] as [(String, Set<String>, Bool)])
  func anOptionIsKnown(kernel: String, options: Set<String>, expected: Bool) {
    #expect(Mounts.isKnown("lowerdir+", "/") { key, _ in options.contains(key) } == expected)
  }

  @Test func aKernelThatTakesEverythingKnowsNothing() {
    #expect(!Mounts.isKnown("lowerdir+", "/") { _, _ in true })
  }

  @Test func thisOneIsAsked() {
    #expect(!Mounts.knows("tmpfs", option: "lowerdir+", "/"))
    #expect(!Mounts.knows("no-file-system", option: "size", "4096"))
  }
}
