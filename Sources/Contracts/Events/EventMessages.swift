/// Something that happened to a container, a network or a volume, as `events` shows it.
public struct EngineEvent: Event, Equatable {
  public static let name = "engine.event"
  public enum Kind: String, Codable, Sendable, CaseIterable {
    case container
    case network
    case volume
  }
  public var kind: Kind
  /// Docker's word, for example `start`.
  public var action: String
  /// The ID, or a volume's name.
  public var object: String
  public var attributes: [String: String]
  public var time: Timestamp

  public init(kind: Kind, action: String, object: String, attributes: [String: String], time: Timestamp = .now) {
    self.kind = kind
    self.action = action
    self.object = object
    self.attributes = attributes
    self.time = time
  }
}

/// What happened since a moment, as far as it is remembered, and what happens until one.
public struct EventWatch: StreamRequest {
  public static let name = "event.watch"
  public typealias Element = EngineEvent
  public typealias Reply = Done
  /// Nil for from now on.
  public var since: Timestamp?
  /// Nil for ever.
  public var until: Timestamp?

  public init(since: Timestamp?, until: Timestamp?) {
    self.since = since
    self.until = until
  }
}
