/// One thing that took time within a traced operation.
public struct TraceSpan: Codable, Sendable, Equatable {
  /// A message's name, or that of a step.
  public var name: String
  /// The plugin that answered the message; empty for a step.
  public var plugin: String
  /// The driver that the message was routed to; empty where none was named.
  public var driver: String
  /// The process in which it happened.
  public var process: Int32
  /// What the process is: `engined`, `engine-shim` or `container`.
  public var program: String
  /// The index of the span that caused this one, or -1.
  public var parent: Int
  /// Nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)). One that is not over yet has no end.
  public var begin: Int64
  public var end: Int64?
  /// The error that it ended with; empty when it succeeded.
  public var error: String

  public init(
    name: String, plugin: String = "", driver: String = "", process: Int32, program: String, parent: Int,
    begin: Int64, end: Int64? = nil, error: String = ""
  ) {
    self.name = name
    self.plugin = plugin
    self.driver = driver
    self.process = process
    self.program = program
    self.parent = parent
    self.begin = begin
    self.end = end
    self.error = error
  }
}

/// Takes what was recorded under a trace id: what a client asks for after the requests that carried the id beside their
/// parameters. Empty for an id that is not known, or was read before.
public struct TraceRead: Request {
  public static let name = "trace.read"
  public typealias Reply = [TraceSpan]
  public var trace: String

  public init(trace: String) { self.trace = trace }
}
