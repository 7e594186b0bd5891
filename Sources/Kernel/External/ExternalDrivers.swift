import Contracts
import Glibc
import LinuxSystem
import Logging
import Synchronization

/// All drivers out of tree: those that the configuration names, and the executables in its plugin directories.
public final class ExternalDrivers: Sendable {
  private struct State {
    var processes: [DriverProcess] = []
    /// Files that are not started, and why.
    var refused: [PluginStatus] = []
    var isStopping = false
  }

  private let bus: Bus
  private let instance: Instance
  private let configuration: EngineConfiguration
  /// Names that are taken by built-in plugins.
  private let reserved: Set<String>
  private let state = Mutex(State())
  private let log = Logger(label: "drivers")

  public init(bus: Bus, instance: Instance, configuration: EngineConfiguration, reserved: Set<String>) {
    self.bus = bus
    self.instance = instance
    self.configuration = configuration
    self.reserved = reserved
  }

  /// Starts every driver and waits, for a while that the configuration bounds, until each says who it is.
  public func start() async {
    for driver in configuration.drivers { start(driver) }
    startFromDirectories()
    await waitUntilSettled()
    bus.subscribe(to: DriverWanted.self) { [weak self] _ in
      guard let self, self.startFromDirectories() else { return }
      await self.waitUntilSettled()
    }
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
    state.withLock { ($0.processes, $0.refused) }.0.map(\.status) + state.withLock { $0.refused }
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

  private func start(_ driver: ExternalDriver) {
    if reserved.contains(driver.name) {
      return refuse(driver.name, driver.command, "there is a built-in plugin of the name \(driver.name)")
    }
    let process: DriverProcess
    do {
      process = try DriverProcess(driver, bus: bus, instance: instance)
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

  private func refuse(_ name: String, _ command: [String], _ reason: String) {
    log.warning("the driver \(name) is not started: \(reason)")
    state.withLock { state in
      state.refused.removeAll { $0.name == name }
      state.refused.append(
        PluginStatus(
          name: name, role: "", driver: "", version: "", state: .skipped(reason: reason), command: command))
    }
  }

  /// Starts what is new in the plugin directories.
  ///
  /// - Returns: whether there was anything new.
  @discardableResult
  private func startFromDirectories() -> Bool {
    guard case .list(let directories) = configuration.engine("plugin_directories") else { return false }
    var hasNew = false
    for directory in directories {
      let directory = directory.hasPrefix("/") ? directory : "\(instance.root)/\(directory)"
      for file in ((try? Files.list(directory)) ?? []).sorted() where !file.hasPrefix(".") && !file.hasSuffix("~") {
        let path = "\(directory)/\(file)"
        guard let status = Files.status(path), status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o111 != 0 else {
          continue
        }
        let name = file.split(separator: ".").first.map(String.init) ?? file
        let isKnown = state.withLock { state in
          state.processes.contains { $0.driver.name == name } || state.refused.contains { $0.name == name }
        }
        if isKnown || !configuration.isEnabled(name) { continue }
        hasNew = true
        // Whoever can write the file could be root through it.
        guard status.st_uid == geteuid() || status.st_uid == 0, status.st_mode & 0o022 == 0 else {
          refuse(name, [path], "\(path) can be written by others than its owner, or is somebody else's")
          continue
        }
        start(ExternalDriver(name: name, command: [path]))
      }
    }
    return hasNew
  }
}
