import Contracts
import Glibc
import LinuxSystem
import Logging
import Synchronization

/// All drivers out of tree: those that the configuration names, and the executables in its plugin directories.
public final class ExternalDrivers: Sendable {
  private struct State {
    var processes: [DriverProcess] = []
    /// Drivers of the configuration that are not started, and why.
    var refused: [PluginStatus] = []
    /// Files of the plugin directories that are not started, by their paths.
    var refusedFiles: [String: PluginStatus] = [:]
    var isStopping = false
  }

  private let bus: Bus
  private let instance: Instance
  private let configuration: EngineConfiguration
  /// The built-in plugins, whose names are taken, as are those of their drivers.
  private let builtIn: [PluginManifest]
  private let state = Mutex(State())
  private let log = Logger(label: "drivers")

  public init(bus: Bus, instance: Instance, configuration: EngineConfiguration, builtIn: [PluginManifest]) {
    self.bus = bus
    self.instance = instance
    self.configuration = configuration
    self.builtIn = builtIn
  }

  /// Starts every driver and waits, for a while that the configuration bounds, until each says who it is.
  public func start() async {
    for driver in configuration.drivers { start(driver) }
    startFromDirectories()
    await waitUntilSettled()
    bus.subscribe(to: DriverWanted.self) { [weak self] _ in await self?.look() }
  }

  /// Looks at the plugin directories again: starts what is new, waits for it as the engine's start does, and forgets
  /// drivers that do not run and whose files are gone.
  public func look() async {
    forgetDeleted()
    if startFromDirectories() { await waitUntilSettled() }
  }

  public func stop() async {
    let processes = state.withLock { state in
      state.isStopping = true
      return state.processes
    }
    for process in processes { process.beginStop() }
    for process in processes { await process.stop() }
  }

  public var statuses: [PluginStatus] {
    let (processes, refused) = state.withLock { state in
      (state.processes, state.refused + state.refusedFiles.values.sorted { $0.name < $1.name })
    }
    return processes.map(\.status) + refused
  }

  private func waitUntilSettled() async {
    guard case .integer(let seconds) = configuration.engine("driver_seconds") else { return }
    let processes = state.withLock { $0.processes }
    let isOver = Once<Void>()
    let ticket = bus.timekeeper.schedule(after: .seconds(seconds)) { isOver.resolve(()) }
    let waiting = Task(executorPreference: bus.executor) {
      for process in processes { await process.settled.value }
      isOver.resolve(())
    }
    await isOver.value
    bus.timekeeper.cancel(ticket)
    waiting.cancel()
  }

  private func start(_ driver: ExternalDriver, file: String? = nil) {
    if isReserved(driver.name) {
      return refuse(driver.name, driver.command, Self.reservation(driver.name))
    }
    let process: DriverProcess
    do {
      process = try DriverProcess(driver, file: file, bus: bus, instance: instance, builtIn: builtIn)
    } catch {
      return refuse(driver.name, driver.command, "\(error)")
    }
    let isNew = state.withLock { state -> Bool in
      guard !state.isStopping, !state.processes.contains(where: { $0.driver.name == driver.name }) else { return false }
      state.processes.append(process)
      return true
    }
    if isNew, !process.start() { refuse(driver.name, driver.command, "the system has no thread left") }
  }

  private func isReserved(_ name: String) -> Bool { builtIn.contains { $0.name == name } }

  private static func reservation(_ name: String) -> String {
    "there is a built-in plugin of the name \(name); give the driver another one"
  }

  private func refuse(_ name: String, _ command: [String], _ reason: String) {
    log.warning("the driver \(name) is not started: \(reason)")
    state.withLock { state in
      state.refused.removeAll { $0.name == name }
      state.refused.append(Self.skipped(name, command, reason))
    }
  }

  private static func skipped(_ name: String, _ command: [String], _ reason: String) -> PluginStatus {
    PluginStatus(name: name, role: "", driver: "", version: "", state: .skipped(reason: reason), command: command)
  }

  // MARK: The plugin directories

  private func forgetDeleted() {
    let gone = state.withLock { state -> [DriverProcess] in
      let gone = state.processes.filter(\.isGone)
      state.processes.removeAll { process in gone.contains { $0 === process } }
      return gone
    }
    for process in gone { process.forget() }
  }

  /// Starts what is new in the plugin directories, and notes what is not started and why.
  ///
  /// - Returns: whether there was anything new.
  @discardableResult
  private func startFromDirectories() -> Bool {
    guard case .list(let directories) = configuration.engine("plugin_directories") else { return false }
    var refused: [String: PluginStatus] = [:]
    var hasNew = false
    for directory in directories {
      let directory = directory.hasPrefix("/") ? directory : "\(instance.root)/\(directory)"
      for file in ((try? Files.list(directory)) ?? []).sorted() {
        let path = "\(directory)/\(file)"
        guard let name = ExternalDriver.name(ofFile: file), !configuration.disabledDrivers.contains(name),
          let status = Files.status(path)
        else { continue }
        let known = state.withLock { $0.processes.first { $0.driver.name == name }?.driver.command }
        // The same file may be named in the configuration.
        if known?.first == path { continue }
        if let reason = complaint(about: status, path) ?? known.map({ Self.collision(name, $0) }) {
          // Under the file's own name, where another driver has the shorter one.
          refused[path] = Self.skipped(known == nil ? name : file, [path], reason)
        } else if isReserved(name) {
          refused[path] = Self.skipped(name, [path], Self.reservation(name))
        } else {
          hasNew = true
          start(ExternalDriver(name: name, command: [path]), file: path)
        }
      }
    }
    let news = state.withLock { state -> [PluginStatus] in
      defer { state.refusedFiles = refused }
      return refused.filter { state.refusedFiles[$0.key] != $0.value }.map(\.value)
    }
    for status in news.sorted(by: { $0.name < $1.name }) {
      if case .skipped(let reason) = status.state { log.warning("the driver \(status.name) is not started: \(reason)") }
    }
    return hasNew
  }

  private static func collision(_ name: String, _ command: [String]) -> String {
    "the driver \(name) is \(command.first ?? "") already; name one of the two files otherwise"
  }

  /// - Returns: why a file cannot be a driver, and the way out, or nil.
  private func complaint(about status: stat, _ path: String) -> String? {
    if status.st_mode & S_IFMT != S_IFREG {
      return "\(path) is no file; only executables belong into a plugin directory"
    }
    if status.st_mode & 0o111 == 0 {
      return "\(path) is not executable: chmod +x it, or move it elsewhere if it is no driver"
    }
    // Whoever can write the file could be root through it.
    if status.st_uid != geteuid() && status.st_uid != 0 {
      return "\(path) belongs to the user \(status.st_uid), who could be root through it: chown root it"
    }
    if status.st_mode & 0o022 != 0 {
      return "\(path) can be written by others than its owner, who could be root through it: chmod go-w it"
    }
    return nil
  }
}
