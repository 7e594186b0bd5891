import Contracts
import Kernel
import LinuxSystem

extension Lifecycle {
  func update(_ request: ContainerUpdate, _ call: Call) async throws(EngineError) -> [String] {
    let entry = try table.find(request.container)
    return try await entry.lock.withLock { () async throws(EngineError) -> [String] in
      let record = entry.record
      guard ![.removing, .dead].contains(record.state.status) else {
        throw EngineError(
          .conflict, "Cannot update container \(entry.id): Container is marked for removal and cannot be \"update\".")
      }
      var configuration = record.configuration
      if let restart = request.restart { configuration.restart = restart }
      try Self.merge(request.limits, into: &configuration.limits)
      do throws(EngineError) {
        try Limits.validate(configuration)
        if record.state.status.hasProcesses, request.limits != ResourceLimits() {
          _ = try await call.request(ResourceUpdate(container: entry.id, limits: request.limits))
        }
      } catch {
        throw EngineError(error.code, "Cannot update container \(entry.id): \(error)")
      }
      let updated = entry.update { [configuration] state -> ContainerRecord in
        state.record.configuration = configuration
        return state.record
      }
      try await Storage.create(updated, isRun: false, call)
      FaultPoint.reach("containers.update.stored")
      await tell("update", updated)
      // One that waits for a restart which is no longer wanted.
      if configuration.restart == .no { await giveUp(entry) }
      return []
    }
  }

  /// What is named replaces what was there.
  private static func merge(_ new: ResourceLimits, into old: inout ResourceLimits) throws(EngineError) {
    if new.nanoCPUs > 0, old.cpuPeriod > 0 || old.cpuQuota > 0 {
      let other = old.cpuPeriod > 0 ? "Period" : "Quota"
      throw EngineError(
        .invalidArgument,
        "Conflicting options: Nano CPUs cannot be updated as CPU \(other) has already been set.")
    }
    if new.cpuPeriod > 0 || new.cpuQuota > 0, old.nanoCPUs > 0 {
      let other = new.cpuPeriod > 0 ? "Period" : "Quota"
      throw EngineError(
        .invalidArgument, "Conflicting options: CPU \(other) cannot be updated as NanoCPUs has already been set.")
    }
    // What followed the memory limit so far stays what it was.
    if new.memory != 0, new.memorySwap == 0, old.memorySwap == 0, old.memory > 0 { old.memorySwap = old.memory * 2 }
    func take<Value: Equatable>(_ path: WritableKeyPath<ResourceLimits, Value>, unless none: Value) {
      if new[keyPath: path] != none { old[keyPath: path] = new[keyPath: path] }
    }
    take(\.nanoCPUs, unless: 0)
    take(\.cpuPeriod, unless: 0)
    take(\.cpuQuota, unless: 0)
    take(\.cpuShares, unless: 0)
    take(\.cpusetCPUs, unless: "")
    take(\.cpusetMemoryNodes, unless: "")
    take(\.memory, unless: 0)
    take(\.memoryReservation, unless: 0)
    take(\.memorySwap, unless: 0)
    take(\.pids, unless: 0)
    take(\.blkioWeight, unless: 0)
  }

  func statistics(_ request: ContainerStatistics, _ call: Call) async throws(EngineError) -> ContainerStatistics.Reply {
    let entry = try table.find(request.container)
    let none = ResourceUsage(cpuNanoseconds: 0, memory: 0, memoryLimit: 0, pids: 0, oomKills: 0)
    var reply = ContainerStatistics.Reply(usage: none, received: 0, sent: 0, time: UInt64(MonotonicClock.now))
    guard entry.isRunning else { return reply }
    reply.usage = try await call.request(ResourceRead(container: entry.id))
    reply.time = UInt64(MonotonicClock.now)
    if NetworkMode(entry.record.configuration) != .host {
      (reply.received, reply.sent) = Self.traffic(of: entry.pid)
    }
    return reply
  }

  /// Bytes in and out over all interfaces of a process's network namespace but `lo` (proc_pid_net(5), `dev`).
  private static func traffic(of pid: Int32) -> (UInt64, UInt64) {
    var (received, sent): (UInt64, UInt64) = (0, 0)
    for line in ((try? Files.readText("/proc/\(pid)/net/dev")) ?? "").split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      let name = line[..<colon].trimmingWhitespace()
      let fields = line[line.index(after: colon)...].split(separator: " ")
      guard name != "lo", fields.count > 8 else { continue }
      received += UInt64(fields[0]) ?? 0
      sent += UInt64(fields[8]) ?? 0
    }
    return (received, sent)
  }

  func differences(_ request: ContainerDifferences, _ call: Call) async throws(EngineError) -> [FileDifference] {
    let record = try table.find(request.container).record
    let own = [
      "/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
    ]
    return try await call.request(
      SnapshotDifferences(container: record.id, layers: record.layers, ignored: own))
  }
}
