import Contracts
import Kernel
import LinuxSystem
import Logging

/// The lifecycle of containers: the only plugin that asks all the others. This file is its table of contents.
public final class ContainersPlugin: Plugin {
  public static let manifest = PluginManifest(
    name: "containers", role: "container",
    dependencies: ["records", "image", "snapshot", "network-catalog", "volume-catalog", "resource", "runtime", "log"])

  private let lifecycle: Lifecycle
  private let bus: Bus

  public init(host: PluginHost) throws(EngineError) {
    bus = host.bus
    lifecycle = Lifecycle(bus: host.bus, log: host.log, name: host.manifest.name)
  }

  public func register(_ registrar: Registrar) throws(EngineError) {
    let lifecycle = lifecycle
    try registrar.answer(ContainerCreate.self) { (request, call) async throws(EngineError) in
      try await lifecycle.create(request, call)
    }
    try registrar.stream(ContainerRun.self) { (request, call, sink) async throws(EngineError) in
      try await lifecycle.run(request, call, sink)
    }
    try registrar.stream(ContainerStart.self) { (request, call, sink) async throws(EngineError) in
      try await lifecycle.start(request, call, sink)
    }
    try registrar.stream(ContainerAttach.self) { (request, call, sink) async throws(EngineError) in
      try await lifecycle.attach(request, call, sink)
    }
    try registrar.answer(ContainerStop.self) { (request, call) async throws(EngineError) in
      try await lifecycle.stop(request, call)
    }
    try registrar.answer(ContainerKill.self) { (request, call) async throws(EngineError) in
      try await lifecycle.kill(request, call)
    }
    try registrar.answer(ContainerRestart.self) { (request, call) async throws(EngineError) in
      try await lifecycle.restart(request, call)
    }
    try registrar.answer(ContainerPause.self) { (request, call) async throws(EngineError) in
      try await lifecycle.pause(request, call)
    }
    try registrar.answer(ContainerUnpause.self) { (request, call) async throws(EngineError) in
      try await lifecycle.unpause(request, call)
    }
    try registrar.answer(ContainerRename.self) { (request, call) async throws(EngineError) in
      try await lifecycle.rename(request, call)
    }
    try registrar.answer(ContainerTop.self) { (request, call) async throws(EngineError) in
      try await lifecycle.top(request, call)
    }
    try registrar.answer(ContainerUpdate.self) { (request, call) async throws(EngineError) in
      try await lifecycle.update(request, call)
    }
    try registrar.answer(ContainerStatistics.self) { (request, call) async throws(EngineError) in
      try await lifecycle.statistics(request, call)
    }
    try registrar.answer(ContainerDifferences.self) { (request, call) async throws(EngineError) in
      try await lifecycle.differences(request, call)
    }
    try registrar.answer(ContainerRemove.self) { (request, call) async throws(EngineError) in
      try await lifecycle.remove(request, call)
    }
    try registrar.answer(ContainerWait.self) { (request, _) async throws(EngineError) in
      try await lifecycle.wait(request)
    }
    try registrar.stream(ContainerExec.self) { (request, call, sink) async throws(EngineError) in
      try await lifecycle.exec(request, call, sink)
    }
    try registrar.answer(ContainerExecSignal.self) { (request, call) async throws(EngineError) in
      try await lifecycle.signalExec(request, call)
    }
    try registrar.answer(ContainerResize.self) { (request, call) async throws(EngineError) in
      try await lifecycle.resize(request, call)
    }
    try registrar.stream(ContainerLogs.self) { (request, call, sink) async throws(EngineError) in
      try await lifecycle.logs(request, call, sink)
    }
    try registrar.answer(ContainerList.self) { (request, _) async throws(EngineError) in lifecycle.list(request) }
    try registrar.answer(ContainerSummaries.self) { (request, _) async throws(EngineError) in
      lifecycle.list(ContainerList(all: request.all)).map { ContainerSummary($0) }
    }
    try registrar.answer(ContainerInspect.self) { (request, _) async throws(EngineError) in
      try lifecycle.table.find(request.container).record
    }
    try registrar.answer(ContainerTimings.self) { (request, _) async throws(EngineError) in
      try lifecycle.timings(of: request.container)
    }
    try registrar.answer(ContainerSize.self) { (request, call) async throws(EngineError) in
      try await call.request(SnapshotUsage(container: try lifecycle.table.find(request.container).id))
    }
    try registrar.answer(ContainerExport.self) { (request, call) async throws(EngineError) in
      let record = try lifecycle.table.find(request.container).record
      return try await call.request(
        SnapshotExport(container: record.id, layers: record.layers, output: request.output))
    }
    try registrar.answer(ContainerUsers.self) { (request, _) async throws(EngineError) in
      lifecycle.users(of: request.resource)
    }
    try registrar.answer(ContainerPlan.self) { (request, call) async throws(EngineError) in
      try await Rehearsal(of: lifecycle, real: call).run(request)
    }
    try registrar.answer(SystemCheck.self) { (request, call) async throws(EngineError) in
      await lifecycle.checkSystem(repair: request.repair, discardsUnreadable: request.repair, call)
    }
    try registrar.answerAsPlugin(PluginCheck.self) { (request, _) async throws(EngineError) in
      await lifecycle.checkSelf(repair: request.repair)
    }
    bus.subscribe(to: RuntimeExited.self) { event in lifecycle.exited(event) }
    bus.subscribe(to: RuntimeDetached.self) { event in lifecycle.detached(event) }
  }

  /// Takes over what a former engine left: see Adoption.swift.
  public func start() async throws(EngineError) {
    try await lifecycle.adopt()
  }
}
