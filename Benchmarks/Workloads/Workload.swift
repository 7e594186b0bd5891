/// A piece of the engine's work that is worth a figure of its own. A benchmark library times it.
public struct Workload {
  /// What belongs together: bus, wire, encoding, addresses, netlink, nftables, content.
  public var group: String
  public var name: String
  /// One of what `run` does `count` of.
  public var unit: String
  public var count: Int
  public var run: () throws -> Void

  init(_ group: String, _ name: String, per unit: String, count: Int, run: @escaping () throws -> Void) {
    self.group = group
    self.name = name
    self.unit = unit
    self.count = count
    self.run = run
  }
}

/// Every workload. None of them changes anything on the host; they need no privileges.
public final class Workloads {
  public let all: [Workload]
  private let messages: MessageWorkloads
  private let content: ContentWorkloads

  public init() throws {
    messages = try MessageWorkloads()
    content = try ContentWorkloads()
    all = try messages.all + NetworkWorkloads.all() + content.all
  }
}
