import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Drivers that fail, and an engine that dies while it asks one.
  @Suite struct DriverFaults {
    /// The engine dies at each step of attaching to somebody else's network; its successor deletes what there may be.
    @Test(.enabled(if: access("/usr/lib/cni/bridge", X_OK) == 0, "needs containernetworking-plugins"))
    func deathsOnCNINetworks() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let directory = fixture.directory
      try DriverMatrix.writeList(fixture, "theirs", subnet: 7)
      let configuration = "[plugins.network-cni]\nconfiguration_directories = [\"\(directory)/cni\"]\n"
      try DriverMatrix.configure(fixture, configuration)
      for point in ["network-cni.attach.recorded", "network-cni.attach.added", "network-cni.detach.deleted"] {
        #expect(fixture.engine("system", "shutdown").status == 0)
        let environment = ["ENGINE_FAULT": point]
        let run = fixture.engine(
          ["run", "-d", "--name", "web", "--network", "cni", "bb", "sleep", "1000"], environment: environment)
        let removal = fixture.engine(["rm", "-f", "web"], environment: environment)
        #expect(run.status != 0 || removal.status != 0, "\(point) was not reached")
        for daemon in fixture.processes(named: "engined") { kill(daemon, SIGKILL) }
        Fixture.eventually { fixture.processes(named: "engined").isEmpty }
        _ = fixture.engine("rm", "-f", "web")
        fixture.expectClean()
        let leases = try FileManager.default.contentsOfDirectory(atPath: "\(directory)/leases/theirs")
        #expect(!leases.contains { $0.hasPrefix("10.") }, "\(point): \(leases)")
        let links = fixture.host(["ip", "-o", "link"]).output
        #expect(!links.contains("veth"), "\(point): \(links)")
      }
    }

    /// Broken drivers beside good ones: each harms only the container that asked, and says so.
    @Test func faultyDrivers() throws {
      let fixture = try Fixture()
      defer { fixture.end() }
      try fixture.importBusybox()
      let faulty = "\(DriverMatrix.checkout)/Tests/Drivers/faulty-volume"
      func table(_ name: String, _ arguments: String...) -> String {
        let words = ([faulty] + arguments).map { "\"\($0)\"" }.joined(separator: ", ")
        return "[drivers.\(name)]\ncommand = [\(words)]\ndeadline_seconds = 2\n"
      }
      try DriverMatrix.configure(
        fixture,
        table("liar", "lie", "volume.driver.mount") + table("dead", "exit")
          + table("crasher", "crash", "volume.driver.mount") + table("hanger", "hang", "volume.driver.mount")
          + table("flooder", "flood", "volume.driver.mount") + table("good"))
      let expected = [
        "liar":
          "the driver \"liar\" answered \"volume.driver.mount\" for the volume data with the path /nowhere/at/all",
        "crasher":
          "the driver crasher failed at \"volume.driver.mount\": it ended with exit status 7; it said: about to crash",
        "hanger": "the driver hanger did not answer \"volume.driver.mount\" within 2.0 seconds",
        "flooder": "the driver flooder failed at \"volume.driver.mount\": it sent 100 messages",
      ]
      for (driver, words) in expected.sorted(by: { $0.key < $1.key }) {
        let outcome = fixture.engine(
          "run", "--rm", "--mount", "type=volume,src=data,dst=/data,volume-driver=\(driver)", "bb", "true")
        #expect(outcome.status == 125, "\(driver): \(outcome)")
        #expect(outcome.errors.contains(words), "\(driver): \(outcome)")
        #expect(
          fixture.succeed(
            "run", "--rm", "--mount", "type=volume,src=fine,dst=/data,volume-driver=good", "bb", "echo", "ok")
            == "ok")
        // It may be on its way back from what it did.
        Fixture.eventually { fixture.engine("volume", "rm", "-f", "data").status == 0 }
      }
      let listing = fixture.succeed("plugin", "ls", "--format", "{{.Name}} {{.Restarts}} {{.State}}")
      #expect(listing.contains("good 0 running"), "\(listing)")
      #expect(listing.contains("failed: it ended with exit status 3; it said: no such luck"), "\(listing)")
      let inspected = fixture.succeed(
        "plugin", "inspect", "-f", "{{range .Messages}}{{.Message}}={{.Count}}/{{.Failures}} {{end}}", "liar")
      #expect(inspected.contains("volume.driver.mount=1/0"), "\(inspected)")
      let dead = fixture.engine("volume", "create", "--driver", "dead", "data")
      #expect(dead.status == 1, "\(dead)")
      #expect(dead.errors.contains("plugin \"dead\" not found (it ended with exit status 3; it said"), "\(dead)")
      fixture.succeed("volume", "rm", "fine")
      #expect(fixture.succeed("ps", "-aq") == "")
    }
  }
}
