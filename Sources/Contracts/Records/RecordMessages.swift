// Role "records": durable state as values under a kind and a key, for every plugin that has to remember something.

/// How safe a write must be when the request returns.
public enum Durability: String, Codable, Sendable {
  /// Survives a power failure (synced to disk).
  case power
  /// Survives the death of the engine, not that of the machine.
  case process
}

public struct Record: Codable, Sendable, Equatable {
  public var kind: String
  public var key: String
  /// JSON text, so that people can read the store.
  public var value: String

  public init(kind: String, key: String, value: String) {
    self.kind = kind
    self.key = key
    self.value = value
  }
}

/// Writes and deletes records in one transaction.
public struct RecordWrite: Request {
  public static let name = "record.write"
  public typealias Reply = Done
  public struct Key: Codable, Sendable, Equatable {
    public var kind: String
    public var key: String

    public init(kind: String, key: String) {
      self.kind = kind
      self.key = key
    }
  }
  public var put: [Record]
  public var delete: [Key]
  public var durability: Durability

  public init(put: [Record] = [], delete: [Key] = [], durability: Durability) {
    self.put = put
    self.delete = delete
    self.durability = durability
  }
}

/// All records of a kind, in the order of their keys.
public struct RecordRead: Request {
  public static let name = "record.read"
  public typealias Reply = [Record]
  public var kind: String

  public init(kind: String) { self.kind = kind }
}
