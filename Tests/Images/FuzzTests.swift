import ContentStreams
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing
import Wire

@testable import ImagesPlugin
@testable import OverlaySnapshotsPlugin

/// Changes good input at random places: the readers refuse or accept, and neither crash, hang nor write elsewhere. A
/// bounded run each time; `make fuzz` runs it longer and with another seed (`ENGINE_FUZZ_ROUNDS`, `ENGINE_FUZZ_SEED`).
@Suite struct FuzzTests {
  /// A generator whose numbers follow from its seed (SplitMix64), so that a failure can be had again.
  struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var word = state
      word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
      word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
      return word ^ (word >> 31)
    }
  }

  private static func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }
  static let seed = number("ENGINE_FUZZ_SEED") ?? 20_260_101
  static func rounds(_ usual: Int) -> Int { number("ENGINE_FUZZ_ROUNDS").map { Int($0) } ?? usual }

  /// Flips, inserts, removes, repeats and overwrites with what is interesting.
  static func mutate(_ input: [UInt8], _ generator: inout Generator, words: [[UInt8]]) -> [UInt8] {
    var bytes = input
    for _ in 0..<Int.random(in: 1...6, using: &generator) {
      guard !bytes.isEmpty else { return bytes }
      let place = Int.random(in: 0..<bytes.count, using: &generator)
      switch Int.random(in: 0..<6, using: &generator) {
      case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
      case 1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      case 2: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...64, using: &generator)))
      case 3: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 32)], at: place)
      case 4: bytes.removeLast(min(bytes.count, Int.random(in: 1...512, using: &generator)))
      default:
        guard let word = words.randomElement(using: &generator) else { continue }
        for (index, byte) in word.enumerated() where place + index < bytes.count { bytes[place + index] = byte }
      }
    }
    return bytes
  }

  private static func words(_ texts: String...) -> [[UInt8]] { texts.map { Array($0.utf8) } }

  @Test func references() {
    var generator = Generator(state: Self.seed)
    let good = [
      "nginx", "docker.io/library/nginx:1.25", "localhost:5000/a/b__c/d-e.f:v1",
      "reg.example:443/x@sha256:\(String(repeating: "a", count: 64))",
    ]
    for round in 0..<Self.rounds(20_000) {
      let bytes = Self.mutate(
        Array(good[round % good.count].utf8), &generator, words: Self.words("..", "//", ":", "@", "é", "A", "%00"))
      let text = String(decoding: bytes, as: UTF8.self)
      guard let reference = try? ImageReference(parsing: text) else { continue }
      // What is accepted reads back as the same, and is a safe path.
      let again = try? ImageReference(parsing: reference.description)
      #expect(again == reference, "\(text) of seed \(Self.seed)")
      let parts = reference.repository.split(separator: "/", omittingEmptySubsequences: false)
      #expect(parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }, "\(text)")
    }
  }

  @Test func manifests() {
    var generator = Generator(state: Self.seed)
    let digest = "sha256:\(String(repeating: "b", count: 64))"
    let descriptor = "{\"mediaType\":\"\(MediaType.ociLayer)\",\"digest\":\"\(digest)\",\"size\":7}"
    let good = [
      "{\"schemaVersion\":2,\"mediaType\":\"\(MediaType.ociManifest)\",\"config\":\(descriptor),\"layers\":[\(descriptor)]}",
      "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"\(digest)\",\"size\":7,"
        + "\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}}]}",
      "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"\(digest)\"]}}",
    ]
    let words = Self.words("[[[[[[[[", "-1", "1e999", "9223372036854775808", "null", "\\u0000", "{}", "\"", "\u{FF}")
    for round in 0..<Self.rounds(20_000) {
      let bytes = Self.mutate(Array(good[round % good.count].utf8), &generator, words: words)
      if let document = try? ManifestReader.document(bytes, mediaType: nil, subject: "it") {
        if case .index(let index) = document { _ = index.candidates(for: ManifestReader.host) }
        if case .manifest(let manifest) = document {
          #expect(manifest.config.size >= 0 && manifest.layers.allSatisfy { $0.size >= 0 })
        }
      }
      if let configuration = try? ManifestReader.configuration(bytes, subject: "it") {
        _ = try? LayerPlan.list(configuration, [])
      }
    }
  }

  @Test(.enabled(if: Harness.isRoot, "needs root for layers")) func archives() async throws {
    var generator = Generator(state: Self.seed)
    let harness = try await Harness()
    let guardFile = "\(harness.root)/outside"
    try Files.replace(guardFile, with: Array("untouched".utf8), durable: false)
    var tar = OverlayTests.base()
    tar.add("etc/.wh.gone")
    tar.add("x", attributes: ["user.a": [1, 2, 3]])
    tar.add("dev", type: "3", device: (1, 3))
    let good = [tar.finished, try compress(tar.finished, "gzip"), try compress(tar.finished, "zstd -q")]
    let words = Self.words(
      "../../outside", "/outside", "..", "\u{0}", "777777777777", "00000000000", "5", "2", "1", "x", "L", "g")
    for round in 0..<Self.rounds(600) {
      let bytes = Self.mutate(good[round % good.count], &generator, words: words)
      let stream = try pipeline(bytes)
      // As a pull does: uncompressed on one side, unpacked on the other.
      let ends = try Pipes.make()
      var writing = ends.writing
      Pipes.makeNonBlocking(&writing)
      let pump = LayerPump(
        inputs: [stream], kept: nil, total: nil, limit: 1 << 24, subject: "the layer", interruption: try Interruption())
      let end = writing
      let pumped = Task(executorPreference: harness.bus.executor) {
        await attempt { () async throws(EngineError) in try pump.run(output: OwnedDescriptor(adopting: end)) }
      }
      let applied = await attempt { () async throws(EngineError) in
        try await harness.bus.request(
          SnapshotApply(parent: nil, differenceID: nil, archive: Descriptor(adopting: ends.reading)))
      }
      _ = await pumped.value
      if case .success(let layer) = applied {
        _ = try await harness.bus.request(SnapshotRemoveLayers(chainIDs: [layer.chainID]))
      }
      #expect(harness.names(harness.layerDirectory).isEmpty, "round \(round) of seed \(Self.seed)")
    }
    #expect(try Files.readText(guardFile) == "untouched")
    #expect(harness.names(harness.root) == ["outside", "run", "snapshots-overlay"])
  }
}
