import CLinux
import Contracts
import Glibc
import LinuxSystem
import Wire

/// `version`, `info`, `system check`, `system shutdown`.
enum SystemCommands {
  static let all: [Command] = [
    Command(
      "version", usage: "[OPTIONS]", summary: "Show the version information", arguments: .exactly(0),
      flags: { [InspectCommands.formatFlag] }, run: showVersion),
    Command(
      "info", "system info", usage: "[OPTIONS]", summary: "Display system-wide information", arguments: .exactly(0),
      flags: { [InspectCommands.formatFlag] }, run: showInfo),
    Command(
      "system check", usage: "[OPTIONS]", summary: "Compare what the engine recorded with what the system has",
      arguments: .exactly(0),
      flags: {
        [
          .boolean("repair", nil, "Remove what belongs to no container"),
          .string("format", nil, ListCommands.formatHelp),
        ]
      }, run: check),
    Command(
      "system shutdown", usage: "", summary: "End the engine's daemon; containers run on", arguments: .exactly(0),
      run: shutdown),
  ]

  private static func showVersion(_ invocation: borrowing Invocation) throws -> Int32 {
    let client: JSONValue = [
      "Version": .string(EngineCLI.version), "Os": "linux", "Arch": .string(Platform.architecture),
    ]
    let server: SystemVersion.Reply?
    let complaint: String?
    do {
      var connection = try Engine.connect(invocation.global)
      (server, complaint) = (try connection.request(SystemVersion()), nil)
    } catch {
      (server, complaint) = (nil, Reports.line(error))
    }
    let serverValue: JSONValue =
      server.map { reply in
        [
          "Version": .string(reply.version), "ProtocolVersion": .int(reply.protocolVersion),
          "GitCommit": .string(reply.commit), "Os": "linux", "Arch": .string(reply.architecture),
          "KernelVersion": .string(reply.kernel), "StartedAt": .string(reply.started.description),
        ]
      } ?? .null
    if let format = invocation.options.string("format"), !format.isEmpty {
      try show(["Client": client, "Server": serverValue], format)
    } else {
      Console.out(
        "Client:\n Version:           \(EngineCLI.version)\n OS/Arch:           linux/\(Platform.architecture)\n")
      if let server {
        Console.out(
          "\nServer:\n Version:           \(server.version)\n Protocol version:  \(server.protocolVersion)\n"
            + " Git commit:        \(server.commit)\n OS/Arch:           linux/\(server.architecture)\n"
            + " Kernel:            \(server.kernel)\n Started:           \(HumanText.localTime(server.started))\n")
      }
    }
    guard let complaint else { return 0 }
    throw Failure(complaint)
  }

  /// One value with a template or as JSON.
  static func show(_ value: JSONValue, _ format: String) throws {
    if format == "json" { return Console.line(JSONText.write(value)) }
    let template: Template
    do { template = try Template(OutputFormat.unescaped(format)) } catch {
      throw Failure("template parsing error: \(error)")
    }
    do {
      Console.line(try template.render(value, strictness: .keys(maps: InspectCommands.maps)))
    } catch {
      throw Failure("template parsing error: \(error)")
    }
  }

  private static func showInfo(_ invocation: borrowing Invocation) throws -> Int32 {
    var client = try Engine.connect(invocation.global)
    let info = try client.request(SystemInfo())
    if let format = invocation.options.string("format"), !format.isEmpty {
      try show(value(info), format)
      return 0
    }
    let drivers = info.plugins.filter { !$0.driver.isEmpty && $0.state == .running }
    let byRole = Dictionary(grouping: drivers, by: \.role).sorted { $0.key < $1.key }
    var text = "Client:\n Version:    \(EngineCLI.version)\n\nServer:\n"
    text += " Containers: \(info.containers)\n  Running: \(info.running)\n  Paused: \(info.paused)\n"
    text += "  Stopped: \(info.stopped)\n Images: \(info.images)\n Server Version: \(info.version)\n"
    text += " Cgroup Version: \(info.cgroups.version)\n Plugins:\n"
    for (role, plugins) in byRole {
      text += "  \(role): \(Set(plugins.map(\.driver)).sorted().joined(separator: " "))\n"
    }
    text += " Kernel Version: \(info.kernel)\n Operating System: \(info.operatingSystem)\n OSType: linux\n"
    text += " Architecture: \(info.architecture)\n CPUs: \(info.cpus)\n"
    text += " Total Memory: \(HumanText.binarySize(info.memory))\n Name: \(info.hostname)\n"
    text += " Root Dir: \(info.root)\n Runtime Dir: \(info.runtimeDirectory)\n Log File: \(logFile(info))\n"
    Console.out(text)
    for warning in info.warnings {
      Console.error(warning.hasPrefix("WARNING") ? warning : "WARNING: \(warning)")
    }
    return 0
  }

  /// Where a daemon that a command started writes, and its drivers with it.
  private static func logFile(_ info: SystemInfo.Reply) -> String { "\(info.runtimeDirectory)/engined.log" }

  private static func value(_ info: SystemInfo.Reply) -> JSONValue {
    [
      "Containers": .int(info.containers),
      "ContainersRunning": .int(info.running),
      "ContainersPaused": .int(info.paused),
      "ContainersStopped": .int(info.stopped),
      "Images": .int(info.images),
      "Driver": "overlay2",
      "CgroupVersion": .string(info.cgroups.version),
      "CgroupControllers": .sorted(info.cgroups.controllers),
      "KernelVersion": .string(info.kernel),
      "OperatingSystem": .string(info.operatingSystem),
      "OSType": "linux",
      "Architecture": .string(info.architecture),
      "NCPU": .int(info.cpus),
      "MemTotal": .integer(info.memory),
      "DockerRootDir": .string(info.root),
      "RuntimeDir": .string(info.runtimeDirectory),
      "LogFile": .string(logFile(info)),
      "Name": .string(info.hostname),
      "ServerVersion": .string(info.version),
      "Plugins": .array(
        info.plugins.map { .object(pluginRow($0).sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) }) }),
      "Warnings": .strings(info.warnings),
    ]
  }

  private static func check(_ invocation: borrowing Invocation) throws -> Int32 {
    let format = try OutputFormat(invocation.options.string("format"))
    var client = try Engine.connect(invocation.global)
    let differences = try client.request(SystemCheck(repair: invocation.options.boolean("repair")))
    let listing = Listing(
      rowType: "differenceContext", columns: ["Kind", "Plugin", "Object"],
      fields: [.init("Kind", "KIND"), .init("Plugin", "PLUGIN"), .init("Object", "OBJECT")],
      rows: differences.map { ["Kind": $0.kind.rawValue, "Plugin": $0.plugin, "Object": $0.object] })
    if differences.isEmpty, case .table = format {
      Console.line("No differences: everything on the system is as recorded.")
    } else {
      Console.out(try listing.text(format))
    }
    return differences.allSatisfy({ $0.kind == .draining }) || invocation.options.boolean("repair") ? 0 : 1
  }

  /// Returns when the daemon has gone, so that the next command starts another one.
  private static func shutdown(_ invocation: borrowing Invocation) throws -> Int32 {
    let paths = Engine.paths(invocation.global)
    guard var client = try? Client(path: paths.socket) else { return 0 }
    // It may end before its answer is on the way.
    _ = try? client.request(SystemShutdown())
    while let _ = try? client.receive() {}
    // The daemon holds its lock until it has ended.
    if let lock = try? Files.open("\(paths.runtimeDirectory)/engined.lock", O_RDWR) {
      while flock(lock.number, LOCK_SH) != 0 && errno == EINTR {}
    }
    return 0
  }

  static func pluginRow(_ plugin: PluginStatus) -> [String: String] {
    let state =
      switch plugin.state {
      case .waiting: "waiting"
      case .running: plugin.note.map { "running: \($0)" } ?? "running"
      case .skipped(let reason): "skipped: \(reason)"
      case .failed(let reason): "failed: \(reason)"
      case .stopped: "stopped"
      }
    return [
      "Name": plugin.name, "Role": plugin.role, "Driver": plugin.driver, "Version": plugin.version, "State": state,
      "Restarts": plugin.command.isEmpty ? "" : String(plugin.restarts),
      "Capabilities": plugin.capabilities.joined(separator: ","), "Command": plugin.command.joined(separator: " "),
    ]
  }
}
