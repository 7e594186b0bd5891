import Contracts
import Kernel

/// Knows every volume, and makes of a container's mount requests what its root gets attached: volumes of any driver,
/// directories of the host, and file systems in memory.
public final class VolumeCatalogPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "volumes", role: "volume-catalog", dependencies: ["records", "volume"])

  private let store: VolumeStore
  private let preparation: MountPreparation
  private let assembly: MountAssembly

  public init(host: PluginHost) throws(EngineError) {
    store = VolumeStore(host: host)
    preparation = MountPreparation(store: store)
    assembly = MountAssembly(host: host, store: store)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    let (store, preparation, assembly) = (store, preparation, assembly)
    try registrar.answer(VolumeCreate.self) { (request, call) async throws(EngineError) in
      try await store.create(request, isAnonymous: request.volumeName == nil, call).volume
    }
    try registrar.answer(VolumeList.self) { (_, _) async throws(EngineError) in store.list() }
    try registrar.answer(VolumeInspect.self) { (request, _) async throws(EngineError) in
      try store.volume(request.volume)
    }
    try registrar.answer(VolumeRemove.self) { (request, call) async throws(EngineError) in
      await assembly.takeBackOwed(of: request.volume, call)
      try await store.remove(request, call)
      return Done()
    }
    try registrar.answer(VolumeForget.self) { (request, call) async throws(EngineError) in
      await assembly.takeBackOwed(of: request.volume, call)
      let remove = VolumeRemove(volume: request.volume, force: true)
      return .init(warnings: try await store.remove(remove, forgets: true, call))
    }
    try registrar.answer(VolumeKeep.self) { (request, call) async throws(EngineError) in
      try await store.keep(of: request.container, call)
      return Done()
    }
    try registrar.answer(VolumePrepare.self) { (request, call) async throws(EngineError) in
      try await preparation.prepare(request, call)
    }
    try registrar.answer(VolumeMount.self) { (request, call) async throws(EngineError) in
      try await assembly.mount(request, call)
    }
    try registrar.answer(VolumeUnmount.self) { (request, call) async throws(EngineError) in
      try await assembly.unmount(request.container, call)
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, call) async throws(EngineError) in
      try await assembly.check(request, call)
    }
  }

  public func start() async throws(EngineError) { try await store.load() }
}
