/// The one error that crosses the bus: a code for programs, a message for people, and the chain of what caused it.
///
/// Modules throw typed errors of their own and map them onto this one at their message handlers.
public struct EngineError: Error, Codable, Sendable, Equatable, CustomStringConvertible {
  /// What kind of failure it is. The raw value is what travels.
  public enum Code: String, Codable, Sendable, CaseIterable {
    /// The request itself is wrong: a flag, a size, a name.
    case invalidArgument
    /// What the request names does not exist.
    case notFound
    /// What the request would make exists already, or the state does not allow it.
    case conflict
    /// What the request would remove is in use.
    case inUse
    /// The kernel or the policy said no.
    case permissionDenied
    /// The plugin that would answer is not running.
    case unavailable
    case deadlineExceeded
    case cancelled
    /// Nobody handles a message of that name.
    case unknownMessage
    /// The two sides of a connection speak different versions of the protocol.
    case versionMismatch
    /// A frame or a message that does not follow the protocol.
    case protocolViolation
    /// No memory, disk, address, port or descriptor left.
    case resourceExhausted
    /// Stored data that does not read back as what was written.
    case corrupt
    /// The container's command is there but cannot be executed (exit code 126).
    case notExecutable
    /// The container's command does not exist (exit code 127).
    case commandNotFound
    case unsupported
    case internalFailure
  }

  /// One link of the chain of causes.
  public struct Cause: Codable, Sendable, Equatable {
    public var code: Code
    public var message: String

    public init(code: Code, message: String) {
      self.code = code
      self.message = message
    }
  }

  public var code: Code
  /// One line for people: it names the thing and, where there is one, the way out. No final full stop.
  public var message: String
  /// What caused it, nearest first.
  public var causes: [Cause]

  public init(_ code: Code, _ message: String, causes: [Cause] = []) {
    self.code = code
    self.message = message
    self.causes = causes
  }

  /// An error with another one as its nearest cause.
  public init(_ code: Code, _ message: String, because cause: EngineError) {
    self.init(code, message, causes: [Cause(code: cause.code, message: cause.message)] + cause.causes)
  }

  /// The message followed by its causes: `what: why: why`.
  public var description: String {
    ([message] + causes.map(\.message)).joined(separator: ": ")
  }

  /// Any error as an `EngineError`; one that is none becomes `internalFailure` with its description.
  public init(wrapping error: any Error) {
    self = error as? EngineError ?? EngineError(.internalFailure, "\(error)")
  }
}
