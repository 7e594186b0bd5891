import Contracts
import Kernel
import LinuxSystem
import Synchronization

/// Volumes that are a directory of the host, named by the option `device` (or `path`). The directory is the user's: it
/// is neither made nor removed.
public final class BindVolumePlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "volume-bind", role: "volume", driver: "bind",
    keys: [
      ConfigurationKey(
        "directory", .text(""), form: .absolutePath,
        "Where volumes without the option \"device\" are, each in the directory of its name, which must exist.")
    ])

  public static let examinations = [
    Examination(options: ["device": "{directory}/data"], files: ["{directory}/data/": ""])
  ]

  private let directory: String

  /// Containers that have each volume mounted, for as long as this engine lives.
  private let users = Mutex<[String: Set<ObjectID>]>([:])

  public init(host: PluginHost) throws(EngineError) {
    directory = host.setting("directory")
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(VolumeDriverCreate.self) { [self] (request, _) async throws(EngineError) in
      VolumeDriverCreate.Reply(mountpoint: try path(request.volume, request.options))
    }
    try registrar.answerAsDriver(VolumeDriverRemove.self) { [self] (request, _) async throws(EngineError) in
      if let user = users.withLock({ $0[request.volume]?.first }) {
        throw EngineError(.inUse, "the volume \(request.volume) is mounted for the container \(user.short)")
      }
      return Done()
    }
    try registrar.answerAsDriver(VolumeDriverMount.self) { [self] (request, _) async throws(EngineError) in
      let path = try path(request.volume, request.options)
      users.withLock { _ = $0[request.volume, default: []].insert(request.container) }
      return VolumeDriverMount.Reply(mount: nil, path: path)
    }
    try registrar.answerAsDriver(VolumeDriverUnmount.self) { [self] (request, _) async throws(EngineError) in
      users.withLock { users in
        users[request.volume]?.remove(request.container)
        if users[request.volume]?.isEmpty == true { users[request.volume] = nil }
      }
      return Done()
    }
  }

  /// The host's directory that the options name.
  private func path(_ volume: String, _ options: [String: String]) throws(EngineError) -> String {
    for key in options.keys.sorted() where key != "device" && key != "path" {
      throw EngineError(.invalidArgument, "invalid option: \"\(key)\"; there is: device")
    }
    let standard = directory.isEmpty ? nil : "\(directory)/\(volume)"
    guard let path = options["device"] ?? options["path"] ?? standard, !path.isEmpty else {
      throw EngineError(.invalidArgument, "missing required option: \"device\"")
    }
    guard path.hasPrefix("/") else {
      throw EngineError(.invalidArgument, "invalid option: the device must be an absolute path: \(path)")
    }
    guard Files.isDirectory(path) else {
      throw EngineError(.invalidArgument, "bind source path does not exist or is not a directory: \(path)")
    }
    return path
  }
}
