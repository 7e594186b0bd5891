import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

extension RealKernel {
  @Suite struct RuntimeTests {
    let fixture: RuntimeFixture
    init() throws { fixture = try RuntimeFixture() }

    private func sh(_ script: String) -> RuntimeSpecification { fixture.specification(["sh", "-c", script]) }

    @Test(arguments: [
      (["/bin/true"], 0), (["false"], 1), (["sh", "-c", "exit 42"], 42),
      // PID 1 ignores what it has no handler for, so the signal comes from a child's end.
      (["sh", "-c", "(sh -c 'kill -15 $$'); exit $?"], 143),
    ])
    func exitCodes(arguments: [String], code: Int) async throws {
      let result = try await fixture.run(fixture.specification(arguments))
      #expect(Int(result.code) == code, "\(result)")
    }

    @Test(arguments: [
      (["nothere"], EngineError.Code.commandNotFound, "exec: \"nothere\": executable file not found in $PATH"),
      (["/nothere"], .commandNotFound, "exec: \"/nothere\": stat /nothere: no such file or directory"),
      (["/etc"], .notExecutable, "exec: \"/etc\": permission denied"),
      (["/etc/passwd"], .notExecutable, "exec: \"/etc/passwd\": permission denied"),
      (["/tmp/garbage"], .notExecutable, "exec: \"/tmp/garbage\": exec format error"),
      (["/tmp/interpreted"], .commandNotFound, "exec: \"/tmp/interpreted\": no such file or directory"),
    ])
    func refusals(arguments: [String], code: EngineError.Code, message: String) async throws {
      let root = "\(fixture.directory)/root"
      try Files.replace("\(root)/tmp/garbage", with: [1, 2, 3, 4], mode: 0o755, durable: false)
      try Files.replace("\(root)/tmp/interpreted", with: Array("#!/nowhere\n".utf8), mode: 0o755, durable: false)
      let error = await #expect(throws: EngineError.self) {
        _ = try await fixture.run(fixture.specification(arguments))
      }
      #expect(error?.code == code)
      #expect(error?.message == message)
      #expect(fixture.journal.entries(plugin: "runtime-linux").isEmpty)
      #expect(fixture.runtimeDirectories.isEmpty)
    }

    @Test(arguments: [
      ("", "uid=0(root) gid=0(root) groups=0(root)", "/"),
      ("alice", "uid=1000(alice) gid=1000(alice) groups=50(staff),63(audio),1000(alice)", "/home/alice"),
      ("1000", "uid=1000(alice) gid=1000(alice) groups=50(staff),63(audio),1000(alice)", "/home/alice"),
      ("1000:audio", "uid=1000(alice) gid=63(audio) groups=63(audio)", "/home/alice"),
      ("4711:4712", "uid=4711 gid=4712 groups=4712", "/"),
    ])
    func users(user: String, expected: String, home: String) async throws {
      var specification = sh("id; echo $HOME; cat /proc/self/status | grep Groups")
      specification.process.user = user
      let result = try await fixture.run(specification)
      #expect(result.output.hasPrefix(expected), "\(result)")
      if user != "" { #expect(result.output.contains("\n\(home)\n"), "\(result)") }
    }

    @Test func unknownUser() async throws {
      var specification = sh("id")
      specification.process.user = "nobody-here"
      let error = await #expect(throws: EngineError.self) { _ = try await fixture.run(specification) }
      #expect(error?.message == "unable to find user nobody-here: no matching entries in passwd file")
    }

    @Test func capabilitiesAndSeccomp() async throws {
      let script = """
        grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
        mount -t tmpfs x /tmp 2>&1; unshare -m true 2>&1
        """
      let result = try await fixture.run(sh(script))
      for line in [
        "CapInh:\t0000000000000000", "CapPrm:\t00000000a80425fb", "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000", "NoNewPrivs:\t0", "Seccomp:\t2",
      ] {
        #expect(result.output.contains(line), "\(result)")
      }
      #expect(result.output.contains("Operation not permitted") || result.output.contains("permission denied"))
      var other = sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
      other.process.user = "alice"
      other.process.noNewPrivileges = true
      other.seccomp = .unconfined
      let second = try await fixture.run(other)
      for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t0"] {
        #expect(second.output.contains(line), "\(second)")
      }
    }

    /// What seccomp must stop though the capability is there, and the reverse.
    @Test func seccompAloneStops() async throws {
      var specification = sh("unshare -u true && echo worked")
      specification.process.capabilities.append("CAP_SYS_ADMIN")
      #expect(try await fixture.run(specification).output == "worked\n")
      specification.process.capabilities.removeLast()
      let refused = try await fixture.run(specification)
      #expect(refused.output == "" && refused.error.contains("not permitted"), "\(refused)")
    }

    @Test func nothingLeaks() async throws {
      let result = try await fixture.run(
        sh("ls /proc/self/fd; ls -l /proc/1/fd; cat /proc/1/environ; echo; ls -l /proc/self/cwd"))
      let numbers = result.output.split(separator: "\n").prefix { !$0.contains(" ") }.map(String.init)
      // ls itself has its directory open.
      #expect(numbers.sorted() == ["0", "1", "2", "3"] || numbers.prefix(4) == ["0", "1", "2", "3"], "\(result)")
      #expect(!result.output.contains("memfd") && !result.output.contains("socket"), "\(result)")
      #expect(!result.output.contains("ENGINE"))
    }

    @Test func kernelFileSystems() async throws {
      let script = """
        cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo x > /proc/sys/kernel/domainname || echo ro
        mkdir /sys/x || echo ro; hostname; echo $$; ls /dev; cat /proc/self/cgroup | head -1
        grep -c . /proc/net/dev; ls -ld /dev/shm | cut -c1-10; cat /proc/mounts
        """
      let result = try await fixture.run(sh(script))
      let lines = result.output.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
      #expect(Array(lines.prefix(6)) == ["0", "0", "ro", "ro", "box", "1"], "\(result)")
      for name in ["null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "ptmx", "pts", "shm", "mqueue"] {
        #expect(lines.contains(name), "\(name)")
      }
      for mount in [
        "proc /proc proc rw,nosuid,nodev,noexec", "sysfs /sys sysfs ro,nosuid,nodev,noexec",
        "devpts /dev/pts devpts rw,nosuid,noexec", "/proc/sys proc ro,",
      ] {
        #expect(result.output.contains(mount), "\(mount) in \(result.output)")
      }
      // Nothing of the host's tree is left.
      #expect(!result.output.contains("/tmp/shim-test"), "\(result.output)")
    }

    @Test func readOnlyRootAndWorkingDirectory() async throws {
      var specification = sh("pwd; touch /x || echo ro")
      specification.isRootReadOnly = true
      specification.process.workingDirectory = "/a/b/c"
      let result = try await fixture.run(specification)
      #expect(result.output == "/a/b/c\nro\n", "\(result)")
    }

    @Test(arguments: ["/proc/self/fd/7", "/proc/self/fd/3/../../..", "/proc/1/root"])
    func workingDirectoryTricks(path: String) async throws {
      var specification = sh("pwd; ls /etc | head -50")
      specification.process.workingDirectory = path
      let output = (try? await fixture.run(specification).output) ?? ""
      #expect(!output.contains("apt") && !output.contains("systemd"), "\(output)")
    }

    @Test func mountsResolveInsideTheRoot() async throws {
      let root = "\(fixture.directory)/root"
      let volume = "\(fixture.directory)/volume"
      try Files.makeDirectories(volume)
      try Files.replace("\(volume)/mark", with: Array("here".utf8), durable: false)
      // Absolute, climbing and through a link: each must land inside.
      symlink("/", "\(root)/up")
      symlink("../../../../../../../..", "\(root)/climb")
      for target in ["/data", "/up/linked", "/climb/climbed", "/deep/er/still"] {
        let point = MountPoint(
          kind: .bind, volume: "", source: volume, target: target, driver: "", isReadOnly: false, propagation: "")
        let mount = VolumeMount.Mounted(
          point: point, mount: Descriptor(adopting: try Mounts.clone(volume, recursive: false).release()),
          isDirectory: true)
        let result = try await fixture.run(sh("cat \(target)/mark"), mounts: [mount])
        #expect(result.output == "here", "\(target): \(result)")
      }
      #expect(!Files.exists("/linked") && !Files.exists("/climbed"))
      let point = MountPoint(
        kind: .bind, volume: "", source: volume, target: "/proc/self", driver: "", isReadOnly: false, propagation: "")
      let mount = VolumeMount.Mounted(
        point: point, mount: Descriptor(adopting: try Mounts.clone(volume, recursive: false).release()),
        isDirectory: true)
      let error = await #expect(throws: EngineError.self) { _ = try await fixture.run(sh("true"), mounts: [mount]) }
      #expect(error?.message.contains("inside /proc") == true, "\(String(describing: error))")
    }

    @Test func procAsALinkIsRefused() async throws {
      let root = "\(fixture.directory)/root"
      rmdir("\(root)/proc")
      symlink("/tmp", "\(root)/proc")
      let error = await #expect(throws: EngineError.self) { _ = try await fixture.run(sh("true")) }
      #expect(error?.message.contains("/proc") == true)
    }

    @Test func generatedFilesAndSystemControls() async throws {
      var specification = sh("cat /etc/hosts /etc/hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
      specification.generatedFiles = ["/etc/hosts": "127.0.0.1 localhost\n", "/etc/hostname": "box\n"]
      specification.systemControls = ["net.ipv4.ip_unprivileged_port_start": "0"]
      #expect(try await fixture.run(specification).output == "127.0.0.1 localhost\nbox\n0\n")
      specification.systemControls = ["../../etc/x": "0"]
      let error = await #expect(throws: EngineError.self) { _ = try await fixture.run(specification) }
      #expect(error?.code == .invalidArgument)
    }

    @Test func resourceLimits() async throws {
      var specification = sh("ulimit -n; ulimit -c")
      specification.process.resourceLimits = [
        .init(name: "nofile", soft: 123, hard: 456), .init(name: "core", soft: 0, hard: UInt64.max),
      ]
      let result = try await fixture.run(specification)
      #expect(result.output == "123\n0\n", "\(result)")
    }

    @Test func initReapsAndForwards() async throws {
      var specification = sh("echo $$; sleep 0.01 & exit 7")
      specification.usesInit = true
      let result = try await fixture.run(specification)
      #expect(result.code == 7 && result.output != "1\n", "\(result)")
    }

    @Test func privileged() async throws {
      var specification = sh("ls /dev/kmsg; mount -t tmpfs x /tmp && echo mounted; grep Seccomp: /proc/self/status")
      specification.isPrivileged = true
      specification.process.capabilities.append("CAP_SYS_ADMIN")
      let result = try await fixture.run(specification)
      #expect(result.output == "/dev/kmsg\nmounted\nSeccomp:\t0\n", "\(result)")
    }
  }
}
