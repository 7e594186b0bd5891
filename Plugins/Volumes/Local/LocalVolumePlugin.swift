import Contracts
import Kernel

/// Volumes as directories of the engine's own (`<root>/volume-local/volumes/<name>/_data`), or with the options `type`,
/// `device` and `o` as a file system that is mounted there on first use and unmounted on last.
public final class LocalVolumePlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "volume-local", role: "volume", driver: "local",
    keys: [
      ConfigurationKey(
        "root", .text(""), form: .absolutePath,
        "Where the volumes' directories are; empty for volume-local below the instance's root. Move what is there along."
      )
    ])

  public static let examinations = [
    Examination(),
    Examination(
      "mounted on first use", options: ["type": "none", "o": "bind", "device": "{directory}/device"],
      files: ["{directory}/device/": ""]),
  ]

  private let host: PluginHost
  private let storage: LocalStorage

  public init(host: PluginHost) throws(EngineError) {
    self.host = host
    storage = try LocalStorage(host: host)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    let storage = storage
    try registrar.answerAsDriver(VolumeDriverCreate.self) { (request, _) async throws(EngineError) in
      VolumeDriverCreate.Reply(mountpoint: try storage.create(request.volume, request.options))
    }
    try registrar.answerAsDriver(VolumeDriverRemove.self) { (request, _) async throws(EngineError) in
      try storage.remove(request.volume)
      return Done()
    }
    try registrar.answerAsDriver(VolumeDriverMount.self) { (request, _) async throws(EngineError) in
      try storage.mount(request.volume, for: request.container, request.options)
    }
    try registrar.answerAsDriver(VolumeDriverUnmount.self) { (request, _) async throws(EngineError) in
      try storage.unmount(request.volume, from: request.container)
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, call) async throws(EngineError) in
      let recorded = try await call.request(VolumeList()).filter { $0.driver == "local" }
      // An engine that knows no image either has lost its records rather than this one volume's.
      var hasRecords = !recorded.isEmpty
      if !hasRecords { hasRecords = (try? await call.request(ImageList()))?.isEmpty == false }
      return try storage.check(request, recorded: recorded, hasRecords: hasRecords)
    }
  }

  public func start() async throws(EngineError) { storage.emptyTrash() }
}
