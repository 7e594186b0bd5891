import Contracts
import Kernel
import LinuxSystem
import Logging
import Synchronization

/// Volume plugins of Docker's protocol (https://docs.docker.com/engine/extend/plugins_volume/): each one that is found
/// answers as a volume driver of its own name.
///
/// | message | what the plugin is asked |
/// | --- | --- |
/// | `volume.driver.create` | `/VolumeDriver.Get`, and `/VolumeDriver.Create` where it has none of the name |
/// | `volume.driver.mount` | `/VolumeDriver.Mount` with the container as ID |
/// | `volume.driver.unmount` | `/VolumeDriver.Unmount` |
/// | `volume.driver.remove` | `/VolumeDriver.Get`, and `/VolumeDriver.Remove` where it has one |
public final class DockerVolumePlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "volume-docker", role: "volume", onFailure: .skip,
    keys: [
      ConfigurationKey(
        "directories", .list(["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"]),
        "Where volume plugins of Docker's protocol are found: sockets, .spec and .json files."),
      ConfigurationKey(
        "deadline_seconds", .integer(30), range: 1...3600, "Seconds in which such a plugin must answer."),
    ])

  /// Through this adapter, somebody else's plugin of Docker's protocol passes too, in either way to send a body.
  public static let examinations = [[], ["chunked"]].map { mode in
    Examination(
      mode.joined(), driver: "them", configuration: ["directories": "{directory}"],
      program: ["{programs}/docker-volume", "{directory}/them.sock", "{directory}/volumes"] + mode,
      programFile: "{directory}/them.sock")
  }

  private struct State {
    /// What was found under each name, or what is wrong with its file.
    var clients: [String: Result<PluginClient, EngineError>] = [:]
    /// Plugins that have said that they are volume drivers.
    var activated: Set<String> = []
  }

  private let host: PluginHost
  private let directories: [String]
  private let deadlineSeconds: Int
  private let state = Mutex(State())

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    directories = host.listSetting("directories")
    deadlineSeconds = try host.integerSetting("deadline_seconds")
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    discover(registrar)
    host.bus.subscribe(to: DriverWanted.self) { [weak self] event in
      if event.role == "volume" { self?.discover(registrar) }
    }
  }

  /// Makes what is new answer. A plugin whose address changed answers at its new one.
  private func discover(_ registrar: Registrar) {
    for (name, found) in PluginDiscovery.find(in: directories).sorted(by: { $0.key < $1.key }) {
      let found = found.map { PluginClient(name: name, address: $0, deadlineSeconds: deadlineSeconds) }
      let former = state.withLock { state in
        let former = state.clients.updateValue(found, forKey: name)
        if (try? former?.get().address) != (try? found.get().address) { state.activated.remove(name) }
        return former
      }
      // One whose file is wrong answers with what is wrong.
      if case .failure(let error) = found, former.map({ "\($0)" }) != "\(found)" {
        host.log.warning("the volume plugin \(name) cannot be used: \(error)")
      }
      guard former == nil else { continue }
      do throws(EngineError) {
        try answer(name, registrar)
      } catch {
        host.log.warning("the volume plugin \(name) cannot be used: \(error)")
      }
    }
  }

  private func answer(_ name: String, _ registrar: Registrar) throws(EngineError) {
    if host.bus.answers(VolumeDriverCreate.self, driver: name) {
      throw EngineError(.conflict, "there is another volume driver of the name")
    }
    try registrar.answer(VolumeDriverCreate.self, driver: name) { [self] (request, _) async throws(EngineError) in
      try create(request, try client(name))
    }
    try registrar.answer(VolumeDriverRemove.self, driver: name) { [self] (request, _) async throws(EngineError) in
      let client = try client(name)
      if try find(request.volume, client) == nil { return Done() }
      _ = try client.call("VolumeDriver.Remove", Named(Name: request.volume), as: PluginRefusal.self)
      return Done()
    }
    try registrar.answer(VolumeDriverMount.self, driver: name) { [self] (request, _) async throws(EngineError) in
      let client = try client(name)
      guard try find(request.volume, client) != nil else {
        throw EngineError(.notFound, "get \(request.volume): no such volume")
      }
      let reply = try client.call(
        "VolumeDriver.Mount", Used(Name: request.volume, ID: request.container.text), as: Mounted.self)
      return VolumeDriverMount.Reply(mount: nil, path: reply.Mountpoint ?? "")
    }
    try registrar.answer(VolumeDriverUnmount.self, driver: name) { [self] (request, _) async throws(EngineError) in
      let client = try client(name)
      if try find(request.volume, client) == nil { return Done() }
      _ = try client.call(
        "VolumeDriver.Unmount", Used(Name: request.volume, ID: request.container.text), as: PluginRefusal.self)
      return Done()
    }
  }

  // MARK: The protocol

  private struct Nothing: Encodable {}

  private struct Activation: Decodable {
    var Implements: [String]
  }

  private struct Named: Encodable {
    var Name: String
  }

  private struct Used: Encodable {
    var Name: String
    var ID: String
  }

  private struct Creation: Encodable {
    var Name: String
    var Opts: [String: String]
  }

  private struct Mounted: Decodable {
    var Mountpoint: String?
  }

  private struct Found: Decodable {
    struct Volume: Decodable {
      var Name: String
      var Mountpoint: String?
    }
    var Volume: Volume?
  }

  /// A plugin is asked once what it implements.
  private func client(_ name: String) throws(EngineError) -> PluginClient {
    let (found, isActivated) = state.withLock { ($0.clients[name], $0.activated.contains(name)) }
    let client: PluginClient
    switch found {
    case .success(let found): client = found
    case .failure(let error):
      throw EngineError(.unavailable, "the volume plugin \(name) cannot be used: \(error)")
    case nil: throw EngineError(.unavailable, "the volume plugin \(name) is gone")
    }
    if isActivated { return client }
    let activation = try client.call("Plugin.Activate", Nothing(), as: Activation.self)
    guard activation.Implements.contains("VolumeDriver") else {
      throw EngineError(
        .unsupported, "the plugin \(name) is no volume driver: it implements \(activation.Implements)")
    }
    state.withLock { _ = $0.activated.insert(name) }
    return client
  }

  /// - Returns: nil where the plugin says that it has no volume of the name, in words that are its own.
  private func find(_ volume: String, _ client: PluginClient) throws(EngineError) -> Found.Volume? {
    do throws(EngineError) {
      return try client.call("VolumeDriver.Get", Named(Name: volume), as: Found.self).Volume
    } catch {
      if error.code == .conflict { return nil }
      throw error
    }
  }

  private func create(
    _ request: VolumeDriverCreate, _ client: PluginClient
  ) throws(EngineError) -> VolumeDriverCreate.Reply {
    if let present = try find(request.volume, client) {
      return VolumeDriverCreate.Reply(mountpoint: present.Mountpoint ?? "")
    }
    do throws(EngineError) {
      _ = try client.call(
        "VolumeDriver.Create", Creation(Name: request.volume, Opts: request.options), as: PluginRefusal.self)
    } catch {
      throw error.code == .conflict ? EngineError(.invalidArgument, error.message, causes: error.causes) : error
    }
    return VolumeDriverCreate.Reply(mountpoint: try find(request.volume, client)?.Mountpoint ?? "")
  }
}
