import CLinux
import Glibc
import LinuxSystem
import ShimProtocol
import Testing

@testable import LinuxRuntimePlugin
@testable import ShimCore

@Suite struct ProtocolTests {
  private static var plan: StartPlan {
    var plan = StartPlan()
    plan.process.arguments = ["sh", "-c", "echo \u{e9}", ""]
    plan.process.environment = ["A=b"]
    plan.process.limits = [.init(resource: 7, soft: 1, hard: .max)]
    plan.process.seccomp = Array(0...255)
    plan.streams.hasInput = true
    plan.streams.detachKeys = [16, 17]
    plan.otherNamespaces = [NamespacePlan(kind: 0x4000_0000, process: 77)]
    plan.mounts = [MountPlan(target: "/data", isDirectory: true), MountPlan(target: "/etc/hosts", isDirectory: false)]
    plan.systemControls = [PairPlan("a.b", "1")]
    plan.cgroupEntryCount = 3
    plan.logMaximumSize = .max
    return plan
  }

  private static var exec: ExecPlan {
    var plan = ExecPlan()
    plan.name = "x"
    plan.process.score = -5
    return plan
  }

  private static let toShim: [ToShim] = [
    .start(plan), .exec(exec), .attach(plan.streams), .resize(process: "a", rows: 1, columns: 2), .acknowledgeExit,
    .hello, .terminate, .hold, .standBy, .settle,
  ]
  private static let fromShim: [FromShim] = [
    .started(pid: 5, time: -1, warnings: ["w", ""], steps: nil), .started(pid: 5, time: -1, warnings: [], steps: []),
    .started(pid: 5, time: -1, warnings: [], steps: [StepPlan("clone3", isInProcess: true, begin: 1, end: 2)]),
    .failed(.notExecutable, "no"), .done, .exited(code: 137, time: 9, canServeAgain: false),
    .exited(code: 0, time: 10, canServeAgain: true),
    .execExited(process: "e", code: 1, time: 2), .detached(process: "", client: 7), .state(shim: 3, pid: 4),
  ]

  @Test func roundTrips() throws {
    for body in Self.toShim {
      let frame = try Frame<ToShim>(decoding: Frame(number: 7, body: body).encoded())
      #expect(frame.body == body && frame.number == 7)
    }
    for body in Self.fromShim {
      #expect(try Frame<FromShim>(decoding: Frame(number: 0, body: body).encoded()).body == body)
    }
  }

  @Test func everyCutIsRefused() throws {
    for body in Self.toShim {
      let bytes = try Frame(number: 1, body: body).encoded()
      for length in 0..<bytes.count {
        #expect(throws: ProtocolError.self) { _ = try Frame<ToShim>(decoding: Array(bytes[..<length])) }
      }
      #expect(throws: ProtocolError.trailing(1)) { _ = try Frame<ToShim>(decoding: bytes + [0]) }
    }
  }

  @Test func anotherVersionIsNamed() throws {
    var bytes = try Frame(number: 1, body: ToShim.hello).encoded()
    bytes[0] = 9
    #expect(throws: ProtocolError.version(9)) { _ = try Frame<ToShim>(decoding: bytes) }
  }

  /// Any bytes decode or are refused, and what decodes encodes to the same value again.
  @Test func noise() throws {
    var generator = SystemRandomNumberGenerator()
    let seed = try Frame(number: 1, body: Self.toShim[0]).encoded()
    for _ in 0..<20_000 {
      var bytes = seed
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        bytes[Int.random(in: 1..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      }
      guard let frame = try? Frame<ToShim>(decoding: bytes) else { continue }
      #expect(try Frame<ToShim>(decoding: frame.encoded()).body == frame.body)
    }
  }

  @Test func longFramesTravelInMemory() throws {
    var ends: [Int32] = [-1, -1]
    #expect(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0)
    let first = OwnedDescriptor(adopting: ends[0]), second = OwnedDescriptor(adopting: ends[1])
    var plan = StartPlan()
    plan.process.environment = [String(repeating: "x", count: 900_000)]
    let file = try Files.open("/dev/zero", O_RDONLY)
    try Channel.send(Frame(number: 1, body: ToShim.start(plan)), descriptors: [file.number], to: first.number)
    let received = try #require(try Channel.receive(from: second.number))
    #expect(try Frame<ToShim>(decoding: received.bytes).body == .start(plan))
    #expect(received.descriptors.count == 1)
    for number in received.descriptors { close(number) }
    #expect(shutdown(first.number, Int32(SHUT_RDWR)) == 0)
    #expect(try Channel.receive(from: second.number) == nil)
  }
}

@Suite struct ShimPartTests {
  @Test(
    arguments: [
      ("ab", [[]], "ab", false), ("a\u{10}b", [[16, 17]], "a\u{10}b", false),
      ("a\u{10}\u{11}b", [[16, 17]], "a", true),
      ("\u{10}\u{10}\u{11}", [[16, 17]], "\u{10}", true), ("xqx", [[113]], "x", true),
    ] as [(String, [[UInt8]], String, Bool)])
  func detachKeys(typed: String, sequences: [[UInt8]], passed: String, isDetached: Bool) {
    for sequence in sequences {
      // At once, and key by key.
      for step in [typed.utf8.count, 1] {
        var keys = DetachKeys(sequence)
        var result: [UInt8] = []
        var detached = false
        let bytes = Array(typed.utf8)
        var index = 0
        while index < bytes.count && !detached {
          let chunk = Array(bytes[index..<min(index + step, bytes.count)])
          let (out, done) = chunk.withUnsafeBytes { keys.filter($0[...]) }
          result += out
          detached = done
          index += step
        }
        #expect(String(decoding: result, as: UTF8.self) == passed)
        #expect(detached == isDetached)
      }
    }
  }

  @Test func hostileUserFiles() throws {
    let passwd = Array("\u{0}\n:::\nbad:x:abc:1\nbig:x:99999999999999999999:1\na:x:5\nroot:x:0:0::/root:\nx:x:9:8".utf8)
    let found = try Users.resolve("x", additional: [], passwd: passwd, group: [])
    #expect(found == Identity(user: 9, group: 8, supplementary: [8], home: "/"))
    #expect(try Users.resolve("", additional: [], passwd: passwd, group: []).home == "/root")
    #expect(try Users.resolve("", additional: ["7"], passwd: [], group: [0, 58, 255]).supplementary == [0, 7])
    for bad in ["big", "3000000000", "x:nogroup", "x:3000000000"] {
      #expect(throws: SetupFailure.self) { _ = try Users.resolve(bad, additional: [], passwd: passwd, group: []) }
    }
  }

  @Test func jsonText() {
    var result: [UInt8] = []
    JSONText.escape([34, 92, 9, 10, 13, 1, 60, 127, 255, 0xc3, 0xa9], into: &result)
    #expect(String(decoding: result, as: UTF8.self) == #"\"\\\t\n\r\u0001\u003c\u007f"# + "\u{FFFD}\u{e9}")
  }

  @Test func hierarchies() {
    let hybrid = """
      31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
      32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
      """
    #expect(
      PlanBuilder.hierarchies(hybrid) == [
        PairPlan("cpu", "cpu,cpuacct"), PairPlan("systemd", "name=systemd"), PairPlan("unified", ""),
      ])
    #expect(
      PlanBuilder.hierarchies("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate") == [PairPlan("", "")])
    #expect(PlanBuilder.hierarchies("garbage - \n\n").isEmpty)
  }

  @Test func names() throws {
    #expect(try KernelNames.capabilityMask(["CAP_CHOWN", "sys_admin"]) == 1 | 1 << 21)
    #expect(try KernelNames.detachKeys("ctrl-p,ctrl-q") == [16, 17])
    #expect(try KernelNames.detachKeys("a,ctrl-[") == [97, 27])
    for bad in ["ctrl-", "ctrl-1", "ab"] { #expect(throws: Error.self) { _ = try KernelNames.detachKeys(bad) } }
    #expect(throws: Error.self) { _ = try KernelNames.capabilityMask(["CAP_NOTHING"]) }
  }

  @Test func filtersAreCached() throws {
    let filters = SeccompFilters()
    let first = try filters.program(.standard, capabilities: 0, isPrivileged: false)
    #expect(first.count > 1000 && first.count % 8 == 0)
    #expect(try filters.program(.standard, capabilities: 0, isPrivileged: false) == first)
    #expect(try filters.program(.standard, capabilities: 1 << 21, isPrivileged: false) != first)
    #expect(try filters.program(.unconfined, capabilities: 0, isPrivileged: false).isEmpty)
    #expect(throws: Error.self) { _ = try filters.program(.profile("{"), capabilities: 0, isPrivileged: false) }
  }
}
