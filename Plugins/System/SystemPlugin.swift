import Contracts
import Glibc
import Kernel
import LinuxSystem

/// What the machine and the engine are, for `version` and `info`.
public final class SystemPlugin: Plugin {
  public static let manifest = PluginManifest(name: "system", role: "system", dependencies: ["container"])

  private let instance: Instance
  private let started = Timestamp.now
  private let history = EventHistory()
  private let bus: Bus

  public init(host: PluginHost) throws(EngineError) {
    instance = host.instance
    bus = host.bus
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    try registrar.answer(SystemVersion.self) { (_, _) async throws(EngineError) in self.version() }
    try registrar.stream(BusTap.self) { (request, call, sink) async throws(EngineError) in
      try await BusTapper(request, call).run(call, sink)
      return Done()
    }
    try registrar.answer(SystemInfo.self) { (_, call) async throws(EngineError) in try await self.info(call) }
    let history = history
    bus.subscribe(to: EngineEvent.self) { event in history.append(event) }
    try registrar.stream(EventWatch.self) { (request, _, sink) async throws(EngineError) in
      try await self.watch(request, sink)
    }
  }

  /// Tells what is remembered and then what comes, until the moment that was named or the client's end.
  private func watch(_ request: EventWatch, _ sink: Sink<EngineEvent>) async throws(EngineError) -> Done {
    let (number, past, stream) = history.listen(since: request.since)
    defer { history.end(number) }
    if let until = request.until {
      let left = Duration.nanoseconds(max(0, until.nanoseconds - Timestamp.now.nanoseconds))
      _ = bus.timekeeper.schedule(after: left) { [history] in history.end(number) }
    }
    for event in past where request.until.map({ event.time <= $0 }) ?? true { try await sink.yield(event) }
    for await event in stream { try await sink.yield(event) }
    return Done()
  }

  private func version() -> SystemVersion.Reply {
    let machine = MachineIdentity()
    return SystemVersion.Reply(
      version: instance.version, protocolVersion: 1, commit: "", kernel: machine.release,
      architecture: machine.architecture, started: started)
  }

  private func info(_ call: Call) async throws(EngineError) -> SystemInfo.Reply {
    let containers = try await call.request(ContainerList(all: true))
    func count(_ statuses: ContainerStatus...) -> Int {
      containers.count { statuses.contains($0.state.status) }
    }
    let images = try await call.request(ImageList())
    let cgroups = try await call.request(ResourceCapabilities())
    let plugins = try await call.request(PluginList())
    let machine = MachineIdentity()
    return SystemInfo.Reply(
      containers: containers.count, running: count(.running), paused: count(.paused),
      stopped: count(.created, .exited, .dead), images: images.count, version: instance.version, root: instance.root,
      runtimeDirectory: instance.runtimeDirectory, kernel: machine.release,
      operatingSystem: Self.operatingSystem(), architecture: machine.architecture,
      cpus: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
      memory: Int64(sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))),
      hostname: machine.hostname, cgroups: cgroups, plugins: plugins, warnings: Self.warnings(plugins, cgroups))
  }

  private static func warnings(_ plugins: [PluginStatus], _ cgroups: ResourceCapabilities.Reply) -> [String] {
    var warnings: [String] = []
    for plugin in plugins {
      switch plugin.state {
      case .failed(let reason), .skipped(let reason):
        warnings.append("WARNING: the plugin \(plugin.name) is not running: \(reason)")
      case .waiting, .running, .stopped: break
      }
    }
    for controller in ["cpu", "memory", "pids"] where cgroups.controllers[controller] == nil {
      warnings.append("WARNING: No \(controller) limit support")
    }
    return warnings
  }

  /// `PRETTY_NAME` of os-release(5).
  private static func operatingSystem() -> String {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
      guard let text = try? Files.readText(path, limit: 64 << 10) else { continue }
      for line in text.split(separator: "\n") where line.hasPrefix("PRETTY_NAME=") {
        return String(line.dropFirst(12)).trimmingQuotes()
      }
    }
    return "Linux"
  }
}

/// What uname(2) says.
private struct MachineIdentity {
  let release: String
  let architecture: String
  let hostname: String

  init() {
    var name = utsname()
    uname(&name)
    func text<Tuple>(_ field: Tuple) -> String {
      withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    release = text(name.release)
    architecture = text(name.machine)
    hostname = text(name.nodename)
  }
}

extension String {
  fileprivate func trimmingQuotes() -> String {
    guard count >= 2, let first, first == last, first == "\"" || first == "'" else { return self }
    return String(dropFirst().dropLast())
  }
}
