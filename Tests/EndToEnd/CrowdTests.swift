import Foundation
import Testing

extension EndToEnd {
  /// Many clients at once, and then nobody for a moment, again and again: what is made ahead, held back and given up in
  /// between is nobody's, or one container's.
  @Suite("Crowd", .timeLimit(.minutes(5)))
  struct CrowdTests {
    @Test func everyContainerHasItsOwn() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let engine = "\(Fixture.binaries)/engine --root \(fixture.root)"
      func all(_ count: Int, _ command: String) {
        let outcome = fixture.host(["sh", "-c", "seq \(count) | xargs -P16 -I{} \(engine) \(command)"])
        #expect(outcome.status == 0, "\(command): \(outcome)")
      }
      for round in 0..<3 {
        all(48, "run --rm bb true")
        all(16, "run --rm --network none bb true")
        all(32, "run -d --name crowd-\(round)-{} -p 80{}:80 bb sleep 1000")
        let names = (1...32).map { "crowd-\(round)-\($0)" }
        let format = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}} {{.Config.Hostname}}"
        let inspection = fixture.engine(["inspect", "--format", format] + names)
        #expect(inspection.status == 0, "\(inspection)")
        let lines = inspection.lines
        for column in 0..<3 {
          let values = Set(lines.map { $0.split(separator: " ")[column] })
          #expect(values.count == 32, "\(values)")
        }
        let removal = fixture.engine(["rm", "-f"] + names)
        #expect(removal.status == 0, "\(removal)")
        // Some rounds begin while what the last one left is being given up, and some after that.
        usleep(UInt32(450_000 + round * 100_000))
      }
      fixture.expectClean()
    }
  }
}
