import Contracts
import Testing

@Suite("Values")
struct ValueTests {
  @Test(arguments: [
    ("1970-01-01T00:00:00Z", Int64(0)), ("2026-02-28T23:59:59.5Z", 1_772_323_199_500_000_000),
    ("2000-02-29T12:00:00+02:00", 951_818_400_000_000_000), ("1969-12-31T23:59:59.999999999Z", -1),
  ])
  func readsTimes(text: String, nanoseconds: Int64) {
    #expect(Timestamp(text)?.nanoseconds == nanoseconds)
  }

  @Test func printsTimesAsTheyWereRead() {
    for text in [
      "1970-01-01T00:00:00Z", "2024-02-29T01:02:03.000000004Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59.9Z",
    ] {
      #expect(Timestamp(text)?.description == text)
    }
  }

  @Test(arguments: [
    "", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z", "x026-01-01T00:00:00Z",
  ])
  func refusesTimes(text: String) {
    #expect(Timestamp(text) == nil)
  }

  @Test func identifiersAreSixtyFourDigits() {
    let id = ObjectID.random()
    #expect(ObjectID(id.text) == id)
    #expect(id.short.count == 12)
    #expect(ObjectID("ABC") == nil)
    #expect(ObjectID(String(repeating: "g", count: 64)) == nil)
    #expect(Digest("sha256:" + id.text)?.hex == id.text)
    #expect(Digest("sha512:" + id.text) == nil)
  }

  @Test(arguments: [
    ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
    ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
    ("me/app", "docker.io/me/app:latest", "me/app:latest"),
    ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
    ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
    ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
    ("ghcr.io/o/r_x-y.z", "ghcr.io/o/r_x-y.z:latest", "ghcr.io/o/r_x-y.z:latest"),
    (
      "a@sha256:" + String(repeating: "0", count: 64),
      "docker.io/library/a@sha256:" + String(repeating: "0", count: 64),
      "a@sha256:" + String(repeating: "0", count: 64)
    ),
  ])
  func readsImageReferences(text: String, full: String, familiar: String) throws {
    let reference = try ImageReference(parsing: text)
    #expect(reference.description == full)
    #expect(reference.familiar == familiar)
  }

  @Test(arguments: [
    "", ":tag", "Nginx", "a//b", "a/", "/a", "a:", "a:b:c", "a@sha256:12", "a b", "-a", "a..b", "a___b", "a:-x", "ä",
    "localhost:99999/a",
  ])
  func refusesImageReferences(text: String) {
    #expect(throws: EngineError.self) { try ImageReference(parsing: text) }
  }
}
