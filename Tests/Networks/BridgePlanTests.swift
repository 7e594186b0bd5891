import Contracts
import Kernel
import Testing

@testable import BridgeNetworkPlugin

struct BridgeConfigurationTests {
  @Test(
    arguments: [
      ("pool", "", true), ("pool", "10.44.0.0/24", true), ("pool", "10.0.0.0/8", true), ("pool", "10.44.0.0", false),
      ("pool", "10.44.0.0/31", false), ("pool", "10.0.0.0/7", false), ("pool", "fd00::/64", false),
      ("pool", "mine", false), ("name", "", true), ("name", "mine0", true), ("name", "exactly15bytes-", true),
      ("name", "more-than-15-byt", false), ("name", "a/b", false), ("name", "a b", false), ("name", "a:b", false),
      ("name", ".", false),
    ])
  func aKeyIsCheckedWhenTheFileIsRead(key: String, text: String, isAllowed: Bool) throws {
    let known = try #require(BridgeNetworkPlugin.manifest.keys.first { $0.name == key })
    let complaint = known.complaint(about: .text(text))
    #expect((complaint == nil) == isAllowed)
    #expect(isAllowed || complaint?.hasSuffix(", not \"\(text)\"") == true, "\(complaint ?? "")")
  }
}

struct AddressAllocatorTests {
  private static let subnet = IPv4Subnet("172.17.0.0/16")
  private func allocator(_ subnet: String, range: String? = nil, gateway: String) throws -> AddressAllocator {
    AddressAllocator(
      subnet: try #require(IPv4Subnet(subnet)), range: try range.map { try #require(IPv4Subnet($0)) },
      gateway: try #require(IPv4Address(gateway)))
  }

  @Test(
    arguments: [
      ("172.17.0.0/16", nil, "172.17.0.1", ["172.17.0.2", "172.17.0.3"]),
      ("10.0.0.0/24", nil, "10.0.0.2", ["10.0.0.1", "10.0.0.3"]),
      ("10.0.0.0/16", "10.0.5.0/24", "10.0.0.1", ["10.0.5.0", "10.0.5.1"]),
      ("10.0.0.0/24", "10.0.0.0/28", "10.0.0.1", ["10.0.0.2", "10.0.0.3"]),
    ] as [(String, String?, String, [String])])
  func lowestFreeFirst(subnet: String, range: String?, gateway: String, expected: [String]) throws {
    var allocator = try allocator(subnet, range: range, gateway: gateway)
    #expect(try expected.map { _ in try allocator.next().description } == expected)
  }

  @Test func releasedAddressesComeBackInOrder() throws {
    var allocator = try allocator("172.17.0.0/16", gateway: "172.17.0.1")
    let given = try (0..<5000).map { _ in try allocator.next() }
    #expect(given.last?.description == "172.17.19.137")
    #expect(Set(given).count == 5000)
    allocator.release(given[40])
    allocator.release(given[7])
    #expect(try allocator.next() == given[7])
    #expect(try allocator.next() == given[40])
    #expect(try allocator.next().description == "172.17.19.138")
  }

  @Test func aFullSubnetSaysSo() throws {
    var allocator = try allocator("10.0.0.0/29", gateway: "10.0.0.1")
    for _ in 0..<5 { _ = try allocator.next() }
    #expect(
      throws: EngineError(
        .resourceExhausted, "no available IPv4 addresses on this network's address pools: 10.0.0.0/29")
    ) { try allocator.next() }
  }

  @Test(
    arguments: [
      ("10.0.0.9", nil), ("10.0.0.1", EngineError.Code.conflict), ("10.0.0.0", .conflict), ("10.0.0.255", .conflict),
      ("10.0.0.7", .conflict), ("10.0.1.1", .invalidArgument),
    ] as [(String, EngineError.Code?)])
  func wantedAddresses(address: String, refusal: EngineError.Code?) throws {
    var allocator = try allocator("10.0.0.0/24", gateway: "10.0.0.1")
    try allocator.take(try #require(IPv4Address("10.0.0.7")))
    var code: EngineError.Code?
    do { try allocator.take(try #require(IPv4Address(address))) } catch let error as EngineError { code = error.code }
    #expect(code == refusal)
  }
}

struct AddressTextTests {
  @Test(arguments: [
    ("1.2.3.4", true), ("0.0.0.0", true), ("255.255.255.255", true), ("1.2.3", false), ("1.2.3.4.5", false),
    ("1.2.3.256", false), ("01.2.3.4", false), ("1.2.3.+4", false), ("", false), ("::1", false), ("1.2.3.4 ", false),
  ])
  func addresses(text: String, isAddress: Bool) {
    #expect(IPv4Address(text)?.description == (isAddress ? text : nil))
  }

  @Test(
    arguments: [
      ("10.1.2.3/8", "10.0.0.0/8"), ("192.168.0.0/20", "192.168.0.0/20"), ("10.0.0.0/33", nil), ("10.0.0.0", nil),
      ("10.0.0.0/", nil), ("0.0.0.0/0", "0.0.0.0/0"),
    ] as [(String, String?)])
  func subnets(text: String, expected: String?) { #expect(IPv4Subnet(text)?.description == expected) }

  @Test(arguments: [
    ("02:42:ac:11:00:02", true), ("02-42-ac-11-00-02", true), ("01:00:00:00:00:00", false), ("02:42:ac:11:00", false),
    ("2:42:ac:11:0:2", false), ("02:42:ac:11:00:zz", false),
  ])
  func hardwareAddresses(text: String, isAddress: Bool) { #expect((HardwareAddress(text) != nil) == isAddress) }

  @Test func publishedPortsReadBack() throws {
    for host in [nil, IPv4Address("127.0.0.1")] {
      let port = PublishedPort(
        transport: .udp, hostAddress: host, hostPort: 65535, address: try #require(IPv4Address("172.17.0.2")), port: 53)
      #expect(PublishedPort(port.text) == port)
      #expect(PublishedPort(key: port.key, value: port.value, withAddress: host != nil) == port)
    }
  }
}

struct NetworkPlanTests {
  private func plan(
    _ survey: HostSurvey, isDefault: Bool = true, takesDockerNames: Bool = true, pools: [AddressPool] = [],
    options: [String: String] = [:], ownBridge: String? = nil
  ) throws -> NetworkPlan {
    try NetworkPlan(
      NetworkDefinition(
        id: try #require(ObjectID(String(repeating: "ab", count: 32))), name: "n", driver: "bridge", created: .now,
        pools: pools, options: options, isDefault: isDefault),
      survey, ownBridge: ownBridge, takesDockerNames: takesDockerNames, engineBridge: "engine0")
  }

  private func survey(_ links: [String] = [], _ subnets: [String] = [], own: [String] = []) -> HostSurvey {
    HostSurvey(
      links: links.enumerated().map { Link(index: Int32($0.offset + 2), name: $0.element, isUp: true) },
      subnets: subnets.compactMap { IPv4Subnet($0) }.map { HostSubnet(subnet: $0, link: 99) },
      own: own.compactMap { IPv4Subnet($0) })
  }

  @Test(
    arguments: [
      ([], [], true, "docker0", "172.17.0.0/16"),
      (["docker0"], [], true, "engine0", "172.18.0.0/16"),
      ([], ["172.17.3.0/24"], true, "engine0", "172.18.0.0/16"),
      (["docker0"], ["172.17.0.0/16", "172.18.0.0/16"], true, "engine0", "172.19.0.0/16"),
      ([], [], false, "engine0", "172.18.0.0/16"),
      ([], ["172.16.0.0/12"], true, "engine0", "192.168.0.0/20"),
      ([], ["172.16.0.0/12", "192.168.1.0/24"], true, "engine0", "192.168.16.0/20"),
    ] as [([String], [String], Bool, String, String)])
  func defaultNetwork(links: [String], subnets: [String], docker: Bool, bridge: String, subnet: String) throws {
    let plan = try plan(survey(links, subnets), takesDockerNames: docker)
    #expect(plan.bridge == bridge)
    #expect(plan.subnet.description == subnet)
  }

  @Test func aUsersNetworkIsNamedByItsID() throws {
    let plan = try plan(survey(own: ["172.17.0.0/16"]), isDefault: false)
    #expect(plan.bridge == "br-abababababab")
    #expect(plan.subnet.description == "172.18.0.0/16")
    #expect(plan.gateway.description == "172.18.0.1")
  }

  @Test func aTakenChoiceOfTheDefaultNetworkIsMadeAgain() throws {
    let plan = try plan(
      survey(["docker0"], ["172.17.0.0/16"]), pools: [AddressPool(subnet: "172.17.0.0/16", gateway: "172.17.0.1")],
      options: [BridgeOptions.bridgeName: "docker0"])
    #expect(plan.bridge == "engine0")
    #expect(plan.subnet.description == "172.18.0.0/16")
  }

  @Test(
    arguments: [
      ([AddressPool(subnet: "10.0.0.0/24")], [:], EngineError.Code.conflict),
      ([AddressPool(subnet: "10.1.0.0/31")], [:], .invalidArgument),
      ([AddressPool(subnet: "fd00::/64")], [:], .invalidArgument),
      ([AddressPool(subnet: "10.1.0.0/24", gateway: "10.2.0.1")], [:], .invalidArgument),
      ([AddressPool(subnet: "10.1.0.0/24", range: "10.2.0.0/28")], [:], .invalidArgument),
      ([AddressPool(subnet: "10.1.0.0/24"), AddressPool(subnet: "10.2.0.0/24")], [:], .unsupported),
      ([], [BridgeOptions.mtu: "12"], .invalidArgument), ([], [BridgeOptions.bridgeName: "a/b"], .invalidArgument),
      ([], [BridgeOptions.bridgeName: "sixteen-letters-"], .invalidArgument),
      ([], [BridgeOptions.connects: "maybe"], .invalidArgument),
      ([], [BridgeOptions.hostAddress: "::1"], .invalidArgument),
    ] as [([AddressPool], [String: String], EngineError.Code)])
  func refusals(pools: [AddressPool], options: [String: String], code: EngineError.Code) throws {
    let error = try #require(throws: EngineError.self) {
      try plan(
        survey([], ["10.0.0.0/8"].filter { _ in code == .conflict }), isDefault: false, pools: pools, options: options)
    }
    #expect(error.code == code)
  }
}
