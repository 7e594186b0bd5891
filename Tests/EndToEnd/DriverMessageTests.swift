import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// Drivers of every role that fail at each of their messages: only whoever asked is told, and nobody else notices.
  @Suite struct DriverMessages {
    /// An engine with the example drivers behind proxies that can be told to fail, and a container on the built-in ones.
    struct World {
      let fixture: Fixture
      static let examples = ["vol": "volume-python", "net": "network-python", "lg": "log-socket"]

      init() throws {
        fixture = try Fixture()
        try fixture.importBusybox()
        let tables = Self.examples.sorted { $0.key < $1.key }.map { name, example in
          """
          [drivers.\(name)]
          command = ["\(DriverMatrix.checkout)/Tests/Drivers/faulty-proxy", "\(fixture.directory)/\(name)",
            "\(DriverMatrix.checkout)/Examples/drivers/\(example)"]
          deadline_seconds = 5

          """
        }
        try DriverMatrix.configure(fixture, tables.joined())
        fixture.succeed(
          "run", "-d", "--name", "good", "-v", "good:/data", "-p", "8080:80", "bb", "httpd", "-f", "-p", "80", "-h",
          "/data")
      }

      /// The driver's next request of this message meets a fault.
      func arm(_ driver: String, _ fault: String, _ message: String, _ word: String = "") throws {
        Fixture.eventually {
          fixture.succeed("plugin", "inspect", "-f", "{{.State}}", driver) == "running"
        }
        try "\(fault) \(message) \(word)".write(
          toFile: "\(fixture.directory)/\(driver)", atomically: true, encoding: .utf8)
      }

      /// The container on other drivers runs as before, and another one can be started.
      func expectOthersUnharmed(_ what: String) {
        #expect(fixture.fetch("http://127.0.0.1:8080/page").text == "from the image", "\(what)")
        let run = fixture.engine("run", "--rm", "-v", "good:/data", "bb", "cat", "/data/page")
        #expect(run.text == "from the image", "\(what): \(run)")
        #expect(fixture.succeed("inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "good") == "0 true", "\(what)")
      }

      func end() {
        for driver in Self.examples.keys { unlink("\(fixture.directory)/\(driver)") }
        Fixture.eventually { fixture.engine(["rm", "-f", "-v"] + fixture.engine("ps", "-aq").lines).status == 0 }
        fixture.end()
      }
    }

    @Test func crashesAtEachMessage() throws {
      let world = try World()
      defer { world.end() }
      let fixture = world.fixture
      let container = ["run", "--rm", "--name", "web"]
      // In the order of a life: what one step needs has been made by those before.
      let steps: [(driver: String, message: String, command: [String])] = [
        ("vol", "volume.driver.create", ["volume", "create", "-d", "vol", "data"]),
        ("vol", "volume.driver.mount", container + ["-v", "data:/data", "bb", "true"]),
        ("vol", "volume.driver.remove", ["volume", "rm", "data"]),
        ("net", "network.driver.create", ["network", "create", "-d", "net", "lab"]),
        ("net", "network.driver.attach", container + ["--network", "lab", "bb", "true"]),
        ("net", "network.driver.remove", ["network", "rm", "lab"]),
        ("lg", "log.open", container + ["--log-driver", "lg", "bb", "true"]),
      ]
      for (driver, message, command) in steps {
        try world.arm(driver, "crash", message)
        let outcome = fixture.engine(command)
        #expect(outcome.status != 0, "\(message): \(outcome)")
        #expect(
          outcome.errors.contains(
            "the driver \(driver) failed at \"\(message)\": it ended with exit status 7; it said: about to crash"),
          "\(message): \(outcome)")
        world.expectOthersUnharmed(message)
        #expect(fixture.succeed("ps", "-aq", "--filter", "name=web") == "", "\(message)")
        // It is back soon, and the same command succeeds.
        #expect(Fixture.eventually { fixture.engine(command).status == 0 }, "\(message)")
      }
      // Those that a container's end asks for.
      for (driver, message, options) in [
        ("vol", "volume.driver.unmount", ["--mount", "type=volume,src=other,dst=/data,volume-driver=vol"]),
        ("net", "network.driver.detach", ["--network", "net"]),
      ] {
        try world.arm(driver, "crash", message)
        let run = fixture.engine(["run", "--name", "web"] + options + ["bb", "echo", "done"])
        #expect(run.status == 0 && run.text == "done", "\(message): \(run)")
        world.expectOthersUnharmed(message)
        Fixture.eventually { fixture.engine("rm", "web").status == 0 }
        #expect(fixture.succeed("ps", "-aq", "--filter", "name=web") == "", "\(message)")
      }
      fixture.succeed("run", "--name", "web", "--log-driver", "lg", "bb", "echo", "line")
      for (message, command) in [("log.read", ["logs", "web"]), ("log.remove", ["rm", "web"])] {
        try world.arm("lg", "crash", message)
        let outcome = fixture.engine(command)
        #expect(outcome.status == 1, "\(message): \(outcome)")
        #expect(outcome.errors.contains("the driver lg failed at \"\(message)\""), "\(message): \(outcome)")
        world.expectOthersUnharmed(message)
        #expect(Fixture.eventually { fixture.engine(command).status == 0 }, "\(message)")
      }
      for (driver, restarts) in [("vol", 4), ("net", 4), ("lg", 3)] {
        #expect(fixture.succeed("plugin", "inspect", "-f", "{{.Restarts}}", driver) == "\(restarts)", "\(driver)")
      }
    }

    @Test func liesAndNonsense() throws {
      let world = try World()
      defer { world.end() }
      let fixture = world.fixture
      fixture.succeed("network", "create", "-d", "net", "lab")
      fixture.succeed("run", "-d", "--name", "first", "--network", "lab", "bb", "sleep", "1000")
      let taken = fixture.succeed(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "first")
      func run(_ options: String...) -> [String] { ["run", "--rm", "--name", "web"] + options + ["bb", "true"] }
      let mount = run("--mount", "type=volume,src=data,dst=/data,volume-driver=vol")
      let steps: [(driver: String, fault: String, message: String, word: String, command: [String], error: String)] = [
        (
          "net", "lie", "network.driver.attach", taken, run("--network", "lab"),
          "the driver \"net\" answered \"network.driver.attach\" with the address \(taken), which the container"
        ),
        (
          "net", "lie", "network.driver.attach", "here", run("--network", "lab"),
          "the driver \"net\" answered \"network.driver.attach\" with \"here\", which is no address"
        ),
        (
          "vol", "lie", "volume.driver.mount", "/nowhere", mount,
          "the driver \"vol\" answered \"volume.driver.mount\" for the volume data with the path /nowhere"
        ),
        (
          "vol", "wrong", "volume.driver.mount", "", mount,
          "the driver vol answered \"volume.driver.mount\" with what is no answer to it"
        ),
        (
          "net", "garbage", "network.driver.attach", "", run("--network", "lab"),
          "the driver net failed at \"network.driver.attach\": the bytes \"GET / HT\" are no frame"
        ),
        (
          "vol", "nojson", "volume.driver.mount", "", mount, "the driver vol failed at \"volume.driver.mount\""
        ),
        (
          "vol", "huge", "volume.driver.mount", "", mount,
          "the driver vol failed at \"volume.driver.mount\": a frame of 8388"
        ),
        (
          "lg", "flood", "log.open", "", run("--log-driver", "lg"),
          "the driver lg failed at \"log.open\": it sent 100 messages that answer nothing"
        ),
        (
          "net", "hang", "network.driver.attach", "", run("--network", "lab"),
          "the driver net did not answer \"network.driver.attach\" within 5.0 seconds"
        ),
      ]
      for (driver, fault, message, word, command, error) in steps {
        try world.arm(driver, fault, message, word)
        let outcome = fixture.engine(command)
        #expect(outcome.status == 125, "\(fault): \(outcome)")
        #expect(outcome.errors.contains(error), "\(fault): \(outcome)")
        world.expectOthersUnharmed("\(fault) at \(message)")
        #expect(fixture.succeed("exec", "first", "echo", "ok") == "ok", "\(fault)")
        #expect(fixture.succeed("ps", "-aq", "--filter", "name=web") == "", "\(fault)")
        #expect(Fixture.eventually { fixture.engine(command).status == 0 }, "\(fault) at \(message)")
      }
    }
  }
}
