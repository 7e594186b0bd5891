import BenchmarkSupport
import Contracts
import Foundation
import Testing
import Wire

@testable import EndToEndBenchmarks

/// Results as they could be: every figure of two peers, one peer that is not there.
private func results(engineRun: Int = 10_000, dockerRun: Int = 500_000) -> Results {
  let machine = Machine(
    date: "2026-01-02", kernel: "6.1", system: "Debian <12>", processor: "a processor", cpus: 2, memoryMegabytes: 4096)
  var results = Results(machine: machine, runs: 7, pauseMilliseconds: 50)
  func row(_ name: String, _ p50: Int, _ comparisons: [Results.Comparison] = []) -> Results.Row {
    Results.Row(name: name, p50: p50, p90: p50 + 100, p99: p50 + 200, min: p50 - 1, comparisons: comparisons)
  }
  let ratio = Results.Comparison(name: "docker run", ratio: Double(engineRun) / Double(dockerRun))
  for mode in ["hot", "with pauses of 50 ms"] {
    results.modes.append(
      Results.Mode(
        mode: mode, runs: 7,
        results: [
          row("engine run", engineRun, [ratio]), row("docker run", dockerRun), row(Names.floor, 5000),
          row("engine run --network none", 9000), row("crun run", 20_000), row("engine exec", 3000),
          row("docker exec", 60_000), row("engine run -p 1 port", 10_000), row("engine run -p 200 ports", 14_000),
        ]))
  }
  results.peers = [
    Results.Peer(name: "engine", version: "1", absence: nil),
    Results.Peer(name: "docker", version: "20.10", absence: nil),
    Results.Peer(name: "podman", version: nil, absence: "podman is not installed; `make bench-peers` installs it"),
  ]
  for (peer, rate) in [("engine", 200.0), ("docker", 5.0)] {
    results.throughput.append(
      Results.Throughput(peer: peer, containers: 100, concurrency: 16, perSecond: rate))
    for containers in [0, 50, 100, 200, 300] {
      results.scaling.append(
        Results.Scale(
          peer: peer, containers: containers, proportionalSize: 30_000 + containers * 200, daemonResident: 29_000,
          list: peer == "engine" ? 4000 : 20_000, listAfterPause: 5000, attach: 300 + containers / 10))
    }
    results.images.append(
      Results.Image(
        peer: peer, layers: 4, packed: 20_000_000, unpacked: 60_000_000, pull: 300_000, pullRange: [1, 2]))
    results.logs.append(Results.Log(peer: peer, lines: 200_000, bytes: 20_000_000, write: 1_000_000, read: 500_000))
    for path in [Results.Network.between, Results.Network.fromHost] {
      results.network.append(
        Results.Network(
          peer: peer, path: path, megabitsPerSecond: peer == "engine" ? 20_000 : 19_000, roundTrip: 12.5,
          roundTrip90: 14, roundTrip99: 30))
    }
  }
  results.attachment = Results.Attachment(first: 500, last: 600, firstAfterPause: 700, lastAfterPause: 1000)
  results.perContainer = ["engine": 200]
  results.idleResident = ["engine": 29_000, "docker": 90_000]
  results.messages = [
    Results.Message(group: "bus", name: "a request in process", per: "message", runs: 9, p50: 300, p90: 310, p99: 320),
    Results.Message(
      group: "wire", name: "a request over the engine's socket", per: "message", runs: 9, p50: 61_000, p90: 62_000,
      p99: 63_000),
  ]
  results.start = Results.Start(
    Duration: 900_000,
    Steps: [Results.Step(Name: "attach network", Place: "engine", Start: 0, Duration: 300_000)])
  results.omissions = ["network: iperf3 is not installed"]
  results.targets = Target.all(results)
  return results
}

struct ResultsTests {
  @Test func resultsSurviveTheirFile() throws {
    let results = results()
    let bytes = try JSON.encode(results, pretty: true)
    #expect(try JSON.decode(Results.self, bytes) == results)
  }

  @Test func whatWasNotMeasuredStays() {
    let earlier = results()
    var later = Results(machine: earlier.machine, runs: 3, pauseMilliseconds: 50)
    later.logs = [Results.Log(peer: "engine", lines: 1, bytes: 2, write: 3, read: 4)]
    later.peers = [Results.Peer(name: "docker", version: "99", absence: nil)]
    let merged = later.merged(into: earlier, sections: ["logs"])
    #expect(merged.logs == later.logs && merged.runs == 3)
    #expect(merged.modes == earlier.modes && merged.network == earlier.network && merged.scaling == earlier.scaling)
    #expect(merged.images == earlier.images && merged.messages == earlier.messages && merged.start == earlier.start)
    #expect(merged.throughput == earlier.throughput && merged.perContainer == earlier.perContainer)
    #expect(merged.version("docker") == "99" && merged.peers.count == 3)
  }

  @Test func targetsAreJudged() {
    func verdict(_ what: String, _ results: Results) -> String? {
      Target.all(results).first { $0.what == what }?.verdict
    }
    let good = results()
    #expect(verdict("run, bridge network, hot", good) == "met")
    #expect(verdict("run, bridge network, hot", results(engineRun: 12_600)) == "not met")
    #expect(verdict("run --network none, with pauses", good) == "met")
    #expect(verdict("exec, hot", good) == "met")
    #expect(verdict("200 published ports, hot", good) == "not met")
    #expect(verdict("containers a second, 16 at once", good) == "met")
    #expect(verdict("memory of an idle container beyond its process", good) == "met")
    #expect(verdict("engined idle, resident", good) == "met")
    #expect(verdict("ps with 200 containers", good) == "met")
    #expect(verdict("attach of the 300th container, hot", good) == "met")
    #expect(verdict("attach of the 300th container, with pauses", good) == "not met")
    #expect(verdict("iperf3, container to container", good) == "met")
    #expect(verdict("bus request in process", good) == "met")
    #expect(verdict("bus request over the wire, there and back", good) == "not met")
    // Nobody ran it with a profile.
    #expect(verdict("run with ports, limits and a seccomp profile, hot", good) == "not measured")
    let nothing = Target.all(Results(machine: good.machine, runs: 1, pauseMilliseconds: 50))
    #expect(nothing.count == good.targets.count)
    #expect(nothing.allSatisfy { $0.verdict == "not measured" && $0.measured == nil })
  }

  @Test func thePageHasEveryFigure() {
    let page = Page.html(results())
    for title in [
      "Targets", "Commands, hot, 7 runs", "Containers a second", "With more and more idle containers",
      "An image, pulled and unpacked", "Logs", "Network", "A start, step by step", "Work without the kernel",
      "What was not measured",
    ] { #expect(page.contains("<h2>\(title)</h2>"), "\(title)") }
    // The charts: two modes, three concurrencies, three lines, one image, two logs, four of the network, one start.
    #expect(page.components(separatedBy: "<svg").count - 1 >= 12)
    #expect(page.contains("podman not compared: podman is not installed"))
    #expect(page.contains("network: iperf3 is not installed"))
    #expect(page.contains("not met") && page.contains("1/50.0 of docker run"))
    #expect(page.contains("Debian &lt;12&gt;") && !page.contains("<12>"))
    #expect(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"))
  }

  @Test func aPageWithoutAnythingIsAPage() {
    let page = Page.html(Results(machine: results().machine, runs: 1, pauseMilliseconds: 50))
    #expect(page.contains("</html>") && !page.contains("<svg"))
  }

  @Test func theSlopeIsTakenBetweenTheNumbersThatAreThere() {
    func sizes(_ containers: [Int]) -> [Results.Scale] {
      containers.map {
        Results.Scale(
          peer: "p", containers: $0, proportionalSize: 1000 + $0 * 7, daemonResident: 0, list: 0, listAfterPause: 0)
      }
    }
    #expect(Suite.slope(sizes([0, 1, 50, 100, 200])) == 7)
    #expect(Suite.slope(sizes([0, 1, 50])) == 7)
    #expect(Suite.slope(sizes([0])) == nil)
  }

  @Test func whatOtherProgramsPrintIsRead() throws {
    let text = "{\"end\": {\"sum_received\": {\"bits_per_second\": 1.5e10}}}"
    #expect(try Suite.bitsPerSecond(text) == 1.5e10)
    #expect(throws: (any Error).self) { try Suite.bitsPerSecond("{\"error\": \"unable to connect\"}") }
    let libraries = """
      \tlinux-vdso.so.1 (0x00007ffd)
      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)
      \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)
      \tlibnowhere.so => not found
      """
    #expect(Suite.libraries(libraries) == ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"])
    #expect(Suite.libraries("\tstatically linked\n").isEmpty)
  }
}

struct ReadmeTests {
  private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

  /// What the README says is what the results file says.
  @Test func theReadmeHasTheTableOfTheResults() throws {
    let results = try Suite.Files.read("\(Self.root)/Benchmarks/results/end-to-end.json")
    let readme = try String(contentsOfFile: "\(Self.root)/README.md", encoding: .utf8)
    #expect(Readme.replaced(in: readme, with: Readme.table(results)) == readme, "`make bench-readme` mends it")
    let page = try String(contentsOfFile: "\(Self.root)/Benchmarks/results/end-to-end.html", encoding: .utf8)
    #expect(page == Page.html(results), "`make bench-readme` mends it")
  }

  @Test func theTableNamesMachineDateAndRatios() {
    let table = Readme.table(results())
    for part in [
      "2026-01-02", "Linux 6.1", "medians of 7 runs", "docker 20.10", "Not compared: podman",
      "| 10.0 ms (10.0 ms) | 500 ms (500 ms) | 1/50.0 (1/50.0) |",
      "| containers run to their end a second, 16 at once |",
      "20.0 Gbit/s", "not met: 200 published ports, hot",
    ] { #expect(table.contains(part), "\(part)") }
    #expect(!table.contains("`stop`"), "a command that nobody ran has no row")
  }

  @Test func onlyWhatStandsBetweenTheMarksIsReplaced() {
    let text = "before\n\(Readme.begin)\nold\n\(Readme.end)\nafter\n"
    #expect(Readme.replaced(in: text, with: "new") == "before\n\(Readme.begin)\nnew\n\(Readme.end)\nafter\n")
    #expect(Readme.replaced(in: "no marks", with: "new") == nil)
    #expect(Readme.replaced(in: "\(Readme.end)\n\(Readme.begin)\n", with: "new") == nil)
  }
}

struct OptionsTests {
  @Test func flagsAreRead() throws {
    let options = try Options(["--runs=3", "--minutes=1.5", "--only=network,logs", "--peers=crun", "bin"])
    #expect(options.runs == 3 && options.minutes == 1.5 && options.binaries == "bin")
    #expect(options.only == ["network", "logs"] && options.peers == ["crun"] && options.action == .measure)
    #expect(try Options(["--readme"]).action == .readme("README.md"))
    #expect(try Options(["--readme=X.md", "--output=o.json"]).action == .readme("X.md"))
    #expect(try Options(["--page"]).action == .page)
    // What is only a part does not take the place of all.
    #expect(try Options(["bin"]).output == Options.allResults)
    #expect(options.output == Options.partialResults)
    #expect(try Options(["--only=logs", "--merge", "bin"]).output == Options.allResults)
    #expect(try Options(["--only=logs", "--output=x", "bin"]).output == "x")
    #expect(try Options(["bin"]).only == Set(Options.sections.map(\.name)))
  }

  @Test(arguments: [
    [], ["--runs=0", "bin"], ["--runs=x", "bin"], ["--minutes=-1", "bin"], ["--only=nothing", "bin"],
    ["--peers=lxc", "bin"], ["--unknown", "bin"], ["one", "two"],
  ])
  func whatMakesNoSenseIsRefused(_ arguments: [String]) {
    #expect(throws: Options.Problem.self) { try Options(arguments) }
  }
}

struct PeersTests {
  /// Who is asked for and not there is listed with the reason; who runs is not.
  @Test func anAbsentPeerIsTold() throws {
    let peers = try Peers(try Options(["--peers=docker,podman,crun", "bin"]))
    defer { peers.tearDown() }
    #expect(try peers.attempt("runc", programs: []) { 1 } == nil)
    #expect(try peers.attempt("docker", programs: ["no-such-program-here"]) { 1 } == nil)
    #expect(
      try peers.attempt("podman", programs: ["sh"]) { throw Processes.Failure(description: "no way") } as Int? == nil)
    #expect(try peers.attempt("crun", programs: ["sh"]) { 1 } == 1)
    let absences = Dictionary(uniqueKeysWithValues: peers.found.map { ($0.name, $0.absence ?? "") })
    #expect(absences["runc"]?.contains("not asked for") == true)
    #expect(absences["docker"]?.contains("no-such-program-here is not installed") == true)
    #expect(absences["podman"]?.contains("no way") == true)
    #expect(absences["crun"] == nil)
  }

  @Test func someAreRunAtOnceAndNoneAfterTheDeadline() throws {
    let all = try Processes.many(5, atOnce: 2, { _ in ["true"] }, environment: [])
    #expect(all.count == 5)
    for atOnce in [1, 2, 5] {
      let few = try Processes.many(1000, atOnce: atOnce, until: 0, { _ in ["true"] }, environment: [])
      #expect(few.count == atOnce + 1)
    }
    #expect(throws: Processes.Failure.self) { try Processes.many(3, atOnce: 1, { _ in ["false"] }, environment: []) }
  }
}
