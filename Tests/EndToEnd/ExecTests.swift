import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// More commands in containers that run.
  @Suite struct Exec {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    @Test(arguments: [[], ["--privileged"]])
    func isInEveryCgroupOfItsContainer(flags: [String]) {
      defer { fixture.end() }
      _ = fixture.engine(
        ["run", "-d", "--name", "box", "-m", "64m", "--cpuset-cpus", "0"] + flags + ["bb", "sleep", "1000"])
      // Seen from the container's cgroup namespace, so that another group would show as a path with `..`.
      let own = fixture.succeed("exec", "box", "cat", "/proc/1/cgroup")
      #expect(own.contains(":memory:/") || own.contains("0::/"), "\(own)")
      #expect(fixture.succeed("exec", "box", "cat", "/proc/self/cgroup") == own)
      #expect(!own.contains(".."), "\(own)")
      let process = fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")
      let outside = fixture.host(["cat", "/proc/\(process)/cgroup"]).text
      #expect(outside.contains(fixture.succeed("inspect", "-f", "{{.Id}}", "box")), "\(outside)")
    }

    @Test func detachedGoesOnByItself() {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let exec = fixture.engine("exec", "-d", "box", "sh", "-c", "echo unseen; echo done >/tmp/x; exit 5")
      #expect(exec.status == 0 && exec.output.isEmpty && exec.errors.isEmpty, "\(exec)")
      #expect(Fixture.eventually { fixture.engine("exec", "box", "cat", "/tmp/x").text == "done" })
      #expect(fixture.engine("exec", "-d", "box", "absent").status == 127)
      let long = fixture.engine("exec", "-d", "box", "sleep", "2000")
      #expect(long.status == 0, "\(long)")
      #expect(fixture.succeed("exec", "box", "ps").contains("sleep 2000"))
      fixture.succeed("stop", "-t", "0", "box")
      let stopped = fixture.engine("exec", "box", "true")
      let id = fixture.succeed("inspect", "-f", "{{.Id}}", "box")
      #expect(
        stopped.status == 1 && stopped.errors.contains("container \(id) is not running"), "\(stopped)")
    }

    @Test func aClientThatTakesNothingLeavesNothingInTheShim() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      let process = fixture.succeed("inspect", "-f", "{{.State.Pid}}", "box")
      let status = try String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
      let shim = "/proc/\(status.split(separator: " ")[3])/fd"
      func descriptors() -> Int { (try? FileManager.default.contentsOfDirectory(atPath: shim))?.count ?? 0 }
      fixture.succeed("exec", "box", "true")
      let before = descriptors()
      // The command ends while what it wrote waits for a client that does not read.
      let unread = Pipe()
      let client = try BackgroundCommand(
        fixture, "exec", "box", "sh", "-c", "seq 1 100000 & sleep 0.2; exit 3", output: unread.fileHandleForWriting)
      #expect(client.status() == 3)
      #expect(descriptors() > before)
      try unread.fileHandleForReading.close()
      try unread.fileHandleForWriting.close()
      #expect(Fixture.eventually { descriptors() == before }, "\(descriptors()) instead of \(before)")
      // One that reads late gets everything.
      let late = Pipe()
      let other = try BackgroundCommand(
        fixture, "exec", "box", "sh", "-c", "seq 1 20000", output: late.fileHandleForWriting)
      usleep(300_000)
      try late.fileHandleForWriting.close()
      let text = String(decoding: late.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      #expect(text.hasSuffix("\n20000\n") && other.status() == 0)
      #expect(Fixture.eventually { descriptors() == before }, "\(descriptors()) instead of \(before)")
    }
  }
}
