import Foundation
import Glibc
import Testing

extension EndToEnd {
  /// `engine bench`, in a directory where it can be watched.
  @Suite struct Bench {
    let fixture: Fixture
    private let scratch: String

    init() throws {
      fixture = try Fixture()
      scratch = "\(fixture.directory)/scratch"
      try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
    }

    // MARK: Running and watching

    private func start(_ arguments: [String]) throws -> pid_t {
      try fixture.spawnOnHost(
        ["env", "TMPDIR=\(scratch)", "\(Fixture.binaries)/engine", "--root", fixture.root, "bench"] + arguments)
    }

    /// The directory of the benchmarks that run, once it is there.
    private func workingDirectory() -> String? {
      var found: String?
      Fixture.eventually {
        found = try? FileManager.default.contentsOfDirectory(atPath: scratch).first
        return found != nil
      }
      return found.map { "\(scratch)/\($0)" }
    }

    private func ends(_ process: pid_t, seconds: Int) -> Bool {
      for _ in 0..<seconds * 100 {
        let state = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ") Z "
        if state.contains(") Z ") { return true }
        usleep(10_000)
      }
      return false
    }

    /// Expects that nothing is left: no directory, no group, no process, no link and no mount in the fixture's host.
    private func expectNothing(of directory: String, _ links: String, _ mounts: String) {
      #expect((try? FileManager.default.contentsOfDirectory(atPath: scratch)) == [])
      var names = [String(directory.split(separator: "/").last ?? "")]
      var hashes: [String] = []
      let instances =
        ["engine", "bridge", "overlay", "cgroups-1", "cgroups-2"]
        + ["engine", "raw"].flatMap { side in [0, 1000, 10_000].map { "ports-\(side)-\($0)" } }
      for name in instances {
        hashes.append(Fixture.instanceHash("\(directory)/\(name)"))
        names.append("engine-\(Fixture.instanceHash("\(directory)/\(name)"))")
      }
      let places = ["/sys/fs/cgroup"] + Fixture.command(["sh", "-c", "ls -d /sys/fs/cgroup/*/"]).lines
      for place in places {
        for name in names {
          #expect(!FileManager.default.fileExists(atPath: "\(place)/\(name)"), "\(place)/\(name) is left")
        }
      }
      for hash in hashes { #expect(!FileManager.default.fileExists(atPath: "/run/engine/\(hash)")) }
      let left = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.filter { entry in
        guard pid_t(entry) != nil, let data = FileManager.default.contents(atPath: "/proc/\(entry)/cmdline") else {
          return false
        }
        let line = String(decoding: data, as: UTF8.self)
        return line.contains(directory) || hashes.contains { line.contains($0) }
      }
      #expect(left == [], "processes are left: \(left ?? [])")
      #expect(fixture.host(["ip", "-o", "link"]).output == links)
      // Others' may go meanwhile: a directory that is removed elsewhere takes the mounts on it along.
      let more = Set(fixture.host(["cat", "/proc/self/mounts"]).lines).subtracting(
        mounts.split(separator: "\n").map(String.init))
      #expect(more.isEmpty, "mounts are left: \(more)")
    }

    // MARK: Tests

    @Test func everyStepIsMeasuredAndNothingIsLeft() throws {
      defer { fixture.end() }
      let (links, mounts) = (
        fixture.host(["ip", "-o", "link"]).output, fixture.host(["cat", "/proc/self/mounts"]).output
      )
      let (json, html) = ("\(fixture.directory)/bench.json", "\(fixture.directory)/bench.html")
      let process = try start(["--runs", "3", "--json", json, "--html", html])
      let directory = try #require(workingDirectory())
      #expect(ends(process, seconds: 120))
      expectNothing(of: directory, links, mounts)

      let data = try #require(FileManager.default.contents(atPath: json))
      let report = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
      let figures = try #require(report["figures"] as? [[String: Any]])
      let skipped = try #require(report["skipped"] as? [[String: Any]])
      for entry in skipped { #expect((entry["reason"] as? String)?.isEmpty == false) }
      let names = (figures + skipped).compactMap { $0["name"] as? String }
      #expect(names.sorted() == fixture.engine("bench", "--list").lines.sorted())
      // Where these cannot be measured, nothing can.
      let measured = Set(figures.compactMap { $0["name"] as? String })
      for name in [
        "new process", "all namespaces", "network namespace, fresh", "network namespace, pooled",
        "veth on the bridge, 300th", "publish 200 ports, 10000 there", "overlay, 60 layers", "seccomp load", "exec",
        "container, no network", "container, bridge",
      ] {
        #expect(measured.contains(name), "\(name) was not measured: \(skipped)")
      }
      for figure in figures {
        for mode in ["hot", "paused"] {
          let pair = try #require(figure[mode] as? [String: Any])
          #expect(try #require(pair["ratio"] as? Double) > 0)
          for side in ["engine", "raw"] {
            let times = try #require(pair[side] as? [String: Any])
            let values = try ["min", "p50", "p90", "p99", "max"].map { try #require(times[$0] as? Int) }
            #expect(values == values.sorted() && values[0] > 0, "\(figure["name"] ?? ""): \(values)")
            #expect(times["runs"] as? Int == 3)
          }
        }
      }
      let steps = try #require(report["start"] as? [[String: Any]]).compactMap { $0["name"] as? String }
      #expect(steps.contains("clone3") && steps.contains("execve"), "\(steps)")
      let page = try String(contentsOfFile: html, encoding: .utf8)
      #expect(page.contains("<h2>Scaling</h2>") && page.contains("A start, step by step"))
    }

    @Test func aFormerRunIsComparedWith() throws {
      defer { fixture.end() }
      let json = "\(fixture.directory)/bench.json"
      let first = fixture.engine("bench", "--runs", "2", "--only", "namespace uts,overlay", "--json", json)
      #expect(first.status == 0, "\(first)")
      #expect(first.lines.contains { $0.hasPrefix("overlay, 60 layers ") } && !first.output.contains("BEFORE"))
      let second = fixture.engine("bench", "--runs", "2", "--only", "namespace*", "--compare", json)
      #expect(second.status == 0, "\(second)")
      let line = second.lines.first { $0.hasPrefix("namespace uts ") } ?? ""
      #expect(line.hasSuffix("x"), "\(second)")
      #expect(second.lines.contains { $0.hasPrefix("namespace mnt ") && $0.hasSuffix("-") }, "\(second)")
      let bare = fixture.engine("bench", "--runs", "1", "--only", "seccomp", "--json", "-")
      #expect(bare.output.hasPrefix("{") && bare.output.hasSuffix("}\n"), "\(bare)")
    }

    /// Told to end, it takes everything down; and when the process that measures is killed, the one that the user started
    /// does.
    @Test(arguments: [false, true]) func itTakesEverythingDown(isKilled: Bool) throws {
      defer { fixture.end() }
      let (links, mounts) = (
        fixture.host(["ip", "-o", "link"]).output, fixture.host(["cat", "/proc/self/mounts"]).output
      )
      let process = try start(["--runs", "1000000", "--only", "containers,cgroups"])
      let directory = try #require(workingDirectory())
      let hash = Fixture.instanceHash("\(directory)/engine")
      // In the middle of containers: its engine has a group.
      let runs = Fixture.eventually {
        Fixture.command(["sh", "-c", "ls -d /sys/fs/cgroup/engine-\(hash)/*/ /sys/fs/cgroup/*/engine-\(hash)/*/"])
          .output.contains(hash)
      }
      #expect(runs)
      if isKilled {
        let children = try String(contentsOfFile: "/proc/\(process)/task/\(process)/children", encoding: .utf8)
        kill(try #require(pid_t(children.split(separator: " ").first ?? "")), SIGKILL)
      } else {
        kill(process, SIGINT)
      }
      #expect(ends(process, seconds: 30))
      expectNothing(of: directory, links, mounts)
    }

    @Test func whatAKilledRunLeftIsRemovedByTheNext() throws {
      defer { fixture.end() }
      let (old, young) = ("\(scratch)/engine-bench-old000", "\(scratch)/engine-bench-young0")
      let group = "engine-\(Fixture.instanceHash("\(old)/engine"))"
      let places = Fixture.command(["sh", "-c", "ls -d /sys/fs/cgroup/memory /sys/fs/cgroup/unified"]).lines
      let place = places.first ?? "/sys/fs/cgroup"
      let made = Fixture.command([
        "sh", "-c",
        """
        set -e
        mkdir -p \(old)/engine/data \(young)/engine \(place)/\(group)/container
        touch -d '5 minutes ago' \(old)
        """,
      ])
      #expect(made.status == 0, "\(made)")
      let outcome = fixture.host([
        "env", "TMPDIR=\(scratch)", "\(Fixture.binaries)/engine", "bench", "--runs", "1", "--only", "seccomp",
      ])
      #expect(outcome.status == 0, "\(outcome)")
      // A young one may belong to somebody who is about to begin.
      #expect((try? FileManager.default.contentsOfDirectory(atPath: scratch)) == ["engine-bench-young0"])
      #expect(!FileManager.default.fileExists(atPath: "\(place)/\(group)"))
    }

    @Test func whatIsWrongIsSaidInOneLine() {
      defer { fixture.end() }
      for (arguments, words) in [
        (["--only", "nothing-of-this-name"], "no step matches nothing-of-this-name"),
        (["--runs", "0"], "--runs takes a number from 1"),
        (["--compare", "/nowhere/x.json"], "/nowhere/x.json"),
        (["--compare", "/etc/passwd"], "/etc/passwd is no file that 'engine bench --json' wrote"),
        (["--json", "/nowhere/x.json"], "cannot be written to /nowhere/x.json"),
        (["--html", "/tmp"], "cannot be written to /tmp"),
      ] {
        let outcome = fixture.engine(["bench"] + arguments)
        #expect(outcome.status == 1 && outcome.errors.contains(words), "\(arguments): \(outcome)")
        #expect(outcome.errors.split(separator: "\n").count == 1, "\(arguments): \(outcome)")
      }
    }
  }
}
