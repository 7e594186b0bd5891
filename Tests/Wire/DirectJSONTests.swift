import Contracts
import Glibc
import Testing

@testable import Wire

/// The short way of a message to JSON and back means what `Codable` means, byte for byte.
@Suite("Direct JSON")
struct DirectJSONTests {
  /// The test library has one as well.
  typealias Status = Contracts.ExitStatus

  /// Values of every shape a member can have, from a seed.
  struct Values {
    var generator: Generator

    struct Generator: RandomNumberGenerator {
      var state: UInt64
      mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ (state >> 29)
      }
    }

    init(seed: UInt64) { generator = Generator(state: seed) }

    mutating func flag() -> Bool { Bool.random(using: &generator) }
    mutating func whole<Number: FixedWidthInteger>() -> Number {
      [.min, .max, 0, Number.random(in: .min ... .max, using: &generator)].randomElement(using: &generator) ?? 0
    }
    mutating func text() -> String {
      ["", "a", "quote\"", "\\", "tab\t", "\u{0}", "☃𝄞", "a=b"].randomElement(using: &generator) ?? ""
    }
    mutating func texts() -> [String] { (0..<Int.random(in: 0...3, using: &generator)).map { _ in text() } }
    mutating func dictionary() -> [String: String] {
      Dictionary(texts().map { ($0, text()) }, uniquingKeysWith: { first, _ in first })
    }
    mutating func maybe<Value>(_ make: (inout Values) -> Value) -> Value? { flag() ? make(&self) : nil }
    mutating func choice<Value>(_ values: [Value]) throws -> Value {
      try #require(values.randomElement(using: &generator))
    }
    mutating func list<Value>(_ make: (inout Values) throws -> Value) rethrows -> [Value] {
      try (0..<Int.random(in: 0...2, using: &generator)).map { _ in try make(&self) }
    }
  }

  private static func configuration(_ values: inout Values) throws -> ContainerConfiguration {
    var it = ContainerConfiguration(image: values.text())
    let texts: [WritableKeyPath<ContainerConfiguration, String>] = [
      \.workingDirectory, \.user, \.hostname, \.domainname, \.networkMode, \.stopSignal, \.limits.cpusetCPUs,
      \.limits.cpusetMemoryNodes,
    ]
    for path in texts { it[keyPath: path] = values.text() }
    let lists: [WritableKeyPath<ContainerConfiguration, [String]>] = [
      \.command, \.environment, \.additionalGroups, \.volumesFrom, \.exposedPorts, \.extraHosts, \.dnsServers,
      \.dnsSearch, \.dnsOptions, \.addedCapabilities, \.droppedCapabilities, \.securityOptions,
    ]
    for path in lists { it[keyPath: path] = values.texts() }
    let flags: [WritableKeyPath<ContainerConfiguration, Bool>] = [
      \.hasTerminal, \.keepsInputOpen, \.attachesInput, \.attachesOutput, \.attachesError, \.removesItself,
      \.publishesAllPorts, \.isRootReadOnly, \.isPrivileged, \.usesInit, \.limits.disablesOOMKill,
      \.limits.allowsAllDevices,
    ]
    for path in flags { it[keyPath: path] = values.flag() }
    let wholes: [WritableKeyPath<ContainerConfiguration, Int64>] = [
      \.sharedMemorySize, \.limits.nanoCPUs, \.limits.cpuQuota, \.limits.memory, \.limits.memoryReservation,
      \.limits.memorySwap, \.limits.pids,
    ]
    for path in wholes { it[keyPath: path] = values.whole() }
    let dictionaries: [WritableKeyPath<ContainerConfiguration, [String: String]>] = [
      \.labels, \.systemControls, \.logOptions,
    ]
    for path in dictionaries { it[keyPath: path] = values.dictionary() }
    let modes: [WritableKeyPath<ContainerConfiguration, ContainerConfiguration.NamespaceMode>] = [
      \.pidMode, \.ipcMode, \.utsMode, \.cgroupNamespaceMode,
    ]
    for path in modes {
      it[keyPath: path] = try values.choice([.own, .host, .container(values.text()), .shareable, .none])
    }
    it.entrypoint = values.maybe { $0.texts() }
    it.restart = try values.choice([.no, .onFailure(maximumRetries: values.whole()), .always, .unlessStopped])
    it.limits.cpuPeriod = values.whole()
    it.limits.cpuShares = values.whole()
    it.limits.blkioWeight = values.whole()
    it.outOfMemoryScoreAdjustment = values.whole()
    it.stopTimeout = values.maybe { $0.whole() }
    it.logDriver = values.maybe { $0.text() }
    it.platform = values.maybe { $0.text() }
    it.mounts = try values.list { values in
      MountRequest(
        kind: try values.choice([.volume, .bind, .tmpfs]), source: values.text(), target: values.text(),
        isReadOnly: values.flag(), driver: values.maybe { $0.text() }, driverOptions: values.dictionary(),
        labels: values.dictionary(), createsSource: values.flag(), copiesImage: values.flag(),
        subpath: values.text(), propagation: values.text(), isRecursive: values.flag(), tmpfsOptions: values.texts())
    }
    it.networks = values.list { values in
      EndpointRequest(
        network: values.text(), address: values.maybe { $0.text() }, hardwareAddress: values.maybe { $0.text() },
        aliases: values.texts())
    }
    it.ports = try values.list { values in
      PortBinding(
        transport: try values.choice(TransportProtocol.allCases), hostAddress: values.text(),
        hostPort: values.whole(), hostPortEnd: values.whole(), containerPort: values.whole())
    }
    // As many as a range has.
    for number in 0..<UInt16(values.list { $0.text() }.count) {
      it.ports.append(
        PortBinding(transport: .tcp, hostAddress: "", hostPort: 8000 + number, containerPort: 80 + number))
    }
    it.resourceLimits = values.list { values in
      RuntimeSpecification.Process.ResourceLimit(name: values.text(), soft: values.whole(), hard: values.whole())
    }
    return it
  }

  private static func streams(_ values: inout Values) -> StandardStreams {
    func descriptor(_ values: inout Values) -> Descriptor? { values.maybe { _ in Descriptor(adopting: dup(1)) } }
    return StandardStreams(
      input: descriptor(&values), output: descriptor(&values), error: descriptor(&values),
      keepsInputOpen: values.flag(), detachKeys: values.text(), rows: values.whole(), columns: values.whole())
  }

  private static func check(_ message: some Message) throws {
    let (direct, usual) = (DescriptorTable(), DescriptorTable())
    let json = try #require(message.json(direct))
    #expect(try text(JSON.encode(json)) == text(JSON.encode(message, descriptors: usual)))
    #expect(direct.outgoing.map(\.number) == usual.outgoing.map(\.number))
  }

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  @Test(arguments: UInt64(1)...60)
  func whatIsSentIsWhatCodableWrites(seed: UInt64) throws {
    var values = Values(seed: seed)
    let configuration = try Self.configuration(&values)
    let name = values.maybe { $0.text() }
    try Self.check(
      ContainerRun(
        containerName: name, configuration: configuration, isDetached: values.flag(),
        streams: Self.streams(&values)))
    try Self.check(
      ContainerStart(container: values.text(), isAttached: values.flag(), streams: Self.streams(&values)))
    try Self.check(ContainerAttach(container: values.text(), streams: Self.streams(&values)))
    try Self.check(
      ContainerExec(
        container: values.text(), command: values.texts(), environment: values.texts(),
        workingDirectory: values.text(), user: values.text(), hasTerminal: values.flag(),
        isPrivileged: values.flag(), isDetached: values.flag(), streams: Self.streams(&values)))
    try Self.check(ContainerSummaries(all: values.flag()))
    let hello = Hello(agent: values.text(), capabilities: values.texts())
    #expect(try Self.text(JSON.encode(hello.json)) == Self.text(JSON.encode(hello)))
  }

  private static func comesBack<Value: DirectlyDecodable & Encodable & Equatable>(_ value: Value) throws {
    let json = try JSON.parse(try JSON.encode(value))
    #expect(Value(json: json) == value)
    #expect(try Body(value: json).decode(Value.self) == value)
    #expect(try Body(value: .array([json, json])).decode([Value].self) == [value, value])
    #expect(try Body(value: json).decode(Value?.self) == value)
    #expect(try Body(value: .null).decode(Value?.self) == nil)
  }

  @Test func whatIsReceivedIsWhatCodableReads() throws {
    let id = ObjectID.random()
    for element: ContainerRunElement in [
      .created(id, warnings: []), .created(id, warnings: ["a", "b\""]), .started, .detached,
    ] { try Self.comesBack(element) }
    for element: ContainerExec.Element in [.created(id), .started, .detached] { try Self.comesBack(element) }
    for code: Int32 in [0, 255, .min] {
      try Self.comesBack(Status(code: code, finished: Timestamp(nanoseconds: 1_234_567_891), reason: "why"))
    }
    try Self.comesBack(Status(code: 1, finished: .never))
    try Self.comesBack(Hello(agent: "engine", capabilities: ["a"]))
  }

  @Test(arguments: UInt64(1)...20)
  func listsAreReadAsCodableReadsThem(seed: UInt64) throws {
    var values = Values(seed: seed)
    let digest = try #require(Digest(hex: String(repeating: "0a", count: 32)))
    var record = ContainerRecord(
      id: .random(), name: values.text(), created: .now, configuration: try Self.configuration(&values),
      imageID: digest, layers: values.list { _ in digest }, path: values.text(), arguments: values.texts(),
      environment: [], workingDirectory: "", user: "", exposedPorts: values.texts(), stopSignal: "",
      imageLabels: values.dictionary(), mounts: [],
      mountPoints: try values.list { values in
        MountPoint(
          kind: try values.choice([.volume, .bind, .tmpfs]), volume: values.text(), source: values.text(),
          target: values.text(), driver: values.text(), isReadOnly: values.flag(), propagation: values.text())
      },
      log: LogOpen.Reply(path: "", maximumSize: 0, maximumFiles: 0))
    record.publishedPorts = record.configuration.ports
    record.endpoints = values.list { values in
      Endpoint(
        id: .random(), networkID: .random(), networkName: values.text(), driver: values.text(),
        interface: values.text(), address: values.text(), prefixLength: values.whole(), gateway: values.text(),
        hardwareAddress: values.text(), aliases: values.texts())
    }
    record.state.status = try values.choice(ContainerStatus.allCases)
    record.state.pid = values.whole()
    record.state.shimPID = values.whole()
    record.state.exitCode = values.whole()
    record.state.wasKilledForMemory = values.flag()
    record.state.error = values.text()
    record.state.started = try values.choice([.now, .never])
    record.state.finished = try values.choice([.now, .never])
    record.state.wasStoppedByUser = values.flag()
    record.state.restartCount = values.whole()
    try Self.comesBack(ContainerSummary(record))
  }

  /// What does not fit is refused in the words of `Codable`.
  @Test(arguments: [
    (#"{"finished":"0001-01-01T00:00:00Z","reason":""}"#, "code is missing"),
    (#"{"code":"1","finished":"0001-01-01T00:00:00Z","reason":""}"#, "code: a whole number was expected"),
    (#"{"code":4294967296,"finished":"0001-01-01T00:00:00Z","reason":""}"#, "code: the number does not fit"),
    (#"{"code":1,"finished":"yesterday","reason":""}"#, "not an RFC 3339 time"), ("[]", "an object was expected"),
  ])
  func whatDoesNotFitIsRefused(text: String, expected: String) throws {
    let body = Body(value: try JSON.parse(Array(text.utf8)))
    let error = #expect(throws: EngineError.self) { _ = try body.decode(Status.self) }
    #expect(error?.message.contains(expected) == true, "\(error?.message ?? "")")
    #expect(throws: EngineError.self) { _ = try Body(value: .array([body.value])).decode([Status].self) }
  }

  @Test func envelopesHoldTheirMembersInOrder() throws {
    func sent(_ frame: OutgoingFrame) -> String { Self.text(Array(frame.bytes.dropFirst(FrameHeader.size))) }
    #expect(
      sent(try OutgoingMessage.request(3, ContainerSummaries(all: true), driver: "d", trace: "t", deadline: 5))
        == #"{"jsonrpc":"2.0","id":3,"method":"container.summaries","driver":"d","trace":"t","deadline":5,"#
        + #""params":{"all":true}}"#)
    let nothing: Status? = nil
    #expect(
      sent(try OutgoingMessage.request(UInt64.max, "x", Done()))
        == #"{"jsonrpc":"2.0","id":18446744073709551615,"method":"x","params":{}}"#)
    #expect(sent(try OutgoingMessage.result(1, nothing)) == #"{"jsonrpc":"2.0","id":1,"result":null}"#)
    #expect(
      sent(try OutgoingMessage.failure(nil, EngineError(.unknownMessage, "w")))
        == #"{"jsonrpc":"2.0","error":{"code":-32601,"message":"w","#
        + #""data":{"code":"unknownMessage","message":"w","causes":[]}}}"#)
  }

  /// A value inside another one is written as by itself, also where lines are broken.
  @Test(arguments: [true, false])
  func valuesAreWrittenAlikeEverywhere(pretty: Bool) throws {
    let text = #"{"a":[],"b":{},"c":[1,-2.5,18446744073709551615,null,true,{"d":["e\n",[]]}]}"#
    let value = try JSON.parse(Array(text.utf8))
    struct Box: Encodable { var value: JSONValue }
    let inside = try JSON.encode(["value": value], pretty: pretty)
    #expect(Self.text(inside) == Self.text(try JSON.encode(Box(value: value), pretty: pretty)))
    #expect(try JSON.parse(inside)["value"] == value)
    if !pretty { #expect(Self.text(try JSON.encode(value)) == text) }
    let broken = JSONValue.array([.number(.infinity)])
    #expect(throws: EngineError.self) { try JSON.encode(["value": broken]) }
  }
}
