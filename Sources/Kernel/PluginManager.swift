import Contracts
import Logging
import Synchronization

/// Loads plugins, starts them in the order of their dependencies, stops them in reverse, and knows the state of each.
public final class PluginManager: Sendable {
  private struct Loaded {
    let manifest: PluginManifest
    let make: @Sendable (PluginHost) throws(EngineError) -> any Plugin
    var plugin: (any Plugin)?
    var state = PluginStatus.State.waiting
  }

  private let bus: Bus
  private let instance: Instance
  private let journal: Journal
  private let loaded: Mutex<[Loaded]>
  /// Plugins that the configuration leaves out.
  private let disabled = Mutex<[PluginManifest]>([])
  private let external = Mutex<ExternalDrivers?>(nil)
  private let configuration = Mutex(EngineConfiguration())
  private let log = Logger(label: "plugins")

  public init(bus: Bus, instance: Instance, journal: Journal) {
    self.bus = bus
    self.instance = instance
    self.journal = journal
    loaded = Mutex([])
  }

  /// Adds a plugin to be started.
  public func add<P: Plugin>(_ type: P.Type) { add(type, manifest: P.manifest) }

  /// Adds a plugin with another manifest than the type's own.
  public func add<P: Plugin>(_ type: P.Type, manifest: PluginManifest) {
    loaded.withLock { loaded in
      loaded.append(Loaded(manifest: manifest, make: { (host) throws(EngineError) in try P(host: host) }))
    }
  }

  /// Starts every plugin.
  ///
  /// - Parameter configuration: keys and values by plugin name.
  /// - Throws: what is wrong with the set of plugins (a name twice, a missing dependency, a cycle), or the failure of a
  ///   plugin whose policy is `fail`; those that were started are stopped again then.
  public func start(configuration: [String: [String: String]] = [:]) async throws(EngineError) {
    let manifests = loaded.withLock { $0.map(\.manifest) }
    let order = try Self.order(manifests)
    loaded.withLock { loaded in loaded = order.map { loaded[$0] } }
    for index in order.indices {
      let entry = loaded.withLock { $0[index] }
      do throws(EngineError) {
        if let reason = missingDependency(of: entry.manifest) { throw EngineError(.unavailable, reason) }
        let host = PluginHost(
          manifest: entry.manifest, bus: bus, instance: instance, journal: journal,
          configuration: configuration[entry.manifest.name] ?? [:])
        let plugin = try entry.make(host)
        try plugin.register(Registrar(bus: bus, manifest: entry.manifest))
        try await plugin.start()
        loaded.withLock { loaded in
          loaded[index].plugin = plugin
          loaded[index].state = .running
        }
      } catch {
        let reason = "the plugin \(entry.manifest.name) is not running: \(error)"
        bus.unregister(owner: entry.manifest.name, reason: reason)
        switch entry.manifest.onFailure {
        case .fail:
          loaded.withLock { $0[index].state = .failed(reason: "\(error)") }
          await stop()
          throw EngineError(error.code, "the plugin \(entry.manifest.name) did not start", because: error)
        case .skip:
          loaded.withLock { $0[index].state = .skipped(reason: "\(error)") }
          log.warning("\(reason)")
        }
      }
    }
  }

  /// Stops what runs, last started first.
  public func stop() async {
    let running = loaded.withLock { loaded in loaded.indices.filter { loaded[$0].plugin != nil } }
    for index in running.reversed() {
      let (plugin, name) = loaded.withLock { loaded in
        defer { loaded[index].plugin = nil }
        return (loaded[index].plugin, loaded[index].manifest.name)
      }
      bus.unregister(owner: name, reason: "the plugin \(name) has been stopped")
      await plugin?.stop()
      loaded.withLock { $0[index].state = .stopped }
    }
    let drivers = external.withLock { external in
      defer { external = nil }
      return external
    }
    await drivers?.stop()
  }

  /// What every plugin that was added says of itself.
  public var manifests: [PluginManifest] { loaded.withLock { $0.map(\.manifest) } }

  /// Starts the drivers out of tree, before the plugins that ask them.
  public func startDrivers(_ configuration: EngineConfiguration) async {
    let drivers = ExternalDrivers(
      bus: bus, instance: instance, configuration: configuration, builtIn: manifests)
    external.withLock { $0 = drivers }
    await drivers.start()
  }

  /// Takes out what the configuration disables and changes the rest as it says; to be called before `start`.
  public func apply(_ configuration: EngineConfiguration) {
    self.configuration.withLock { $0 = configuration }
    let all = loaded.withLock { $0 }
    disabled.withLock { $0 = all.map(\.manifest).filter { !configuration.isEnabled($0.name) } }
    loaded.withLock { loaded in
      loaded = all.filter { configuration.isEnabled($0.manifest.name) }.map { entry in
        Loaded(manifest: configuration.manifest(entry.manifest), make: entry.make)
      }
    }
  }

  /// Every plugin in the order of its start.
  public var statuses: [PluginStatus] {
    func status(_ manifest: PluginManifest, _ state: PluginStatus.State) -> PluginStatus {
      PluginStatus(
        name: manifest.name, role: manifest.role, driver: manifest.driver, version: manifest.version, state: state)
    }
    return loaded.withLock { loaded in loaded.map { status($0.manifest, $0.state) } }
      + (external.withLock { $0 }?.statuses ?? [])
      + disabled.withLock { $0 }.map { status($0, .skipped(reason: "the configuration disables it")) }
  }

  private func missingDependency(of manifest: PluginManifest) -> String? {
    let running = loaded.withLock { loaded in
      loaded.filter { $0.state == .running }.flatMap { [$0.manifest.name, $0.manifest.role] }
    }
    return manifest.dependencies.first { !running.contains($0) }.map { "it needs \"\($0)\", which is not running" }
  }

  /// The order in which plugins are started: each after those it depends on, otherwise as they were added.
  ///
  /// - Returns: indices into `manifests`.
  /// - Throws: `conflict` for a name or a driver that stands twice, `notFound` for a dependency that nothing provides,
  ///   `invalidArgument` for a cycle, with its members in order.
  public static func order(_ manifests: [PluginManifest]) throws(EngineError) -> [Int] {
    var byName: [String: Int] = [:]
    for (index, manifest) in manifests.enumerated() {
      if byName.updateValue(index, forKey: manifest.name) != nil {
        throw EngineError(.conflict, "there are two plugins of the name \(manifest.name)")
      }
    }
    enum Mark { case none, open, done }
    var marks = [Mark](repeating: .none, count: manifests.count)
    var order: [Int] = []
    var path: [String] = []

    func visit(_ index: Int) throws(EngineError) {
      let manifest = manifests[index]
      switch marks[index] {
      case .done: return
      case .open:
        let cycle = path.drop { $0 != manifest.name } + [manifest.name]
        throw EngineError(
          .invalidArgument, "the plugins depend on each other in a circle: \(cycle.joined(separator: " -> "))")
      case .none: break
      }
      marks[index] = .open
      path.append(manifest.name)
      for dependency in manifest.dependencies {
        // A plugin may need the other drivers of its own role, but not itself.
        let providers =
          byName[dependency].map { [$0] }
          ?? manifests.indices.filter { manifests[$0].role == dependency && $0 != index }
        if providers.isEmpty {
          throw EngineError(
            .notFound, "the plugin \(manifest.name) needs \"\(dependency)\", which no plugin provides")
        }
        for provider in providers { try visit(provider) }
      }
      path.removeLast()
      marks[index] = .done
      order.append(index)
    }

    for index in manifests.indices { try visit(index) }
    return order
  }
}

extension PluginManager {
  private func inspect(_ name: String) throws(EngineError) -> PluginInspect.Reply {
    let statuses = statuses
    guard let status = statuses.first(where: { $0.name == name }) else {
      let hint = Suggestion.nearest(to: name, among: statuses.map(\.name)).map { "; did you mean \($0)?" } ?? ""
      throw EngineError(.notFound, "No such plugin: \(name)\(hint)")
    }
    let configuration = configuration.withLock { $0 }
    var values: [String: String] = [:]
    let manifest = manifests.first { $0.name == name }
    for key in manifest?.keys ?? [] {
      values[key.name] = (configuration.plugins[name]?.values[key.name] ?? key.standard).string
    }
    if let driver = configuration.drivers.first(where: { $0.name == name }) { values = driver.options }
    return PluginInspect.Reply(
      status: status, dependencies: manifest?.dependencies ?? [], configuration: values,
      messages: bus.statistics(owner: name))
  }

  /// Answers what is asked of the kernel itself.
  ///
  /// - Parameter shutdown: ends the process after the reply has been sent.
  public func answerKernelMessages(shutdown: @escaping @Sendable () -> Void) throws(EngineError) {
    let registrar = Registrar(bus: bus, manifest: PluginManifest(name: "kernel", role: "kernel"))
    try registrar.answer(PluginList.self) { (_, _) async throws(EngineError) in
      await self.external.withLock { $0 }?.look()
      return self.statuses
    }
    try registrar.answer(TraceRead.self) { (request, call) async throws(EngineError) in
      call.bus.traces.take(request.trace)
    }
    try registrar.answer(PluginInspect.self) { (request, _) async throws(EngineError) in
      await self.external.withLock { $0 }?.look()
      return try self.inspect(request.plugin)
    }
    try registrar.answer(SystemShutdown.self) { (_, call) async throws(EngineError) in
      _ = call.bus.timekeeper.schedule(after: .milliseconds(10), shutdown)
      return Done()
    }
  }
}
