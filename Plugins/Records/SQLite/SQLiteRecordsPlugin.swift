import Contracts
import Kernel
import Synchronization

/// Keeps every plugin's durable records in one SQLite database, `<state>/records.db`.
public final class SQLiteRecordsPlugin: Plugin {
  public static let manifest = PluginManifest(name: "records-sqlite", role: "records")

  private let host: PluginHost
  private let opened = Mutex<RecordStore?>(nil)

  public init(host: PluginHost) throws(EngineError) { self.host = host }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(RecordWrite.self) { (request, _) async throws(EngineError) in
      try self.store().write(request)
      return Done()
    }
    try registrar.answer(RecordRead.self) { (request, _) async throws(EngineError) in
      try self.store().read(kind: request.kind)
    }
  }

  public func start() async throws(EngineError) {
    let store = try RecordStore(path: try host.stateDirectory() + "/records.db")
    opened.withLock { $0 = store }
  }

  public func stop() async {
    let store = opened.withLock { opened -> RecordStore? in
      defer { opened = nil }
      return opened
    }
    store?.close()
  }

  private func store() throws(EngineError) -> RecordStore {
    guard let store = opened.withLock({ $0 }) else {
      throw EngineError(.unavailable, "the record store is not open")
    }
    return store
  }
}
