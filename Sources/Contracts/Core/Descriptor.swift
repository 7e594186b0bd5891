import Glibc
import Synchronization

/// An open file descriptor inside a message. It is closed when the last copy of the message is gone.
///
/// On the wire it is the index of a descriptor that travels beside the frame (`SCM_RIGHTS`, unix(7)), which is why it
/// can only be encoded by a coder that carries a `DescriptorTable` in its `userInfo`.
public final class Descriptor: Codable, Sendable {
  /// The number in this process; valid as long as this object lives.
  public let number: Int32

  /// Takes ownership of an open descriptor.
  public init(adopting number: Int32) {
    self.number = number
  }

  deinit {
    close(number)
  }

  public convenience init(from decoder: any Decoder) throws {
    let index = try decoder.singleValueContainer().decode(Int.self)
    guard let table = decoder.userInfo[.descriptorTable] as? DescriptorTable else {
      throw EngineError(.protocolViolation, "a descriptor cannot be read outside a frame")
    }
    self.init(adopting: try table.take(index))
  }

  public func encode(to encoder: any Encoder) throws {
    guard let table = encoder.userInfo[.descriptorTable] as? DescriptorTable else {
      throw EngineError(.protocolViolation, "a descriptor cannot be written outside a frame")
    }
    var container = encoder.singleValueContainer()
    try container.encode(table.add(self))
  }
}

/// The descriptors that travel beside one frame, in order.
public final class DescriptorTable: Sendable {
  private struct State {
    var outgoing: [Descriptor] = []
    /// Descriptor numbers that arrived; -1 once taken.
    var incoming: [Int32]
  }

  private let state: Mutex<State>

  /// Takes ownership of the descriptors that arrived; those that no message takes are closed with the table.
  public init(incoming: [Int32] = []) {
    state = Mutex(State(incoming: incoming))
  }

  deinit {
    for number in state.withLock({ $0.incoming }) where number >= 0 { close(number) }
  }

  /// Descriptors to be sent, kept alive until the frame is written.
  public var outgoing: [Descriptor] { state.withLock { $0.outgoing } }

  func add(_ descriptor: Descriptor) -> Int {
    state.withLock { state in
      state.outgoing.append(descriptor)
      return state.outgoing.count - 1
    }
  }

  func take(_ index: Int) throws -> Int32 {
    let number = state.withLock { state -> Int32 in
      guard state.incoming.indices.contains(index) else { return -1 }
      defer { state.incoming[index] = -1 }
      return state.incoming[index]
    }
    guard number >= 0 else {
      throw EngineError(.protocolViolation, "the message names descriptor \(index), which the frame does not carry")
    }
    return number
  }
}

extension CodingUserInfoKey {
  /// Where a coder finds its `DescriptorTable`.
  public static let descriptorTable: CodingUserInfoKey = {
    guard let key = CodingUserInfoKey(rawValue: "engine.descriptorTable") else {
      preconditionFailure("the standard library takes any text as a key")
    }
    return key
  }()
}
