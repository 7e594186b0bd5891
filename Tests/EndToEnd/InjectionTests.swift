import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// System calls that change something kill their process, or fail, on the way of `run`, `stop` and `rm`: strace(1)
  /// injects that into the daemon, the shim and the container's first process. The ordinary run tries a sample;
  /// `ENGINE_INJECTIONS=all` tries every place, which takes about half an hour, a number as large a sample, and a
  /// name (`write`, `write:error=EIO:when=3`) the places that begin so.
  @Suite struct Injections {
    let fixture: Fixture
    private let wrapper: String

    init() throws {
      fixture = try Fixture()
      try fixture.importBusybox()
      wrapper = "\(fixture.directory)/engined-under-strace"
      let script = """
        #!/bin/sh
        exec strace -f -qqq -e signal=none -o \(fixture.directory)/calls $ENGINE_STRACE \
          \(Fixture.binaries)/engined "$@"
        """
      try script.write(toFile: wrapper, atomically: true, encoding: .utf8)
      chmod(wrapper, 0o755)
    }

    private static let calls = [
      "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "symlink", "symlinkat",
      "mknod", "mknodat", "chmod", "fchmod", "chown", "fchownat", "ftruncate", "fsopen", "fsconfig", "fsmount",
      "open_tree", "move_mount", "mount_setattr", "mount", "umount2", "pivot_root", "clone3", "vfork", "unshare",
      "setns",
      "sendmsg", "sendto", "bind", "socketpair", "pwrite64", "write", "writev", "memfd_create", "prctl", "seccomp",
      "execve", "dup2", "epoll_ctl", "pidfd_open", "pidfd_send_signal",
    ]

    private struct Injection: CustomStringConvertible {
      var call: String
      /// The number of the call in its thread: strace counts for each thread.
      var number: Int
      /// `signal=KILL` or `error=...`.
      var effect: String

      var description: String { "\(call):\(effect):when=\(number)" }
    }

    private func engine(_ arguments: [String], _ options: String) -> Outcome {
      fixture.host(
        ["timeout", "-s", "KILL", "30", Fixture.binaries + "/engine", "--root", fixture.root] + arguments,
        environment: ["ENGINE_DAEMON": wrapper, "ENGINE_STRACE": options])
    }

    private let commands = [
      ["run", "-d", "--name", "box", "-p", "80", "-v", "box:/data", "-v", "/x", "-m", "64m", "bb", "sleep", "87654"],
      ["stop", "-t", "0", "box"], ["rm", "-f", "-v", "box"],
    ]

    /// How often each call occurs at most in one thread, in a run without any injection.
    private func occurrences() throws -> [String: Int] {
      fixture.killDaemons()
      for command in commands {
        let outcome = engine(command, "-e trace=\(Self.calls.joined(separator: ","))")
        #expect(outcome.status == 0, "\(command): \(outcome)")
      }
      fixture.killDaemons()
      let text = try String(contentsOfFile: "\(fixture.directory)/calls", encoding: .utf8)
      var counts: [String: [Substring: Int]] = [:]
      for line in text.split(separator: "\n") {
        let parts = line.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, let end = parts[1].firstIndex(of: "("), !parts[1].hasPrefix("<") else { continue }
        counts[String(parts[1][..<end].trimmingPrefix(while: { $0 == " " })), default: [:]][parts[0], default: 0] += 1
      }
      return counts.compactMapValues { $0.values.max() }
    }

    @Test func nothingIsLeftWhicheverCallKillsOrFails() throws {
      defer { fixture.end() }
      guard Fixture.command(["strace", "-V"]).status == 0 else { return }
      let counts = try occurrences()
      #expect(counts.count > 15, "\(counts)")
      var all: [Injection] = []
      for (call, count) in counts.sorted(by: { $0.key < $1.key }) {
        // What is done very often is done for the same reason after the first dozen times.
        for number in Set((1...min(count, 12)) + [count]).sorted() {
          for effect in ["signal=KILL", "error=ENOSPC", "error=EIO", "error=EPERM"] {
            all.append(Injection(call: call, number: number, effect: effect))
          }
        }
      }
      let wanted = ProcessInfo.processInfo.environment["ENGINE_INJECTIONS"] ?? "12"
      if wanted.first?.isLetter == true && wanted != "all" {
        all = all.filter { $0.description.hasPrefix(wanted) }
      } else if wanted != "all" {
        // Always the same sample, so that what fails can be looked for.
        let step = max(1, all.count / (Int(wanted) ?? 12))
        all = stride(from: step / 2, to: all.count, by: step).map { all[$0] }
      }
      for injection in all { attempt(injection) }
    }

    private func attempt(_ injection: Injection) {
      fixture.killDaemons()
      try? FileManager.default.removeItem(atPath: "/run/engine/\(fixture.runtimeHash)/engined.log")
      for command in commands {
        let outcome = engine(command, "-e trace=\(injection.call) -e inject=\(injection)")
        if injection.effect.hasPrefix("error"), outcome.status != 0 {
          let first = outcome.errors.split(separator: "\n").first ?? ""
          #expect(first.count > 20 && outcome.status < 128, "\(injection): \(outcome)")
          #expect(!outcome.errors.contains("Fatal error"), "\(injection): \(outcome)")
        } else {
          #expect(outcome.status != 137, "\(injection): \(command[0]) hangs")
        }
      }
      let log = (try? String(contentsOfFile: "/run/engine/\(fixture.runtimeHash)/engined.log", encoding: .utf8)) ?? ""
      #expect(!log.contains("Fatal error"), "\(injection): \(log)")
      fixture.killDaemons()
      let listed = fixture.engine("ps", "-aq")
      #expect(listed.status == 0, "\(injection): \(listed)")
      if !listed.lines.isEmpty {
        let removal = fixture.engine(["rm", "-f", "-v"] + listed.lines)
        #expect(removal.status == 0, "\(injection): \(removal)")
      }
      fixture.expectClean()
      _ = fixture.engine("volume", "rm", "box")
      let volumes = fixture.succeed("volume", "ls", "-q")
      #expect(volumes.isEmpty, "\(injection) leaves the volumes \(volumes)")
      let gone = Fixture.eventually {
        fixture.shims.isEmpty && !fixture.hasVirtualLinks
          && Fixture.containersProcesses(sleeping: "87654").isEmpty
      }
      #expect(
        gone,
        """
        \(injection) leaves shims \(fixture.shims), links \(fixture.hasVirtualLinks), \
        processes \(Fixture.containersProcesses(sleeping: "87654"))
        """)
    }
  }
}
