import Contracts
import Foundation
import Testing

@Suite struct ManifestTests {
  static let digest = "sha256:\(String(repeating: "c", count: 64))"

  private func document(_ text: String, _ type: String? = nil) throws -> ManifestDocument {
    try JSONDecoder().decode(ManifestEnvelope.self, from: Data(text.utf8)).document(mediaType: type, subject: "it")
  }

  private static func blob(_ type: String) -> String {
    "{\"mediaType\":\"\(type)\",\"digest\":\"\(digest)\",\"size\":3}"
  }

  @Test(arguments: [
    (MediaType.ociManifest, MediaType.ociConfiguration), (MediaType.dockerManifest, MediaType.dockerConfiguration),
  ])
  func readsManifestsOfBothKinds(_ type: String, configuration: String) throws {
    for (said, written) in [(type, true), (nil, true), (type, false)] {
      let member = written ? "\"mediaType\":\"\(type)\"," : ""
      let text =
        "{\"schemaVersion\":2,\(member)\"config\":\(Self.blob(configuration)),\"layers\":[\(Self.blob("x"))]}"
      guard case .manifest(let manifest) = try document(text, said) else {
        Issue.record("not a manifest")
        return
      }
      #expect(manifest.mediaType == type && manifest.layers.count == 1 && manifest.config.size == 3)
    }
  }

  @Test(arguments: [
    ("{\"schemaVersion\":1,\"fsLayers\":[]}", EngineError.Code.unsupported, "schema 1"),
    ("{\"schemaVersion\":7,\"manifests\":[]}", .unsupported, "the unknown schema version 7"),
    ("{\"schemaVersion\":2}", .invalidArgument, "neither a manifest nor an index"),
    (
      "{\"manifests\":[],\"config\":{\"digest\":\"\(digest)\",\"size\":1}}", .invalidArgument,
      "a manifest and an index at once"
    ),
    ("{\"mediaType\":\"\(MediaType.ociManifest)\",\"manifests\":[]}", .invalidArgument, "says that it is a manifest"),
    ("{\"manifests\":[{\"digest\":\"\(digest)\",\"size\":-1}]}", .invalidArgument, "negative size"),
    (
      "{\"config\":{\"mediaType\":\"application/x\",\"digest\":\"\(digest)\",\"size\":1},\"layers\":[]}", .unsupported,
      "is not an image"
    ),
  ])
  func refuses(_ text: String, code: EngineError.Code, words: String) {
    let error = #expect(throws: EngineError.self) { try document(text) }
    #expect(error?.code == code && error?.message.contains(words) == true, "\(String(describing: error))")
  }

  @Test(arguments: [
    ("linux/amd64", "linux/amd64"), ("amd64", "linux/amd64"), ("x86_64", "linux/amd64"), ("linux", "linux/amd64"),
    ("LINUX/ARM64/V8", "linux/arm64"), ("aarch64", "linux/arm64"), ("arm", "linux/arm/v7"), ("armhf", "linux/arm/v7"),
    ("linux/arm/v6", "linux/arm/v6"), ("arm/v5", "linux/arm/v5"), ("i386", "linux/386"),
    ("windows/amd64", "windows/amd64"),
  ])
  func readsPlatforms(_ text: String, expected: String) throws {
    let host = ImagePlatform(os: "linux", architecture: "amd64")
    #expect(try ImagePlatform(parsing: text, host: host).description == expected)
  }

  @Test(arguments: ["", "a/b/c/d", "linux//amd64", "no such", "nothing", "linux/am d"])
  func refusesPlatforms(_ text: String) {
    let host = ImagePlatform(os: "linux", architecture: "amd64")
    #expect(throws: EngineError.self) { try ImagePlatform(parsing: text, host: host) }
  }

  @Test(arguments: [
    ("linux/amd64", ["linux/amd64", "linux/386"]),
    ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
    ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
    ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
    ("linux/s390x", ["linux/s390x"]),
  ])
  func knowsWhatRuns(_ text: String, expected: [String]) throws {
    let host = ImagePlatform(os: "linux", architecture: "amd64")
    #expect(try ImagePlatform(parsing: text, host: host).runnable.map(\.description) == expected)
  }
}
