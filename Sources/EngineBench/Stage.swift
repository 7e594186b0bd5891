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

  init(sandbox: Sandbox, worker: WorkerLink, bus: Bus, engine: EngineProcess?) {
    self.sandbox = sandbox
    self.worker = worker
    self.bus = bus
    self.engine = engine
  }
}

enum Catalogue {
  static var groups: [any ProbeGroup.Type] {
    [
      ProcessProbes.self, SeccompProbes.self, ContainerProbes.self,
    ]
  }

  /// Every figure with its group, in the order of the report.
  static var figures: [(group: String, figure: FigureName)] {
    groups.flatMap { group in group.figures.map { (group.name, $0) } }
  }
}
