import Contracts
import Kernel
import LinuxSystem

/// Volumes that are a directory of the host, named by the option `device` (or `path`). The directory is the user's: it
/// is neither made nor removed.
public final class BindVolumePlugin: Plugin {
  public static let manifest = PluginManifest(name: "volume-bind", role: "volume", driver: "bind")

  public init(host: PluginHost) throws(EngineError) {}

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(VolumeDriverCreate.self) { (request, _) async throws(EngineError) in
      VolumeDriverCreate.Reply(mountpoint: try Self.path(request.options))
    }
    try registrar.answerAsDriver(VolumeDriverRemove.self) { (_, _) async throws(EngineError) in Done() }
    try registrar.answerAsDriver(VolumeDriverMount.self) { (request, _) async throws(EngineError) in
      VolumeDriverMount.Reply(mount: nil, path: try Self.path(request.options))
    }
    try registrar.answerAsDriver(VolumeDriverUnmount.self) { (_, _) async throws(EngineError) in Done() }
  }

  /// The host's directory that the options name.
  static func path(_ options: [String: String]) throws(EngineError) -> String {
    for key in options.keys.sorted() where key != "device" && key != "path" {
      throw EngineError(.invalidArgument, "invalid option: \"\(key)\"; there is: device")
    }
    guard let path = options["device"] ?? options["path"], !path.isEmpty else {
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
