import Contracts
import Glibc
import Kernel
import LinuxSystem
import Testing

@testable import VolumeCatalogPlugin

@Suite struct CatalogTests {
  @Test func volumesAreMadeListedAndRemoved() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let made = try await fixture.create("data")
    #expect(made.driver == "local")
    #expect(made.mountpoint == "\(fixture.directory)/volume-local/volumes/data/_data")
    #expect(Files.isDirectory(made.mountpoint))
    #expect(fixture.records.durabilities.withLock { $0["data"] } == .power)
    #expect(try await fixture.create("data") == made)
    let anonymous = try await fixture.create(nil)
    #expect(ObjectID(anonymous.name) != nil)
    #expect(anonymous.isAnonymous)
    #expect(fixture.records.durabilities.withLock { $0[anonymous.name] } == .process)
    #expect(try await fixture.bus.request(VolumeList()) == [anonymous, made].sorted { $0.name < $1.name })

    // Another engine on the same records knows them.
    let next = try await VolumeFixture(after: fixture)
    #expect(try await next.bus.request(VolumeInspect(volume: "data")) == made)
    #expect(try await next.check() == [])
    _ = try await next.bus.request(VolumeRemove(volume: "data", force: false))
    #expect(!Files.exists("\(fixture.directory)/volume-local/volumes/data"))
    #expect(try await next.settle() == [])
    #expect(try await next.bus.request(VolumeList()) == [anonymous])
    _ = try await next.bus.request(VolumeRemove(volume: "data", force: true))
  }

  struct Refusal: Sendable {
    var message: String
    var code: EngineError.Code
    var act: @Sendable (VolumeFixture) async throws -> Void
  }

  static let refusals: [Refusal] = [
    Refusal(message: "get nothing: no such volume", code: .notFound) {
      _ = try await $0.bus.request(VolumeInspect(volume: "nothing"))
    },
    Refusal(message: "get nothing: no such volume", code: .notFound) {
      _ = try await $0.bus.request(VolumeRemove(volume: "nothing", force: false))
    },
    Refusal(message: "volume name is too short", code: .invalidArgument) { _ = try await $0.create("a") },
    Refusal(message: "includes invalid characters for a local volume name", code: .invalidArgument) {
      _ = try await $0.create("../escape")
    },
    Refusal(message: "includes invalid characters", code: .invalidArgument) { _ = try await $0.create(".hidden") },
    Refusal(message: "includes invalid characters", code: .invalidArgument) { _ = try await $0.create("") },
    Refusal(message: "names can be at most 255", code: .invalidArgument) {
      _ = try await $0.create(String(repeating: "x", count: 256))
    },
    Refusal(message: "volume name must be unique", code: .conflict) {
      _ = try await $0.create("same")
      _ = try await $0.create("same", driver: "tmpfs")
    },
    Refusal(message: "there is: bind, local, tmpfs", code: .notFound) {
      _ = try await $0.create("vol", driver: "flocker")
    },
    Refusal(message: "invalid option: \"colour\"", code: .invalidArgument) {
      _ = try await $0.create("vol", options: ["colour": "red"])
    },
    Refusal(message: "missing required option: \"device\"", code: .invalidArgument) {
      _ = try await $0.create("vol", options: ["type": "tmpfs"])
    },
    Refusal(message: "cannot mount volumes of type \"nfs\"", code: .unsupported) {
      _ = try await $0.create("vol", options: ["type": "nfs", "device": ":/x", "o": "addr=host"])
    },
    Refusal(message: "missing required option: \"device\"", code: .invalidArgument) {
      _ = try await $0.create("vol", driver: "bind")
    },
    Refusal(message: "\"colour=red\" is not an option of tmpfs", code: .invalidArgument) {
      _ = try await $0.create("vol", driver: "tmpfs", options: ["colour": "red"])
    },
    Refusal(message: "remove used: volume is in use - [\(user.id)]", code: .inUse) {
      _ = try await $0.create("used")
      $0.users.withLock { $0["used"] = [user] }
      _ = try await $0.bus.request(VolumeRemove(volume: "used", force: true))
    },
  ]
  static let user = ContainerUsers.User(id: .random(), containerName: "web", isRunning: true)

  @Test(arguments: refusals.indices) func isRefused(_ index: Int) async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let refusal = Self.refusals[index]
    let error = await #expect(throws: EngineError.self) { try await refusal.act(fixture) }
    #expect(error?.message.contains(refusal.message) == true, "\(error?.message ?? "")")
    #expect(error?.code == refusal.code)
    #expect(try await fixture.settle() == [])
  }

  static let badMounts: [(MountRequest, String)] = [
    (
      MountRequest(kind: .bind, source: "/nonexistent", target: "/x"),
      "invalid mount config for type \"bind\": bind source path does not exist: /nonexistent"
    ),
    (
      MountRequest(kind: .bind, source: "relative", target: "/x"),
      "invalid mount config for type \"bind\": invalid mount path: 'relative' mount path must be absolute"
    ),
    (
      MountRequest(kind: .volume, source: "data", target: "x"),
      "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute"
    ),
    (
      MountRequest(kind: .bind, source: "/tmp", target: "/a/..", createsSource: true),
      "invalid volume specification: '/tmp:/a/..': invalid volume specification: destination can't be '/'"
    ),
    (
      MountRequest(kind: .tmpfs, source: "", target: "/"),
      "invalid mount config for type \"tmpfs\": invalid specification: destination can't be '/'"
    ),
    (
      MountRequest(kind: .tmpfs, source: "", target: "/x", tmpfsOptions: ["colour=red"]),
      "invalid mount config for type \"tmpfs\": invalid tmpfs option [\"colour=red\"]"
    ),
    (
      MountRequest(kind: .volume, source: "data", target: "/x", subpath: "a/../../b"),
      "invalid mount config for type \"volume\": subpath must not lead out of the volume: a/../../b"
    ),
    (
      MountRequest(kind: .bind, source: "/tmp", target: "/x", propagation: "odd"),
      "invalid mount config for type \"bind\": invalid propagation mode: odd"
    ),
  ]

  @Test(arguments: badMounts.indices) func aBadMountIsRefusedBeforeAnythingIsMade(_ index: Int) async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let (mount, message) = Self.badMounts[index]
    let prepare = VolumePrepare(
      container: .random(), mounts: [MountRequest(kind: .volume, source: "", target: "/first"), mount])
    await #expect(throws: EngineError(.invalidArgument, message)) { try await fixture.bus.request(prepare) }
    #expect(try await fixture.bus.request(VolumeList()) == [])
  }

  @Test func twoMountsOnOnePlaceAreRefused() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    let prepare = VolumePrepare(
      container: .random(),
      mounts: [
        MountRequest(kind: .volume, source: "", target: "/x/"), MountRequest(kind: .tmpfs, source: "", target: "/x"),
      ])
    await #expect(throws: EngineError(.invalidArgument, "Duplicate mount point: /x")) {
      try await fixture.bus.request(prepare)
    }
  }

  @Test func whatAFailedPreparationMadeIsTakenBack() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    _ = try await fixture.create("kept")
    let source = "\(fixture.directory)/made/by/us"
    let prepare = VolumePrepare(
      container: .random(),
      mounts: [
        MountRequest(kind: .volume, source: "", target: "/a"),
        MountRequest(kind: .volume, source: "kept", target: "/b"),
        MountRequest(kind: .volume, source: "fresh", target: "/c"),
        MountRequest(kind: .bind, source: source, target: "/d", createsSource: true),
        MountRequest(kind: .volume, source: "odd", target: "/e", driver: "flocker"),
      ])
    let error = await #expect(throws: EngineError.self) { try await fixture.bus.request(prepare) }
    #expect(error?.code == .notFound)
    #expect(try await fixture.bus.request(VolumeList()).map(\.name) == ["kept"])
    #expect(!Files.exists("\(fixture.directory)/made"))
    #expect(try await fixture.settle() == [])
  }

  @Test func brokenThingsAreReportedAndRepaired() async throws {
    let crashed = try await VolumeFixture()
    defer { crashed.close() }
    let volume = try await crashed.create("lost")
    let volumes = "\(crashed.directory)/volume-local/volumes"
    try Files.removeTree("\(volumes)/lost")
    try Files.makeDirectories("\(volumes)/stray/_data")
    let fixture = try await VolumeFixture(after: crashed)
    let found = try await fixture.check()
    #expect(found.map(\.kind) == [.missing, .leftover])
    #expect(found.map(\.object) == ["directory \(volume.mountpoint)", "directory \(volumes)/stray"])
    _ = try await fixture.check(repair: true)
    #expect(try await fixture.settle() == [])
    #expect(Files.isDirectory(volume.mountpoint))
    #expect(!Files.exists("\(volumes)/stray"))
  }

  @Test func dataIsKeptWhenEveryRecordIsLost() async throws {
    let crashed = try await VolumeFixture()
    defer { crashed.close() }
    let volume = try await crashed.create("database")
    try Files.replace("\(volume.mountpoint)/row", with: Array("data".utf8), mode: 0o644, durable: false)
    crashed.records.records.withLock { $0 = [:] }
    let fixture = try await VolumeFixture(after: crashed)
    _ = try await fixture.check(repair: true)
    #expect(try Files.readText("\(volume.mountpoint)/row") == "data")
    #expect(try await fixture.check().map(\.kind) == [.leftover])
    // It is a volume again when it is created again.
    _ = try await fixture.create("database")
    #expect(try await fixture.check() == [])
    #expect(try Files.readText("\(volume.mountpoint)/row") == "data")
  }

  @Test func aRecordThatDoesNotReadIsALoudError() async throws {
    let fixture = try await VolumeFixture()
    defer { fixture.close() }
    fixture.records.records.withLock { $0["bad"] = Record(kind: "volume", key: "bad", value: "{") }
    let error = await #expect(throws: EngineError.self) { try await VolumeFixture(after: fixture) }
    #expect(error?.code == .corrupt)
    #expect(error?.message.contains("the volume bad") == true)
  }
}
