import Contracts

/// How a catalog knows that a driver is gone, and not only refuses.
public enum DriverAbsence {
  /// What a request ends with when there is no driver of that name, or one that does not live, hangs, or talks nonsense.
  public static let codes: Set<EngineError.Code> = [
    .unavailable, .notFound, .unknownMessage, .deadlineExceeded, .protocolViolation,
  ]
}
