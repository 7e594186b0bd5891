import Contracts
import Glibc
import Kernel
import LinuxSystem

/// Keeps each container's output as Docker's `json-file` does: `<state>/<id>/<id>-json.log`, rotated into `.1`, `.2`, ...
/// The shim writes and rotates; this plugin says where and how much, and reads.
public final class JSONFileLogsPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "logs-json-file", role: "log", driver: "json-file",
    keys: [
      ConfigurationKey(
        "max_size", .text("10m"),
        form: TextForm("a size like 10m or 512k, or -1") { (try? LogOptions(["max-size": $0])) != nil },
        "How long a log's file gets before another one is begun; \"-1\" for no limit."),
      ConfigurationKey("max_files", .integer(3), range: 1...1000, "How many files of a log are kept."),
    ])

  private let directory: String
  private let spares: DirectoryPool
  private let log: PluginHost

  public init(host: PluginHost) throws(EngineError) {
    directory = try host.stateDirectory()
    spares = DirectoryPool(in: directory, bus: host.bus)
    _ = try LogOptions(["max-size": host.setting("max_size"), "max-file": host.setting("max_files")])
    log = host
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answerAsDriver(LogOpen.self) { (request, call) async throws(EngineError) in
      try await self.open(request, call)
    }
    try registrar.streamAsDriver(LogRead.self) { (request, _, sink) async throws(EngineError) in
      try await LogFollower(request, files: self.files(request.container)).run(sink)
      return Done()
    }
    try registrar.answerAsDriver(LogRemove.self) { (request, _) async throws(EngineError) in
      try self.remove(request.container)
      return Done()
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, _) async throws(EngineError) in
      try self.check(request)
    }
  }

  public func start() async throws(EngineError) {
    // A client that goes away while its log is written is an error of write(2), not the end of the engine.
    signal(SIGPIPE, SIG_IGN)
    InodePlacement.spread(directory)
    spares.clean()
  }

  public func stop() async { await spares.close() }

  private func files(_ container: ObjectID) -> LogFiles {
    LogFiles(directory: "\(directory)/\(container)", name: "\(container)-json.log")
  }

  private func open(_ request: LogOpen, _ call: Call) async throws(EngineError) -> LogOpen.Reply {
    let standard = ["max-size": log.setting("max_size"), "max-file": log.setting("max_files")]
    let options = try LogOptions(standard.merging(request.options) { $1 })
    let files = files(request.container)
    do {
      try spares.ensure(files.directory)
    } catch {
      throw EngineError(.internalFailure, "the log of \(request.container.short) cannot be made: \(error)")
    }
    FaultPoint.reach("logs.open.made")
    await call.lease.hold("the log of \(request.container.short)") { try? self.remove(request.container) }
    return LogOpen.Reply(path: files.path, maximumSize: options.maximumSize, maximumFiles: options.maximumFiles)
  }

  private func remove(_ container: ObjectID) throws(EngineError) {
    do {
      try spares.give(back: files(container).directory)
    } catch {
      throw EngineError(.internalFailure, "the log of \(container.short) cannot be removed: \(error)")
    }
    FaultPoint.reach("logs.remove.removed")
  }

  /// Directories of containers that have no record.
  private func check(_ request: PluginCheck) throws(EngineError) -> [SystemDifference] {
    let names: [String]
    do {
      names = try Files.list(directory)
    } catch {
      throw EngineError(.internalFailure, "the logs cannot be listed: \(error)")
    }
    let known = Set(request.known)
    var differences: [SystemDifference] = []
    for container in names.compactMap({ ObjectID($0) }).sorted() where !known.contains(container) {
      differences.append(
        SystemDifference(kind: .leftover, plugin: Self.manifest.name, object: "log \(files(container).directory)"))
      if request.repair { try remove(container) }
    }
    return differences
  }
}
