import Glibc
import LinuxSystem
import PluginKit

// A volume driver in Swift: each volume is a directory below the option `place`.
final class Volumes {
  var place = ""
  private var users: [String: Set<ObjectID>] = [:]

  private func directory(_ volume: String) throws(EngineError) -> String {
    if volume.isEmpty || volume.hasPrefix(".") || volume.contains("/") {
      throw EngineError(.invalidArgument, "\"\(volume)\" is no name of a volume")
    }
    return "\(place)/\(volume)"
  }

  func create(_ request: VolumeDriverCreate) throws(EngineError) -> VolumeDriverCreate.Reply {
    if let option = request.options.keys.sorted().first {
      throw EngineError(.invalidArgument, "unknown option \"\(option)\"; this driver has none")
    }
    let path = try directory(request.volume)
    do {
      try Files.makeDirectories(path, mode: 0o755)
    } catch {
      throw EngineError(.internalFailure, "the volume cannot be made: \(error)")
    }
    return .init(mountpoint: path)
  }

  func mount(_ request: VolumeDriverMount) throws(EngineError) -> VolumeDriverMount.Reply {
    let path = try directory(request.volume)
    guard Files.isDirectory(path) else { throw EngineError(.notFound, "no such volume: \(request.volume)") }
    users[request.volume, default: []].insert(request.container)
    return .init(mount: nil, path: path)
  }

  func unmount(_ request: VolumeDriverUnmount) throws(EngineError) -> Done {
    users[request.volume]?.remove(request.container)
    return Done()
  }

  func remove(_ request: VolumeDriverRemove) throws(EngineError) -> Done {
    if users[request.volume]?.isEmpty == false {
      throw EngineError(.inUse, "the volume \(request.volume) is mounted")
    }
    do {
      try Files.removeTree(try directory(request.volume))
    } catch let error as SystemCallError {
      throw EngineError(.internalFailure, "the volume cannot be removed: \(error)")
    } catch {
      throw EngineError(wrapping: error)
    }
    return Done()
  }
}

let volumes = Volumes()
var server = DriverServer(role: .volume, version: "1.0")
server.onStart { (start) throws(EngineError) in
  volumes.place = start.options["place"] ?? "\(start.stateDirectory)/volumes"
}
server.answer(VolumeDriverCreate.self, volumes.create)
server.answer(VolumeDriverMount.self, volumes.mount)
server.answer(VolumeDriverUnmount.self, volumes.unmount)
server.answer(VolumeDriverRemove.self, volumes.remove)
exit(server.run())
