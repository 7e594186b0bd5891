import CLinux
import Contracts
import Glibc
import Kernel
import LinuxRuntimePlugin
import LinuxSystem
import Testing

extension RealKernel {
  /// A container's process before its command.
  @Suite struct CreationTests {
    let fixture: RuntimeFixture
    init() throws { fixture = try RuntimeFixture() }

    private struct Process {
      var shim: Int32
      var pid: Int32
    }

    /// The shim of a container and the process that it made: both have the container's ID in their arguments until the
    /// second executes its command.
    private func process(of container: ObjectID) throws -> Process? {
      let named = try Files.list("/proc").compactMap { Int32($0) }.filter { pid in
        (try? Files.readText("/proc/\(pid)/cmdline")) == "engine-shim\0\(container.short)\0"
      }
      guard let shim = named.first(where: { parent(of: $0) == getpid() }),
        let pid = named.first(where: { parent(of: $0) == shim })
      else { return nil }
      return Process(shim: shim, pid: pid)
    }

    /// The fourth field of proc_pid_stat(5).
    private func parent(of pid: Int32) -> Int32 {
      let text = (try? Files.readText("/proc/\(pid)/stat")) ?? ""
      let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
      return fields.count > 1 ? Int32(fields[1]) ?? 0 : 0
    }

    private func eventually<Value>(_ condition: () throws -> Value?) async throws -> Value {
      for _ in 0..<4000 {
        if let value = try condition() { return value }
        try await Task.sleep(nanoseconds: 5_000_000)
      }
      return try #require(try condition())
    }

    private func isGone(_ pid: Int32) -> Bool {
      let status = (try? Files.readText("/proc/\(pid)/stat")) ?? ""
      return status.isEmpty || status.contains(") Z ")
    }

    @Test func itWaitsForItsStart() async throws {
      let id = ObjectID.random()
      let output = try Pipe()
      var specification = fixture.specification(["cat", "/etc/hosts"])
      specification.generatedFiles = ["/etc/hosts": "", "/etc/hostname": "box\n"]
      var request = try fixture.request(id, specification, streams: StandardStreams(output: output.writing()))
      output.closeWriting()
      let created = try await fixture.bus.request(request)
      request.streams = StandardStreams()
      #expect(created.generatedPaths.keys.sorted() == ["/etc/hostname", "/etc/hosts"])
      // It has come to its gate when it reads (read is call 0 on x86-64, 63 on arm64).
      let process = try await eventually { () -> Process? in
        guard let process = try self.process(of: id) else { return nil }
        let call = (try? Files.readText("/proc/\(process.pid)/syscall"))?.split(separator: " ").first
        return call == "0" || call == "63" ? process : nil
      }
      // It is nobody's leftover meanwhile.
      let check = PluginCheck(known: [id], running: [], repair: true)
      #expect(try await fixture.bus.request(check, driver: "runtime-linux").isEmpty)
      #expect(!isGone(process.pid))
      let reply = try await fixture.bus.request(
        RuntimeStart(container: id, files: ["/etc/hosts": "10.0.0.9\tbox\n"]))
      #expect(reply.pid == process.pid && reply.shimPID == process.shim)
      #expect(await output.readToEnd() == "10.0.0.9\tbox\n")
      #expect(try await fixture.exits.first { $0.container == id }.status.code == 0)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    @Test func oneThatIsNotStartedIsRemoved() async throws {
      let id = ObjectID.random()
      _ = try await fixture.bus.request(try fixture.request(id, fixture.specification(["sleep", "60"])))
      let process = try await eventually { try self.process(of: id) }
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
      #expect(try await eventually { isGone(process.pid) && isGone(process.shim) ? true : nil })
      #expect(fixture.runtimeDirectories.isEmpty && fixture.journal.entries(plugin: "runtime-linux").isEmpty)
      await #expect(throws: EngineError.self) { try await fixture.bus.request(RuntimeStart(container: id)) }
    }

    @Test func itsFailureIsToldByTheStart() async throws {
      let id = ObjectID.random()
      var specification = fixture.specification(["true"])
      specification.namespaces[.pid] = .process(0x3FFF_FFFF)
      _ = try await fixture.bus.request(try fixture.request(id, specification))
      await #expect(throws: EngineError.self) { try await fixture.bus.request(RuntimeStart(container: id)) }
      #expect(fixture.runtimeDirectories.isEmpty && fixture.journal.entries(plugin: "runtime-linux").isEmpty)
    }

    @Test func aFileThatIsNoneOfItsOwnIsRefused() async throws {
      let id = ObjectID.random()
      _ = try await fixture.bus.request(try fixture.request(id, fixture.specification(["true"])))
      do {
        _ = try await fixture.bus.request(RuntimeStart(container: id, files: ["/etc/passwd": "x"]))
        Issue.record("it was started")
      } catch {
        #expect("\(error)".contains("/etc/passwd is none of the container's generated files"), "\(error)")
      }
      #expect(fixture.runtimeDirectories.isEmpty)
    }

    /// More than one message takes.
    @Test func theShimHoldsItsPortsAsLongAsItLives() async throws {
      let id = ObjectID.random()
      _ = try await fixture.bus.request(try fixture.request(id, fixture.specification(["sleep", "60"])))
      let pipe = try Pipe()
      let reply = try await fixture.bus.request(
        RuntimeStart(container: id, portReservations: (0..<450).map { _ in pipe.writing() }))
      pipe.closeWriting()
      let held = try await eventually { () -> Int? in
        let count = try Files.list("/proc/\(reply.shimPID)/fd").count
        return count >= 450 ? count : nil
      }
      #expect(held < 500)
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
      let reading = pipe.reading()
      var waiting = pollfd(fd: reading.number, events: Int16(POLLIN), revents: 0)
      #expect(poll(&waiting, 1, 60_000) == 1 && waiting.revents & Int16(POLLHUP) != 0)
    }

    /// The container's mount namespace is a copy of an empty one: with the root taken off there is nothing of the host.
    @Test func nothingOfTheHostIsBeneathTheRoot() async throws {
      let id = ObjectID.random()
      let reply = try await fixture.launch(try fixture.request(id, fixture.specification(["sleep", "60"])))
      let seen = try DetachedThread.run { () throws(SystemCallError) -> [[String]] in
        try SystemCallError.check("unshare") { unshare(CLONE_FS) }
        let namespace = try Files.open("/proc/\(reply.pid)/ns/mnt", O_RDONLY)
        func enter() throws(SystemCallError) -> [String] {
          try SystemCallError.check("setns") { setns(namespace.number, CLONE_NEWNS) }
          return try Files.list("/").sorted()
        }
        let before = try enter()
        try SystemCallError.check("umount2") { umount2("/", Int32(MNT_DETACH)) }
        return [before, try enter()]
      }
      #expect(seen[0].contains("bin") && seen[0].contains("proc"))
      #expect(seen[1] == [])
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }

    /// What a container could reach through /proc/<pid>/exe is on a file system that is read-only (CVE-2019-5736).
    @Test func nobodyWritesTheShimsExecutable() async throws {
      let id = ObjectID.random()
      let reply = try await fixture.launch(try fixture.request(id, fixture.specification(["sleep", "60"])))
      let path = "/proc/\(reply.shimPID)/exe"
      for flags in [O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND] {
        #expect(linux_open(path, flags | O_CLOEXEC, 0) == -1 && errno == EROFS, "\(flags): \(errno)")
      }
      #expect(truncate(path, 0) == -1 && errno == EROFS)
      // It is the shim's, byte for byte.
      #expect(try Files.read(path, limit: 1 << 28) == Files.read(RuntimeFixture.shimPath, limit: 1 << 28))
      _ = try await fixture.bus.request(RuntimeRemove(container: id))
    }
  }
}
