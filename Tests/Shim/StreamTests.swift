import CLinux
import Contracts
import Foundation
import Glibc
import Kernel
import LinuxSystem
import Testing

extension RealKernel {
  @Suite struct StreamTests {
    let fixture: RuntimeFixture
    init() throws { fixture = try RuntimeFixture() }

    private func sh(_ script: String) -> RuntimeSpecification { fixture.specification(["sh", "-c", script]) }

    private func log(_ id: ObjectID) throws -> [JSONLine] {
      try Files.readText("\(fixture.directory)/\(id.short).log").split(separator: "\n").map {
        try JSONDecoder().decode(JSONLine.self, from: Data($0.utf8))
      }
    }

    struct JSONLine: Decodable, Equatable {
      var log: String
      var stream: String
      var time: String
    }

    /// Starts without waiting for the end.
    private func start(
      _ specification: RuntimeSpecification, _ streams: StandardStreams = StandardStreams(),
      change: (inout RuntimeCreate) -> Void = { _ in }
    ) async throws -> (ObjectID, RuntimeStart.Reply) {
      let id = ObjectID.random()
      var request = try fixture.request(id, specification, streams: streams)
      change(&request)
      return (id, try await fixture.launch(request))
    }

    @Test func outputIsComplete() async throws {
      let result = try await fixture.run(sh("seq 1 200000; echo oops >&2"))
      #expect(result.output.utf8.count == 1_288_895)
      #expect(result.output.hasSuffix("\n200000\n"))
      #expect(result.error == "oops\n")
    }

    @Test func logIsDockers() async throws {
      let script =
        #"printf 'a\tb "q" <&>\n'; echo err >&2; printf 'no newline'; head -c 20000 /dev/zero | tr '\0' x >&2"#
      symlink("busybox", "\(fixture.directory)/root/bin/printf")
      symlink("busybox", "\(fixture.directory)/root/bin/tr")
      let (id, _) = try await start(sh(script))
      _ = try await fixture.exits.first { $0.container == id }
      let lines = try log(id)
      #expect(lines.filter { $0.stream == "stdout" }.map(\.log) == ["a\tb \"q\" <&>\n", "no newline"])
      let errors = lines.filter { $0.stream == "stderr" }.map(\.log)
      #expect(errors.map(\.utf8.count) == [4, 16384, 20000 - 16384])
      #expect(lines.allSatisfy { Timestamp($0.time) != nil })
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test func logRotates() async throws {
      let (id, _) = try await start(sh("seq 1 3000")) {
        $0.logMaximumSize = 50_000
        $0.logMaximumFiles = 3
      }
      _ = try await fixture.exits.first { $0.container == id }
      let path = "\(fixture.directory)/\(id.short).log"
      #expect(Files.exists("\(path).1") && Files.exists("\(path).2") && !Files.exists("\(path).3"))
      let last = try log(id).last
      #expect(last?.log == "3000\n")
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test(arguments: ["hello\n", "", String(repeating: "0123456789abcdef\n", count: 20_000)])
    func input(text: String) async throws {
      let result = try await fixture.run(sh("cat"), input: text)
      #expect(result.output == text)
      #expect(result.code == 0)
    }

    @Test func withoutInputItIsEmpty() async throws {
      #expect(try await fixture.run(sh("wc -c")).output == "0\n")
    }

    @Test func inputFromAFile() async throws {
      let path = "\(fixture.directory)/input"
      try Files.replace(path, with: Array("from a file\n".utf8), durable: false)
      let file = Descriptor(adopting: try Files.open(path, O_RDONLY).release())
      let result = try await fixture.run(sh("cat")) { $0.streams.input = file }
      #expect(result.output == "from a file\n")
    }

    @Test func aClientThatIsGoneIsLetGo() async throws {
      let pipe = try Pipe()
      let (id, _) = try await start(sh("seq 1 100000; echo done >&2"), StandardStreams(output: pipe.writing()))
      pipe.close()
      let exit = try await fixture.exits.first { $0.container == id }
      #expect(exit.status.code == 0)
      #expect(try log(id).contains { $0.log == "done\n" })
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test func aSlowClientLosesNothing() async throws {
      let pipe = try Pipe()
      let (id, _) = try await start(sh("seq 1 17000"), StandardStreams(output: pipe.writing()))
      pipe.closeWriting()
      // Told though nobody reads, after a while; the rest is still delivered then.
      let exit = try await fixture.exits.first { $0.container == id }
      #expect(exit.status.code == 0)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
      let text = await pipe.readToEnd()
      #expect(text.hasSuffix("\n17000\n"))
    }

    /// Also where the container is removed before the shim has heard that its exit was noted, as `--rm` may.
    @Test func whatIsRemovedAtOnceIsStillDelivered() async throws {
      let pipe = try Pipe()
      let removed = Recorder<ObjectID>()
      let subscription = fixture.bus.subscribe(to: RuntimeExited.self) { [bus = fixture.bus] event in
        _ = try? await bus.request(RuntimeRemove(container: event.container))
        removed.add(event.container)
      }
      defer { fixture.bus.unsubscribe(subscription) }
      let (id, _) = try await start(sh("seq 1 17000"), StandardStreams(output: pipe.writing()))
      pipe.closeWriting()
      _ = try await removed.first { $0 == id }
      let text = await pipe.readToEnd()
      #expect(text.hasSuffix("\n17000\n"))
    }

    @Test func grandchildrenDoNotHoldTheExit() async throws {
      var specification = sh("sleep 30 & echo $!; exit 3")
      specification.namespaces[.pid] = .host
      let result = try await fixture.run(specification)
      #expect(result.code == 3)
      if let pid = Int32(result.output.trimmingCharacters(in: .whitespacesAndNewlines)) { kill(pid, SIGKILL) }
    }

    // MARK: Terminals

    /// A terminal of the test, as the user's: the client's side is the slave.
    private func terminal() throws -> (master: Descriptor, client: Descriptor) {
      let master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)
      try #require(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0)
      let client = open(String(cString: ptsname(master)), O_RDWR | O_NOCTTY | O_CLOEXEC)
      var mode = termios()
      tcgetattr(client, &mode)
      cfmakeraw(&mode)
      tcsetattr(client, TCSANOW, &mode)
      return (Descriptor(adopting: master), Descriptor(adopting: client))
    }

    /// Reads until `text` was seen, at most 10 s.
    private func read(_ descriptor: Descriptor, until text: String) async throws -> String {
      var all = ""
      for _ in 0..<1000 {
        var waiting = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
        if poll(&waiting, 1, 0) == 1 {
          var buffer = [UInt8](repeating: 0, count: 4096)
          let count = Glibc.read(descriptor.number, &buffer, buffer.count)
          if count > 0 { all += String(decoding: buffer[..<count], as: UTF8.self) }
          if all.contains(text) { return all }
        } else {
          try await Task.sleep(nanoseconds: 10_000_000)
        }
      }
      Issue.record("\(text) did not come: \(all)")
      return all
    }

    private func type(_ text: String, _ descriptor: Descriptor) { write(descriptor.number, text, text.utf8.count) }

    @Test func terminalSizeKeysAndConsole() async throws {
      let (master, client) = try terminal()
      var specification = sh("tty; stty size; ls -l /dev/console | cut -c1; read x; echo got-$x; read y")
      specification.process.terminal = true
      let streams = StandardStreams(
        input: client, output: client, error: client, keepsInputOpen: true, detachKeys: "ctrl-p,ctrl-q", rows: 33,
        columns: 77)
      let (id, _) = try await start(specification, streams)
      let first = try await read(master, until: "\nc\r\n")
      #expect(first.contains("/dev/pts/0") && first.contains("33 77"), "\(first)")
      type("a\u{10}b\n", master)
      _ = try await read(master, until: "got-a\u{10}b")
      type("\u{10}\u{11}", master)
      _ = try await fixture.detached.first { $0.container == id && $0.exec == nil }
      _ = try await fixture.bus.request(RuntimeResize(container: id, exec: nil, rows: 10, columns: 20))
      _ = try await fixture.bus.request(
        RuntimeAttach(container: id, streams: StandardStreams(input: client, output: client)))
      type("\n", master)
      #expect(try await fixture.exits.first { $0.container == id }.status.code == 0)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test func terminalOutputIsComplete() async throws {
      var specification = sh("seq 1 20000")
      specification.process.terminal = true
      let result = try await fixture.run(specification)
      #expect(result.output.hasSuffix("19999\r\n20000\r\n"))
      #expect(result.output.utf8.count == 108_894 + 20_000)
    }

    // MARK: Execs

    private func exec(
      _ id: ObjectID, _ process: RuntimeSpecification.Process, _ streams: StandardStreams
    ) async throws -> (Contracts.ExitStatus, [RuntimeExec.Element]) {
      let elements = Recorder<RuntimeExec.Element>()
      let call = Call(bus: fixture.bus)
      let request = RuntimeExec(
        container: id, exec: ObjectID.random(), process: process, seccomp: .standard, streams: streams)
      let status = try await call.stream(request) { (element) throws(EngineError) in elements.add(element) }
      return (status, elements.all)
    }

    @Test func execJoinsTheContainer() async throws {
      let (id, reply) = try await start(sh("sleep 60"))
      let output = try Pipe()
      var process = fixture.process([
        "sh", "-c", "hostname; grep -E 'CapEff|Seccomp:' /proc/self/status; ps | grep -c 'sleep 6[0]'; cat; exit 5",
      ])
      process.user = "alice"
      let input = try Pipe()
      let (status, elements) = try await exec(
        id, process,
        StandardStreams(
          input: {
            input.closeWriting(); return input.reading()
          }(), output: output.writing()))
      output.closeWriting()
      let text = await output.readToEnd()
      #expect(status.code == 5)
      #expect(text == "box\nCapEff:\t0000000000000000\nSeccomp:\t2\n1\n", "\(text)")
      guard case .started(let pid) = elements.first else { throw EngineError(.internalFailure, "no element") }
      #expect(pid > 1 && pid != reply.pid)
      let error = await #expect(throws: EngineError.self) {
        _ = try await exec(id, fixture.process(["nothere"]), StandardStreams())
      }
      #expect(error?.code == .commandNotFound)
      // The shim's children enter its own namespace again.
      let second = try await exec(id, fixture.process(["true"]), StandardStreams())
      #expect(second.0.code == 0)
      try await #require(fixture.bus.request(RuntimeSignal(container: id, signal: SIGKILL)) == Done())
      #expect(try await fixture.exits.first { $0.container == id }.status.code == 137)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test func execWithATerminal() async throws {
      let (id, _) = try await start(sh("sleep 60"))
      var process = fixture.process(["sh", "-c", "tty; stty size; exit 9"])
      process.terminal = true
      let output = try Pipe()
      let (status, _) = try await exec(id, process, StandardStreams(output: output.writing(), rows: 12, columns: 34))
      output.closeWriting()
      #expect(status.code == 9)
      #expect(await output.readToEnd() == "/dev/pts/0\r\n12 34\r\n")
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }
  }
}
