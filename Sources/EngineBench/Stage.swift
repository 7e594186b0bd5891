import Contracts
import Kernel

/// A group of figures with what measures them.
protocol ProbeGroup {
  static var name: String { get }
  /// In the order of the report.
  static var figures: [FigureName] { get }
  /// Sets up what the figures of these names need.
  ///
  /// - Throws: why this machine does not let them be measured.
  static func probes(_ names: Set<String>, _ stage: Stage) async throws -> [Probe]
}

/// What all groups share while they measure.
final class Stage {
  let sandbox: Sandbox
  let worker: WorkerLink
  let bus: Bus
  let engine: EngineProcess?
  /// What groups leave out, with the reason.
  private(set) var skipped: [Report.Skipped] = []

  init(sandbox: Sandbox, worker: WorkerLink, bus: Bus, engine: EngineProcess?) {
    self.sandbox = sandbox
    self.worker = worker
    self.bus = bus
    self.engine = engine
  }

  /// The probes that `make` sets up; where it fails, the figures are left out with the reason.
  func attempt(_ figures: [FigureName], _ make: () async throws -> [Probe]) async throws -> [Probe] {
    do {
      return try await make()
    } catch let interrupted as Interrupted {
      throw interrupted
    } catch {
      skip(figures, "\(EngineError(wrapping: error))")
      return []
    }
  }

  func skip(_ figures: [FigureName], _ reason: String) {
    for figure in figures where !skipped.contains(where: { $0.name == figure.name }) {
      skipped.append(Report.Skipped(name: figure.name, reason: reason))
    }
  }
}

enum Catalogue {
  static var groups: [any ProbeGroup.Type] {
    [
      ProcessProbes.self, NetworkProbes.self, PortProbes.self, CgroupProbes.self, OverlayProbes.self,
      SeccompProbes.self,
      ContainerProbes.self,
    ]
  }

  /// Every figure with its group, in the order of the report.
  static var figures: [(group: String, figure: FigureName)] {
    groups.flatMap { group in group.figures.map { (group.name, $0) } }
  }
}
