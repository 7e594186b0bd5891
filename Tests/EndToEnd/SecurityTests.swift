import Foundation
import Testing

extension EndToEnd {
  /// What `--security-opt` and `--privileged` take from a container and give it, seen from inside.
  @Suite struct Security {
    let fixture: Fixture

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
    }

    private func write(_ name: String, _ text: String) throws -> String {
      let path = "\(fixture.directory)/\(name).json"
      try text.write(toFile: path, atomically: true, encoding: .utf8)
      return path
    }

    @Test func aSeccompProfileOfOnesOwn() throws {
      defer { fixture.end() }
      let profile = try write(
        "strict",
        """
        {
          "defaultAction": "SCMP_ACT_ALLOW",
          "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
          "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}}
          ]
        }
        """.replacingOccurrences(of: "\"SCMP_ARCH_X86_64\", \"SCMP_ARCH_AARCH64\"", with: Self.native))
      let option = "seccomp=\(profile)"
      let mkdir = fixture.engine("run", "--rm", "--security-opt", option, "bb", "mkdir", "/x")
      #expect(mkdir.status == 1 && mkdir.errors.contains("No space left on device"), "\(mkdir)")
      let chmod = fixture.engine("run", "--rm", "--security-opt", option, "bb", "chmod", "700", "/tmp")
      #expect(chmod.status == 1 && chmod.errors.contains("Operation not permitted"), "\(chmod)")
      let without = fixture.engine(
        "run", "--rm", "--security-opt", option, "--cap-drop", "CHOWN", "bb", "chmod", "700", "/tmp")
      #expect(without.status == 0, "\(without)")
      // A command in the container is held to the same; inspect shows the profile that was sent.
      fixture.succeed("run", "-d", "--name", "box", "--security-opt", option, "bb", "sleep", "1000")
      let exec = fixture.engine("exec", "box", "mkdir", "/x")
      #expect(exec.status == 1 && exec.errors.contains("No space left on device"), "\(exec)")
      let shown = fixture.succeed("inspect", "-f", "{{index .HostConfig.SecurityOpt 0}}", "box")
      #expect(shown.hasPrefix(#"seccomp={"defaultAction":"SCMP_ACT_ALLOW","#), "\(shown)")
      // It is the container's own copy.
      try FileManager.default.removeItem(atPath: profile)
      fixture.succeed("stop", "-t", "0", "box")
      fixture.succeed("start", "box")
      let open = fixture.engine(
        "run", "--rm", "--security-opt", "seccomp=unconfined", "bb", "grep", "Seccomp:", "/proc/self/status")
      #expect(open.text == "Seccomp:\t0", "\(open)")
    }

    #if arch(arm64)
      private static let native = "\"SCMP_ARCH_AARCH64\""
    #else
      private static let native = "\"SCMP_ARCH_X86_64\""
    #endif

    @Test func aBadSeccompProfileNamesThePlace() throws {
      defer { fixture.end() }
      let table = [
        (#"{"defaultAction": "SCMP_ACT_ALLOW""#, "compacting json for seccomp profile"),
        (#"{"defaultAction": "SCMP_ACT_WHATEVER"}"#, "defaultAction: \"SCMP_ACT_WHATEVER\" is not an action"),
        (
          #"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "Y"}]}"#,
          "syscalls[0].action: \"Y\" is not an action"
        ),
      ]
      for (index, (text, words)) in table.enumerated() {
        let path = try write("bad\(index)", text)
        let run = fixture.engine("run", "--rm", "--security-opt", "seccomp=\(path)", "bb", "true")
        #expect(run.status == 125 && run.errors.contains(words), "\(run)")
        #expect(run.errors.split(separator: "\n").count == 2, "\(run)")
      }
      let absent = fixture.engine("run", "--rm", "--security-opt", "seccomp=/absent.json", "bb", "true")
      #expect(
        absent.status == 125 && absent.errors.contains("opening seccomp profile (/absent.json) failed"), "\(absent)")
      #expect(fixture.succeed("ps", "-aq").isEmpty)
    }

    @Test func privilegedLiftsEverything() throws {
      defer { fixture.end() }
      fixture.succeed("run", "-d", "--name", "big", "--privileged", "bb", "sleep", "1000")
      fixture.succeed("run", "-d", "--name", "box", "bb", "sleep", "1000")
      func inside(_ name: String, _ line: String) -> Outcome { fixture.engine("exec", name, "sh", "-c", line) }
      let bounding = fixture.host(["grep", "CapBnd", "/proc/self/status"]).text.dropFirst(8)
      let status = inside("big", "cat /proc/1/status").text
      #expect(status.contains("CapEff:\t\(bounding)\n") && status.contains("CapBnd:\t\(bounding)\n"), "\(status)")
      #expect(status.contains("Seccomp:\t0\n"), "\(status)")
      // Nothing is masked or read-only.
      let covers = inside("big", "grep -E ' (/proc/[a-z]|/sys/firmware)' /proc/self/mountinfo")
      #expect(covers.output.isEmpty, "\(covers)")
      #expect(inside("box", "grep -E ' (/proc/[a-z]|/sys/firmware)' /proc/self/mountinfo").output.isEmpty == false)
      for path in ["/sys", "/proc"] {
        let mount = inside("big", "grep ' \(path) ' /proc/self/mountinfo").text
        #expect(mount.contains(" \(path) rw,"), "\(mount)")
      }
      #expect(inside("box", "grep ' /sys ' /proc/self/mountinfo").text.contains(" /sys ro,"))
      let group =
        "d=/sys/fs/cgroup; for c in memory unified; do test -d $d/$c && d=$d/$c && break; done; mkdir $d/x && rmdir $d/x"
      #expect(inside("big", group).status == 0, "\(inside("big", group))")
      #expect(inside("box", group).status != 0)
      // Every device of the host, and they open.
      let list = "find /dev -xdev \\( -type c -o -type b \\) | sort"
      let own = Set(fixture.host(["sh", "-c", list]).lines)
      let given = Set(inside("big", list).lines)
      #expect(own.subtracting(given).subtracting(["/dev/console", "/dev/ptmx"]).isEmpty, "\(own.subtracting(given))")
      #expect(inside("box", list).lines.count < 10)
      let open = "mknod /tmp/kmsg c 1 11 && : </tmp/kmsg"
      #expect(inside("big", open).status == 0, "\(inside("big", open))")
      let refused = inside("box", open)
      #expect(refused.status != 0 && refused.errors.contains("Operation not permitted"), "\(refused)")
      // A command may have what its container has not.
      let command = fixture.engine("exec", "--privileged", "box", "cat", "/proc/self/status").text
      #expect(command.contains("CapEff:\t\(bounding)\n") && command.contains("Seccomp:\t0\n"), "\(command)")
      let plain = fixture.engine("exec", "box", "cat", "/proc/self/status").text
      #expect(plain.contains("CapEff:\t00000000a80425fb\n") && plain.contains("Seccomp:\t2\n"), "\(plain)")
    }
  }
}
