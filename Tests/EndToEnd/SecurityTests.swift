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
  }
}
