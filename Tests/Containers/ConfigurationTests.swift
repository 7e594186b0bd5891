import Contracts
import Testing

@testable import ContainersPlugin

@Suite struct ConfigurationTests {
  private func user(_ change: (inout ContainerConfiguration) -> Void) -> ContainerConfiguration {
    var configuration = ContainerConfiguration(image: "i")
    configuration.hostname = "h"
    change(&configuration)
    return configuration
  }

  struct Arguments: Sendable {
    var entrypoint: [String]?
    var command: [String]
    var imageEntrypoint: [String]?
    var imageCommand: [String]?
    var result: [String]?
  }

  @Test(arguments: [
    Arguments(entrypoint: nil, command: [], imageEntrypoint: nil, imageCommand: ["sh"], result: ["sh"]),
    Arguments(entrypoint: nil, command: ["ls"], imageEntrypoint: nil, imageCommand: ["sh"], result: ["ls"]),
    Arguments(entrypoint: nil, command: [], imageEntrypoint: ["e"], imageCommand: ["c"], result: ["e", "c"]),
    Arguments(entrypoint: nil, command: ["x"], imageEntrypoint: ["e"], imageCommand: ["c"], result: ["e", "x"]),
    Arguments(entrypoint: ["u"], command: [], imageEntrypoint: ["e"], imageCommand: ["c"], result: ["u"]),
    Arguments(entrypoint: ["u"], command: ["x"], imageEntrypoint: ["e"], imageCommand: ["c"], result: ["u", "x"]),
    Arguments(entrypoint: [""], command: ["x"], imageEntrypoint: ["e"], imageCommand: ["c"], result: ["x"]),
    Arguments(entrypoint: [], command: ["x"], imageEntrypoint: ["e"], imageCommand: ["c"], result: ["x"]),
    Arguments(entrypoint: [""], command: [], imageEntrypoint: ["e"], imageCommand: ["c"], result: nil),
    Arguments(entrypoint: nil, command: [], imageEntrypoint: nil, imageCommand: nil, result: nil),
    Arguments(entrypoint: nil, command: [], imageEntrypoint: nil, imageCommand: [""], result: nil),
  ])
  func mergesTheCommand(_ row: Arguments) {
    var image = ImageConfiguration.Execution()
    image.entrypoint = row.imageEntrypoint
    image.command = row.imageCommand
    let user = user {
      $0.entrypoint = row.entrypoint
      $0.command = row.command
    }
    #expect((try? Merge.arguments(user, image: image)) == row.result)
  }

  @Test(
    arguments: [
      ([], ["A=1"], ["A=1"]), (["A=2"], ["A=1", "B=1"], ["A=2", "B=1"]), (["A"], ["A=1", "B=1"], ["B=1"]),
      (["A=1", "A=2"], [], ["A=2"]), (["A="], ["A=1"], ["A="]),
    ] as [([String], [String], [String])])
  func mergesTheEnvironment(user: [String], image: [String], result: [String]) {
    #expect(Merge.environment(user, image: image) == result)
  }

  @Test func mergesTheRest() throws {
    var image = ImageConfiguration.Execution()
    image.command = ["sh"]
    image.user = "www"
    image.workingDirectory = "/srv"
    image.exposedPorts = ["80/tcp": EmptyObject(), "53/udp": EmptyObject()]
    image.volumes = ["/data": EmptyObject(), "/deep/er": EmptyObject()]
    image.stopSignal = "QUIT"
    let merged = try Merge.merge(
      user {
        $0.exposedPorts = ["8000-8001"]
        $0.publishesAllPorts = true
        $0.ports = [PortBinding(transport: .tcp, hostAddress: "", hostPort: 8080, containerPort: 80)]
        $0.mounts = [
          MountRequest(kind: .tmpfs, source: "", target: "/deep/er/est/"),
          MountRequest(kind: .volume, source: "v", target: "/x/../data"),
        ]
      }, image: image)
    #expect(merged.user == "www" && merged.workingDirectory == "/srv" && merged.stopSignal == "QUIT")
    #expect(merged.exposedPorts == ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"])
    #expect(merged.ports.map(\.containerPort) == [80, 53, 8000, 8001])
    #expect(merged.mounts.map(\.target) == ["/data", "/deep/er", "/deep/er/est"])
    #expect(merged.mounts.map(\.source) == ["v", "", ""])
  }

  struct Refusal: Sendable {
    var message: String
    var change: @Sendable (inout ContainerConfiguration) -> Void
    init(_ message: String, _ change: @escaping @Sendable (inout ContainerConfiguration) -> Void) {
      self.message = message
      self.change = change
    }
  }

  static let refusals: [Refusal] = [
    Refusal(
      "can't create 'AutoRemove' container with restart policy",
      {
        $0.restart = .always
        $0.removesItself = true
      }),
    Refusal("Minimum memory limit allowed is 6MB", { $0.limits.memory = 5 }),
    Refusal(
      "Nano CPUs and CPU Period",
      {
        $0.limits.nanoCPUs = 1
        $0.limits.cpuPeriod = 1
      }
    ),
    Refusal("invalid capability", { $0.addedCapabilities = ["NOPE"] }),
    Refusal("invalid --security-opt", { $0.securityOptions = ["x=y"] }),
    Refusal("not in a separate kernel namespace", { $0.systemControls = ["vm.swappiness": "1"] }),
    Refusal(
      "not allowed in host network",
      {
        $0.systemControls = ["net.core.somaxconn": "1"]
        $0.networkMode = "host"
      }
    ),
    Refusal("must be absolute", { $0.mounts = [MountRequest(kind: .tmpfs, source: "", target: "t")] }),
    Refusal("can't be '/'", { $0.mounts = [MountRequest(kind: .tmpfs, source: "", target: "/x/..")] }),
    Refusal(
      "Duplicate mount point: /t",
      { $0.mounts = Array(repeating: MountRequest(kind: .tmpfs, source: "", target: "/t"), count: 2) }
    ),
    Refusal("needs to be an absolute path", { $0.workingDirectory = "srv" }),
    Refusal("Invalid signal: NOPE", { $0.stopSignal = "NOPE" }),
    Refusal("bad format for add-host", { $0.extraHosts = ["x"] }),
    Refusal("invalid IP address in add-host", { $0.extraHosts = ["x:1.2.3"] }),
    Refusal("is not an ip address", { $0.dnsServers = ["dns"] }),
    Refusal("hostname and the UTS mode", { $0.utsMode = .host }),
    Refusal("invalid range format", { $0.exposedPorts = ["90-80"] }),
    Refusal("invalid hostname", { $0.hostname = "a b" }),
  ]

  @Test(arguments: refusals)
  func refuses(_ row: Refusal) async {
    var image = ImageConfiguration.Execution()
    image.command = ["sh"]
    let error = await failure { _ = try Merge.merge(user(row.change), image: image) }
    #expect(error?.message.contains(row.message) == true, "\(String(describing: error))")
  }

  @Test(
    arguments: [
      ([], [], Capabilities.standard), (["SYS_ADMIN"], [], Capabilities.standard + ["CAP_SYS_ADMIN"]),
      (["cap_chown"], [], Capabilities.standard), ([], ["ALL"], []), (["CHOWN"], ["ALL"], ["CAP_CHOWN"]),
      (["ALL"], ["CAP_NET_RAW"], Capabilities.all.filter { $0 != "CAP_NET_RAW" }),
      ([], ["KILL"], Capabilities.standard.filter { $0 != "CAP_KILL" }),
    ] as [([String], [String], [String])])
  func resolvesCapabilities(added: [String], dropped: [String], result: [String]) throws {
    #expect(
      try Capabilities.resolve(
        added: added, dropped: dropped, isPrivileged: false, available: Capabilities.all) == result)
  }

  @Test func knowsCapabilities() throws {
    #expect(Capabilities.standard.count == 14 && Capabilities.all.count == 41)
    #expect(Set(Capabilities.standard).isSubset(of: Capabilities.all))
    #expect(
      try Capabilities.resolve(added: [], dropped: ["ALL"], isPrivileged: true, available: ["CAP_X"]) == ["CAP_X"])
  }

  @Test func readsSecurityOptions() throws {
    let options = try SecurityOptions(["no-new-privileges", "seccomp={}", "apparmor=x", "label:disable"])
    #expect(options.noNewPrivileges && options.seccomp == .profile("{}"))
    #expect(try SecurityOptions(["seccomp=unconfined"]).seccomp == .unconfined)
    #expect(try SecurityOptions(["no-new-privileges:false"]).noNewPrivileges == false)
  }

  @Test(arguments: [
    (
      "nameserver 1.1.1.1\nnameserver 127.0.0.1\nsearch a b\noptions ndots:2\n",
      "nameserver 1.1.1.1\nsearch a b\noptions ndots:2\n"
    ),
    ("# none\nnameserver 127.0.0.53\nnameserver ::1\n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
    ("", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
  ])
  func makesResolverFiles(host: String, result: String) {
    #expect(GeneratedFiles.resolver(user { _ in }, host: host, keepsLoopback: false) == result)
  }

  @Test func usersResolverWins() {
    let configuration = user {
      $0.dnsServers = ["9.9.9.9"]
      $0.dnsSearch = ["."]
      $0.dnsOptions = ["rotate"]
    }
    #expect(
      GeneratedFiles.resolver(configuration, host: "nameserver 1.1.1.1\nsearch a\n", keepsLoopback: false)
        == "nameserver 9.9.9.9\noptions rotate\n")
    #expect(
      GeneratedFiles.resolver(user { _ in }, host: "nameserver 127.0.0.1\n", keepsLoopback: true)
        == "nameserver 127.0.0.1\n")
  }

  @Test func makesHosts() throws {
    let endpoint = Endpoint(
      id: .random(), networkID: .random(), networkName: "bridge", driver: "bridge", address: "172.17.0.5",
      gateway: "172.17.0.1")
    let configuration = user {
      $0.domainname = "example.org"
      $0.extraHosts = ["db:10.0.0.1", "gw=host-gateway", "six:[::2]"]
    }
    let hosts = try GeneratedFiles.hosts(configuration, endpoints: [endpoint])
    #expect(hosts.hasPrefix("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost"))
    #expect(
      hosts.hasSuffix(
        "10.0.0.1\tdb\n172.17.0.1\tgw\n::2\tsix\n172.17.0.5\th.example.org h\n"))
    #expect(try GeneratedFiles.hosts(user { _ in }, endpoints: [], base: "1.1.1.1 x") == "1.1.1.1 x\n")
    #expect(throws: EngineError.self) { try GeneratedFiles.hosts(configuration, endpoints: []) }
  }

  @Test func inventsNames() throws {
    #expect(Set(Names.adjectives).count >= 90 && Set(Names.surnames).count >= 90)
    #expect(Set(Names.adjectives).count == Names.adjectives.count)
    #expect(Set(Names.surnames).count == Names.surnames.count)
    let name = Names.invent { _ in true }
    #expect(try Names.validate(name) == name && name.split(separator: "_").count == 2)
    #expect(Names.invent { $0.last?.isNumber == true }.last?.isNumber == true)
  }

  @Test(arguments: ["web", "/web", "a1", "A.b-c_d"]) func allowsNames(_ name: String) throws {
    #expect(try !Names.validate(name).hasPrefix("/"))
  }

  @Test(arguments: ["", "a", "-a", "_ab", "a b", "a/b", "ä1"]) func refusesNames(_ name: String) async {
    #expect(await failure { _ = try Names.validate(name) }?.message.contains("Invalid container name") == true)
  }

  @Test(
    arguments: [
      ("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("1", 1), ("RTMIN+3", 37), ("SIGRTMAX-1", 63),
    ] as [(String, Int32)])
  func readsSignals(text: String, number: Int32) throws {
    #expect(try Signals.parse(text) == number)
  }

  @Test func upTimeIsKnownOrNothing() {
    func at(_ seconds: Int64) -> Timestamp { Timestamp(nanoseconds: seconds * 1_000_000_000) }
    #expect(Lifecycle.upTime(from: at(10), to: at(25)) == 15_000_000_000)
    #expect(Lifecycle.upTime(from: at(25), to: at(10)) == 0)
    #expect(Lifecycle.upTime(from: .never, to: at(10)) == 0)
  }
}
