/// A value that travels on the bus. In one process it is passed as it is; across a process boundary the same type is
/// encoded as the `params` of a JSON-RPC 2.0 message (see `docs/architecture.md`).
public protocol Message: Codable, Sendable {
  /// The message's name on the wire, `<role>.<verb>` in lower case, for example `container.start`.
  static var name: String { get }
  /// The message as JSON without the cost of `Codable`'s first use, where it matters; nil for the others.
  ///
  /// - Parameter descriptors: collects the descriptors in the message.
  func json(_ descriptors: DescriptorTable) -> JSONValue?
}

extension Message {
  public func json(_ descriptors: DescriptorTable) -> JSONValue? { nil }
}

/// A message that asks for one answer.
public protocol Request: Message {
  associatedtype Reply: Codable & Sendable
  /// Whether asking twice is as good as asking once, because nothing is changed: a client may then repeat it when the
  /// connection breaks before the answer.
  static var isRepeatable: Bool { get }
}

extension Request {
  public static var isRepeatable: Bool { false }
}

/// A message that asks for a sequence of elements, ended by one reply.
public protocol StreamRequest: Message {
  associatedtype Element: Codable & Sendable
  associatedtype Reply: Codable & Sendable
}

/// A message that is told to everyone who subscribed to its type, and that nobody answers.
public protocol Event: Message {}

/// The reply of a request that has nothing to say but that it was done.
public struct Done: Codable, Sendable, Equatable {
  public init() {}
}
